namespace TrainingService.Api.FineTuning;

/// <summary>What the clients' <c>method.type</c> means here.</summary>
internal static class FineTuningMethods
{
    public static readonly IReadOnlyDictionary<string, string> ObjectiveByMethod = new Dictionary<string, string>
    {
        ["supervised"] = "sft",
        ["continued_pretraining"] = "pretraining",
    };

    /// <summary>The clients' name of an objective; one that they have no name for keeps ours.</summary>
    public static string MethodOf(string objective) =>
        ObjectiveByMethod.FirstOrDefault(pair => pair.Value == objective).Key ?? objective;
}
