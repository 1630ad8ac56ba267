namespace TrainingService.Training.Data.Stored;

/// <summary>What the report counts of one row.</summary>
[Flags]
internal enum RowFlags : ushort
{
    None = 0,
    Truncated = 1,

    /// <summary>Truncation left nothing to train on.</summary>
    Dropped = 2,
    BreaksRoleOrder = 4,
    ShiftsLabels = 8,
    IsConversation = 16,
    LacksEndOfText = 32,

    /// <summary>A pair of answers of which one is longer than a sequence may be; it is left out.</summary>
    TooLong = 64,

    /// <summary>A pair of equal answers, which says nothing; it is left out.</summary>
    SameAnswers = 128,

    /// <summary>By tokens of the answer.</summary>
    ChosenLonger = 256,
    ChosenShorter = 512,
}

/// <summary>One row without errors.</summary>
/// <param name="Fingerprint">Of the columns that the layout reads: equal rows have equal ones.</param>
/// <param name="Examples">Sequences made of it: none when it was dropped, and when there is no tokenizer.</param>
/// <param name="Pair">See <see cref="PairTexts.Fingerprint"/>; null: the file does not hold pairs of answers.</param>
internal readonly record struct RowFacts(ulong Fingerprint, RowFlags Flags, int EmptyAssistantTurns, int Examples, ulong? Pair = null);

/// <summary>One sequence.</summary>
/// <param name="Length">Tokens.</param>
/// <param name="Bytes">Of its record.</param>
internal readonly record struct ExampleFacts(int Length, int TrainableTokens, int Bytes);

/// <summary>The rows of a file in some thirty bytes each, in file order; their tokens are elsewhere.</summary>
internal sealed class RowTable
{
    private readonly Column<ulong> _fingerprints;
    private readonly Column<RowFlags> _flags;
    private readonly Column<int> _emptyTurns;
    private readonly Column<int> _examplesOf;
    private readonly Column<int> _lengths;
    private readonly Column<int> _trainable;
    private readonly Column<long> _ends;
    private readonly Column<ulong> _pairs;   // of every row, or of none

    public RowTable()
        : this(new(), new(), new(), new(), new(), new(), new(), new())
    {
    }

    private RowTable(
        Column<ulong> fingerprints, Column<RowFlags> flags, Column<int> emptyTurns, Column<int> examplesOf, Column<int> lengths,
        Column<int> trainable, Column<long> ends, Column<ulong> pairs)
    {
        (_fingerprints, _flags, _emptyTurns, _examplesOf) = (fingerprints, flags, emptyTurns, examplesOf);
        (_lengths, _trainable, _ends, _pairs) = (lengths, trainable, ends, pairs);
    }

    public int Rows => _flags.Count;

    public int Examples => _lengths.Count;

    /// <summary>Rows that are pairs of answers: all of them, or none.</summary>
    public int Pairs => _pairs.Count;

    public RowFacts Row(int index) => new(
        _fingerprints[index], _flags[index], _emptyTurns[index], _examplesOf[index], Pairs == 0 ? null : _pairs[index]);

    public int LengthOf(int example) => _lengths[example];

    public int TrainableTokensOf(int example) => _trainable[example];

    /// <summary>Where the record of a sequence lies among all records.</summary>
    public (long Start, int Bytes) PlaceOf(int example)
    {
        var start = example == 0 ? 0 : _ends[example - 1];
        return (start, (int)(_ends[example] - start));
    }

    public void Add(RowFacts row)
    {
        _fingerprints.Add(row.Fingerprint);
        _flags.Add(row.Flags);
        _emptyTurns.Add(row.EmptyAssistantTurns);
        _examplesOf.Add(row.Examples);
        if (row.Pair is { } pair)
        {
            _pairs.Add(pair);
        }
    }

    public void Add(ExampleFacts example)
    {
        var start = Examples == 0 ? 0 : _ends[Examples - 1];
        _lengths.Add(example.Length);
        _trainable.Add(example.TrainableTokens);
        _ends.Add(start + example.Bytes);
    }

    public void Write(WriteBytes write)
    {
        _fingerprints.Write(write);
        _flags.Write(write);
        _emptyTurns.Write(write);
        _examplesOf.Write(write);
        _lengths.Write(write);
        _trainable.Write(write);
        _ends.Write(write);
        _pairs.Write(write);
    }

    public static RowTable Read(int rows, int examples, int pairs, ReadBytes read) => new(
        Column<ulong>.Read(rows, read), Column<RowFlags>.Read(rows, read), Column<int>.Read(rows, read),
        Column<int>.Read(rows, read), Column<int>.Read(examples, read), Column<int>.Read(examples, read),
        Column<long>.Read(examples, read), Column<ulong>.Read(pairs, read));

    /// <summary>Bytes that <see cref="Write"/> hands out.</summary>
    public static long BytesOf(int rows, int examples, int pairs) =>
        (rows * (sizeof(ulong) + sizeof(RowFlags) + (2L * sizeof(int)))) + (examples * ((2L * sizeof(int)) + sizeof(long))) + (pairs * (long)sizeof(ulong));
}
