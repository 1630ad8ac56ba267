namespace TrainingService.Training.Data;

/// <summary>What was found in the rows before any training. Written to the artifact as <c>data/report.json</c>.</summary>
public sealed record DataReport
{
    public required SplitReport Train { get; init; }

    /// <summary>Null when there is neither a validation file nor a carved-out share.</summary>
    public SplitReport? Validation { get; init; }

    /// <summary>Validation rows that are also training rows.</summary>
    public int OverlappingRows { get; init; }

    /// <summary>All rows in error, also those beyond the first <see cref="MaxErrors"/>.</summary>
    public int ErrorCount { get; init; }

    /// <summary>The first <see cref="MaxErrors"/> errors.</summary>
    public IReadOnlyList<RowError> Errors { get; init; } = [];

    /// <summary>What the owner should know, and what does not stop a run.</summary>
    public IReadOnlyList<string> Warnings { get; init; } = [];

    /// <summary>The first training rows as the model sees them.</summary>
    public IReadOnlyList<RowPreview> Preview { get; init; } = [];

    /// <summary>Whether every row was read. A run reads them all; a look at a file may end before that, and a warning then says so.</summary>
    public bool IsComplete { get; init; } = true;

    /// <summary>Errors that are kept in full.</summary>
    public const int MaxErrors = 100;

    /// <summary>Rows that are previewed.</summary>
    public const int MaxPreviews = 5;

    /// <summary>Whether a run can start on these rows.</summary>
    public bool IsUsable => ErrorCount == 0 && Train.UsedRows > 0;

    /// <exception cref="TrainingException">There are errors, or no row is left to train on.</exception>
    public void ThrowIfUnusable()
    {
        if (ErrorCount > 0)
        {
            var first = Errors[0];
            var others = ErrorCount == 1 ? "" : $" ({ErrorCount} errors in all; the data report lists them)";
            throw TrainingException.InvalidData($"{first.Place}: {first.Message}{others}", first.Param);
        }

        if (Train.UsedRows == 0)
        {
            var why = Train.Rows == 0
                ? "the file holds no rows"
                : $"none of its {Train.Rows} rows has a trainable token within max_length";
            throw TrainingException.InvalidData($"data.train has no usable row: {why}.", "data.train");
        }
    }
}

/// <summary>Figures of the rows of one split.</summary>
public sealed record SplitReport
{
    /// <summary><c>jsonl</c>, <c>json</c>, <c>csv</c> or <c>tsv</c>, with <c>.gz</c> when compressed; null when it could not be decided.</summary>
    public string? Container { get; init; }

    /// <summary>Layout of the rows, such as <c>prompt_completion</c>; null when it could not be decided.</summary>
    public string? Layout { get; init; }

    /// <summary>Columns that the layout does not read.</summary>
    public IReadOnlyList<string> IgnoredColumns { get; init; } = [];

    /// <summary>Rows in the file, blank lines left out.</summary>
    public int Rows { get; init; }

    /// <summary>Rows that are trained or evaluated on.</summary>
    public int UsedRows { get; init; }

    /// <summary>Token sequences made from the used rows: more than rows where long text was cut into several.</summary>
    public int Examples { get; init; }

    /// <summary>Lengths of the sequences in tokens; null when no tokenizer was at hand.</summary>
    public TokenStatistics? Tokens { get; init; }

    /// <summary>Tokens that carry loss in one epoch.</summary>
    public long TrainableTokens { get; init; }

    /// <summary>Rows that were longer than <c>max_length</c> and lost their end.</summary>
    public int TruncatedRows { get; init; }

    /// <summary>Rows that were longer than <c>max_length</c> and became several sequences.</summary>
    public int ChunkedRows { get; init; }

    /// <summary>Rows without a token that carries loss; those that truncation left so are dropped, the others are errors.</summary>
    public int RowsWithoutTrainableTokens { get; init; }

    /// <summary>What the pairs of answers are like; null when the objective reads none.</summary>
    public PairFigures? Pairs { get; init; }

    /// <summary>Rows equal to an earlier one in every column that the layout reads. They are kept.</summary>
    public int Duplicates { get; init; }

    /// <summary>Assistant turns without text and without tool calls.</summary>
    public int EmptyAssistantTurns { get; init; }

    /// <summary>Conversations in which user and assistant do not alternate, or a system turn is not the first.</summary>
    public int RoleOrderBreaks { get; init; }

    /// <summary>Turns whose role is not known.</summary>
    public int UnknownRoles { get; init; }
}

/// <summary>What could be seen of pairs of answers without a model.</summary>
/// <param name="ChosenLonger">Rows whose chosen answer has more tokens: a model that likes length is right in them.</param>
/// <param name="ChosenShorter">Rows whose chosen answer has fewer tokens.</param>
/// <param name="SameAnswers">Rows whose two answers are equal; they are left out.</param>
/// <param name="TooLong">Rows of which an answer with its prompt is longer than <c>max_length</c>; they are left out, not cut.</param>
public sealed record PairFigures(int ChosenLonger, int ChosenShorter, int SameAnswers, int TooLong)
{
    /// <summary>Rows that are no duplicates of an earlier one, but would be if case, punctuation and white space did not count. They are kept.</summary>
    public int NearDuplicates { get; init; }

    /// <summary>Rows whose two answers stand in another row of the same prompt the other way round, compared as near duplicates are.</summary>
    public int Contradicting { get; init; }

    /// <summary>Phrases that open or end many answers of one kind and few of the other, in the file as a whole.</summary>
    public IReadOnlyList<PhrasePattern> Patterns { get; init; } = [];
}

/// <summary>A phrase by which chosen and rejected answers can be told apart without reading them.</summary>
/// <param name="ChosenShare">Share of the pairs whose chosen answer has it there.</param>
public sealed record PhrasePattern(PhrasePlace Place, string Text, double ChosenShare, double RejectedShare);

/// <summary>Lengths in tokens, as used: after truncation.</summary>
/// <param name="P95">95th percentile: the smallest length that at least 95 % of the sequences do not exceed.</param>
public sealed record TokenStatistics(int Min, int Median, int P95, int Max, long Total)
{
    /// <summary>Nearest-rank statistics; null when there are no lengths.</summary>
    /// <param name="sorted">Ascending.</param>
    public static TokenStatistics? Of(int[] sorted)
    {
        return sorted.Length == 0
            ? null
            : new(sorted[0], Rank(sorted, 0.5), Rank(sorted, 0.95), sorted[^1], sorted.Sum(length => (long)length));
    }

    private static int Rank(int[] sorted, double share) => sorted[(int)Math.Ceiling(share * sorted.Length) - 1];
}

/// <summary>Something in a file that keeps a run from starting.</summary>
/// <param name="Split"><c>train</c> or <c>validation</c>.</param>
/// <param name="Row">One-based: the line of a JSONL file, the element of a JSON array, the record of a CSV file (its header not counted).
/// Null when the file as a whole is at fault.</param>
/// <param name="Column">One-based character within the row, where text is malformed.</param>
/// <param name="Field">Name of the column, such as <c>messages[2].role</c>, where a value is at fault.</param>
/// <param name="Code">Stable name of the rule that was broken, such as <c>malformed_json</c>.</param>
public sealed record RowError(string Split, int? Row, int? Column, string? Field, string Code, string Message)
{
    /// <summary>JSON path of the spec member and row: <c>data.train:17</c>.</summary>
    public string Param => Row is null ? $"data.{Split}" : $"data.{Split}:{Row}";

    internal string Place => (Row, Column, Field) switch
    {
        (null, _, _) => $"data.{Split}",
        (_, not null, _) => $"data.{Split} row {Row}, column {Column}",
        (_, _, not null) => $"data.{Split} row {Row}, {Field}",
        _ => $"data.{Split} row {Row}",
    };
}

/// <summary>One row as the model sees it; at most <see cref="MaxTokens"/> tokens of it.</summary>
/// <param name="Text">The tokens as text, special tokens written out; null when no tokenizer was at hand.</param>
/// <param name="Mask">As long as <paramref name="InputIds"/>: 1 where the token carries loss.</param>
public sealed record RowPreview(int Row, string? Text, IReadOnlyList<int> InputIds, IReadOnlyList<int> Mask)
{
    public const int MaxTokens = 512;
}

/// <summary>How far the reading of a file has come.</summary>
/// <param name="Bytes">Of the file as it lies there, compressed or not.</param>
public sealed record DataProgress(string Split, int Rows, long Bytes, long TotalBytes);

/// <summary>Rows as token sequences, in file order. They lie on the disk: what is in memory grows by some bytes a row.</summary>
/// <param name="Train">Readable until the data is disposed, like <paramref name="Validation"/>.</param>
/// <param name="Content">Hash of the sequences of each file.</param>
public sealed record PreparedData(IExamples Train, IExamples Validation, DataReport Report, string Content) : IDisposable
{
    internal IReadOnlyList<IDisposable> Files { get; init; } = [];

    public void Dispose()
    {
        foreach (var file in Files)
        {
            file.Dispose();
        }
    }
}
