namespace TrainingService.Training.Data;

/// <summary>What an objective makes of a row.</summary>
public enum RowUse
{
    /// <summary>One sequence, whose answers carry loss.</summary>
    Answers,

    /// <summary>Plain text: every token carries loss, and long rows become several sequences.</summary>
    Text,

    /// <summary>Two answers to one prompt, the better one first.</summary>
    Pairs,

    /// <summary>Two answers to one prompt, the better one first, and a critique of each, whose tokens carry loss.</summary>
    Critiques,

    /// <summary>Two answers to one prompt of a category, the better one first: as wholes, or by one capability.</summary>
    Capabilities,

    /// <summary>One answer, and whether it is good.</summary>
    Verdicts,

    /// <summary>One answer, and a number.</summary>
    Scores,
}

/// <summary>What follows from a <see cref="RowUse"/>.</summary>
internal static class RowUses
{
    /// <summary>How many sequences an example is.</summary>
    public static int Sequences(this RowUse use) => use is RowUse.Pairs or RowUse.Critiques or RowUse.Capabilities ? 2 : 1;

    /// <summary>Whether answers are judged as wholes: then nothing is cut, and each stands in a sequence of its own.</summary>
    public static bool IsJudged(this RowUse use) => use is RowUse.Pairs or RowUse.Critiques or RowUse.Capabilities or RowUse.Verdicts or RowUse.Scores;
}
