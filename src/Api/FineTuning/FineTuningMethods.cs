namespace TrainingService.Api.FineTuning;

/// <summary>What the clients' <c>method.type</c> means here.</summary>
internal static class FineTuningMethods
{
    public static readonly IReadOnlyDictionary<string, string> ObjectiveByMethod = new Dictionary<string, string>
    {
        ["supervised"] = "sft",
        ["continued_pretraining"] = "pretraining",
        ["dpo"] = "dpo",
        ["kto"] = "kto",
        ["orpo"] = "orpo",
        ["simpo"] = "simpo",
        ["reward"] = "reward",
    };

    /// <summary>The hyperparameters that every method has.</summary>
    private static readonly string[] Common = ["n_epochs", "batch_size", "learning_rate_multiplier"];

    /// <summary>The hyperparameter that methods have which compare answers.</summary>
    public const string Beta = "beta";

    /// <summary>What may stand in the hyperparameters of a method.</summary>
    public static string[] HyperparametersOf(string method) => method is "dpo" or "kto" or "orpo" or "simpo" ? [.. Common, Beta] : Common;

    /// <summary>The clients' name of an objective; one that they have no name for keeps ours.</summary>
    public static string MethodOf(string objective) =>
        ObjectiveByMethod.FirstOrDefault(pair => pair.Value == objective).Key ?? objective;
}
