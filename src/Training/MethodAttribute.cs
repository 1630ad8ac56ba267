namespace TrainingService.Training;

/// <summary>What a method is, for those who choose one. Stands on the record of each objective, adapter, optimizer and scheduler.</summary>
/// <param name="title">Its name as people say it.</param>
/// <param name="summary">One sentence: what it computes or moves.</param>
/// <param name="goodFor">One sentence: when to choose it.</param>
[AttributeUsage(AttributeTargets.Class | AttributeTargets.Field)]
public sealed class MethodAttribute(string title, string summary, string goodFor) : Attribute
{
    public string Title { get; } = title;

    public string Summary { get; } = summary;

    public string GoodFor { get; } = goodFor;

    /// <summary>Authors, year and title of its source; null when it has no single one.</summary>
    public string? Paper { get; init; }

    /// <summary>Number of the paper on arXiv.</summary>
    public string? Arxiv { get; init; }

    /// <summary>How many numbers an adapter trains, as a formula; null for methods of other families.</summary>
    public string? Parameters { get; init; }
}
