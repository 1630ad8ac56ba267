namespace TrainingService.Training.Data;

/// <summary>One row as token ids: a sequence, or several that are judged together.</summary>
/// <param name="InputIds">Token ids, at most <see cref="DataConfig.MaxLength"/> of them in each sequence.</param>
/// <param name="Labels">As long as <paramref name="InputIds"/>: the id itself where the token carries loss, otherwise <see cref="Ignored"/>.
/// A label stands at the position of its own token; the objective shifts.</param>
/// <param name="Row">One-based row of the file that it came from.</param>
public sealed record Example(int[] InputIds, int[] Labels, int Row)
{
    /// <summary>Label of a token without loss.</summary>
    public const int Ignored = -100;

    /// <summary>Which of <see cref="DataConfig.Classes"/> the row belongs to; null: rows have no class.</summary>
    public int? Class { get; init; }

    /// <summary>Where each of several sequences ends in <see cref="InputIds"/>, the better answer's first; null: there is one.</summary>
    public IReadOnlyList<int>? Ends { get; init; }

    /// <summary>What the row says of its answers: how much better the first is, whether the answer is good (1 or 0), or a grade; null: nothing.</summary>
    public float? Value { get; init; }

    /// <summary>Whether neither of two answers is better.</summary>
    public bool IsTie { get; init; }

    /// <summary>What kind of row its file calls it, for figures by category; null: it does not say.</summary>
    public string? Category { get; init; }

    /// <summary>The answer of another prompt, token ids, for objectives that ask how likely such a one is; null: none was looked for.</summary>
    public IReadOnlyList<int>? Unrelated { get; init; }

    /// <summary>Log-probabilities under the reference model, nats, one for each answer that the objective asks of it; null: not computed before training.</summary>
    public IReadOnlyList<float>? References { get; init; }

    /// <summary>By which capability alone its answers were compared; null: as wholes.</summary>
    public string? Capability { get; init; }

    /// <summary>Length of the longest sequence.</summary>
    internal int Longest => Ends is null ? InputIds.Length : Ends.Select((end, part) => end - (part == 0 ? 0 : Ends[part - 1])).Max();

    /// <summary>Tokens that carry loss: labels that are not ignored, less the first token, which nothing predicts.</summary>
    public int TrainableTokens => CountTrainable(Labels);

    internal static int CountTrainable(ReadOnlySpan<int> labels) =>
        labels.IsEmpty ? 0 : labels.Length - 1 - labels[1..].Count(Ignored);
}

/// <summary>One forward pass: rectangular arrays, filled at the end of each row of the batch.</summary>
/// <param name="InputIds">[B, T], row-major.</param>
/// <param name="Labels">[B, T]; <see cref="Example.Ignored"/> where there is no loss: padding, prompts, and the first token of each example.</param>
/// <param name="Positions">[B, T]; start anew at zero with each packed example.</param>
/// <param name="Segments">[B, T]; number of the packed example within its sequence, from 1; 0 on padding. Null when each sequence holds one example.</param>
public sealed record Batch(int Size, int Length, long[] InputIds, long[] Labels, long[] Positions, int[]? Segments)
{
    /// <summary>[B, T]; which class each token's example belongs to, <see cref="NoClass"/> on padding. Null when rows have no class.</summary>
    public int[]? Classes { get; init; }

    /// <summary>
    /// [B], tokens of each row, padding left out; without padding where nobody says. With several sequences to an example the first ones of all come first, then the second ones:
    /// B is a multiple of the number of examples.
    /// </summary>
    public int[] Lengths { get; init; } = [.. Enumerable.Repeat(Length, Size)];

    /// <summary>What each example is, in the order of the first rows; packed rows have several, which nobody asks for.</summary>
    public IReadOnlyList<Example> Examples { get; init; } = [];

    /// <summary>Class of a token that is padding.</summary>
    public const int NoClass = -1;

    /// <summary>Positions that carry loss.</summary>
    public int TrainableTokens => Labels.Count(label => label != Example.Ignored);
}
