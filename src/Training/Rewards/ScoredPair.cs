namespace TrainingService.Training.Rewards;

/// <summary>Two answers to one prompt with the rewards that a model gives them.</summary>
/// <param name="Chosen">Reward of the answer that the data set says is better.</param>
/// <param name="ChosenTokens">Tokens of the answer, its prompt left out.</param>
public readonly record struct ScoredPair(double Chosen, double Rejected, int ChosenTokens, int RejectedTokens)
{
    /// <summary>One-based row of the file that it came from.</summary>
    public int Row { get; init; }

    /// <summary>Equal prompts have equal ones.</summary>
    public ulong Prompt { get; init; }

    /// <summary>What kind of row its file calls it; null: it does not say.</summary>
    public string? Category { get; init; }

    /// <summary>By how much the file says the chosen answer is better; null: it does not say.</summary>
    public double? StatedMargin { get; init; }

    /// <summary>By how much the chosen answer leads.</summary>
    public double Margin => Chosen - Rejected;

    /// <summary>Whether the chosen answer scores higher: equal rewards are wrong.</summary>
    public bool IsRight => Chosen > Rejected;

    /// <summary>Tokens by which the chosen answer is longer.</summary>
    public int LongerBy => ChosenTokens - RejectedTokens;
}
