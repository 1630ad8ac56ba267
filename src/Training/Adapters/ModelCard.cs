namespace TrainingService.Training.Adapters;

/// <summary>What the <c>README.md</c> beside saved weights tells about them.</summary>
/// <param name="BaseModel">The base model as its user names it; also <c>base_model_name_or_path</c> of a PEFT configuration.</param>
public sealed record ModelCard(string BaseModel)
{
    /// <summary>One line about the training rows, such as a file name and a number of rows.</summary>
    public string? Data { get; init; }

    /// <summary>The spec of the run; null for weights that no run of ours made.</summary>
    public TrainingSpec? Spec { get; init; }

    /// <summary>Measured figures by name, such as <c>eval/loss</c>.</summary>
    public IReadOnlyDictionary<string, double> Results { get; init; } = new Dictionary<string, double>();
}
