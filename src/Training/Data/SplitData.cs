using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Stored;

namespace TrainingService.Training.Data;

/// <summary>What was read of one file.</summary>
internal sealed record SplitData(string Split)
{
    public string? Container { get; init; }

    /// <summary>Null when it could not be decided.</summary>
    public string? Layout { get; init; }

    /// <summary>Whether the layout holds answers that are judged.</summary>
    public bool IsJudged => Layout is not null && RowLayout.IsJudged(Layout);

    public IReadOnlyList<string> IgnoredColumns { get; init; } = [];

    /// <summary>Layouts that the columns also fit.</summary>
    public IReadOnlyList<string> OtherLayouts { get; init; } = [];

    /// <summary>Rows, those in error included.</summary>
    public int Rows { get; init; }

    /// <summary>Rows in error, and faults of the file as a whole.</summary>
    public int ErrorCount { get; init; }

    public IReadOnlyList<RowError> Errors { get; init; } = [];

    public int UnknownRoles { get; init; }

    /// <summary>Rows in error because no token of theirs carries loss.</summary>
    public int UntrainableRows { get; init; }

    /// <summary>See <see cref="PairFigures.Patterns"/>.</summary>
    public IReadOnlyList<PhrasePattern> Patterns { get; init; } = [];

    /// <summary>False when limits ended the reading.</summary>
    public bool IsComplete { get; init; } = true;

    /// <summary>The rows without errors.</summary>
    public required RowTable Table { get; init; }

    /// <summary>The first sequences, for a preview; <see cref="Tokens"/> has them all.</summary>
    public IReadOnlyList<Example> First { get; init; } = [];

    /// <summary>Null: nobody asked for them, or there are errors.</summary>
    public TokenFile? Tokens { get; init; }

    public static SplitData Of(string split, TokenFile tokens) => new(split)
    {
        Container = tokens.Head.Container,
        Layout = tokens.Head.Layout,
        IgnoredColumns = tokens.Head.IgnoredColumns,
        OtherLayouts = tokens.Head.OtherLayouts,
        Rows = tokens.Head.Rows,
        Patterns = tokens.Head.Patterns.Count == 0 ? [] : tokens.Head.Patterns,
        Table = tokens.Table,
        Tokens = tokens,
    };

    public TokenFileHead HeadOf(string key, bool narrow) =>
        new(key, Container, Layout, IgnoredColumns, OtherLayouts, Rows, Table.Rows, Table.Examples, narrow, Table.Pairs, Patterns);
}
