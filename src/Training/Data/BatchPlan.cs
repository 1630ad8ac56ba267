using System.Collections;

namespace TrainingService.Training.Data;

/// <summary>What one forward pass sees.</summary>
/// <param name="Sequences">Examples, by index, of each row of the batch: one each, or several when packed.</param>
public sealed record PlannedBatch(IReadOnlyList<IReadOnlyList<int>> Sequences);

/// <summary>Which examples are seen together and in which order. A function of the seed and the epoch alone, so a position in the data is
/// (epoch, batch) and nothing else needs to be saved for an exact resume.</summary>
public sealed class BatchPlan
{
    private readonly IReadOnlyList<Example> _examples;
    private readonly int[] _lengths;
    private readonly int _batchSize;
    private readonly int _padId;
    private readonly int? _capacity;
    private readonly int? _seed;

    /// <param name="examples">Not copied; read when a batch is made of them.</param>
    /// <param name="batchSize">Sequences in one batch; the last batch of an epoch may hold fewer.</param>
    /// <param name="padId">Token that fills the end of short sequences. It carries no loss.</param>
    /// <param name="packTo">Length that packed sequences may reach, tokens; null: one example per sequence.</param>
    /// <param name="shuffleSeed">Seed of the order; null: the order of the file in every epoch.</param>
    public BatchPlan(IReadOnlyList<Example> examples, int batchSize, int padId, int? packTo, int? shuffleSeed)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(batchSize, 1);
        _examples = examples;
        _lengths = new int[examples.Count];
        for (var index = 0; index < _lengths.Length; index++)
        {
            _lengths[index] = ChosenExamples.LengthOf(examples, index);
        }

        _batchSize = batchSize;
        _padId = padId;
        _capacity = packTo;
        _seed = shuffleSeed;
        if (_capacity < _lengths.DefaultIfEmpty().Max())
        {
            throw new ArgumentOutOfRangeException(nameof(packTo), packTo, "An example is longer than a packed sequence.");
        }

        BatchesPerEpoch = (Sequences(0).Count + batchSize - 1) / batchSize;
    }

    /// <summary>Batches of every epoch: packing never changes how many there are.</summary>
    public int BatchesPerEpoch { get; }

    /// <summary>The plan of training. Answers that are judged stand in sequences of their own.</summary>
    public static BatchPlan ForTraining(
        IReadOnlyList<Example> examples, DataConfig config, RowUse use, int batchSize, int padId, int seed) =>
        new(examples, batchSize, padId, config.Packing && !use.IsJudged() ? config.MaxLength : null, config.Shuffle ? seed : null);

    /// <summary>The plan of evaluation: file order, one example per sequence.</summary>
    public static BatchPlan ForEvaluation(IReadOnlyList<Example> examples, int batchSize, int padId) =>
        new(examples, batchSize, padId, packTo: null, shuffleSeed: null);

    /// <summary>The batches of an epoch, counted from 0.</summary>
    public IReadOnlyList<PlannedBatch> ForEpoch(int epoch) => new EpochPlan(Sequences(epoch), _batchSize);

    /// <summary>Tokens of a batch, padding left out.</summary>
    public int TokensOf(PlannedBatch planned) => planned.Sequences.Sum(sequence => sequence.Sum(index => _lengths[index]));

    /// <summary>The batch as rectangular arrays, as long as its longest sequence.</summary>
    public Batch Collate(PlannedBatch planned)
    {
        var rows = RowsOf(planned);
        var (size, length) = (rows.Count, rows.Max(row => row.Sum(piece => piece.Length)));
        var ids = new long[size * length];
        var labels = new long[size * length];
        var positions = new long[size * length];
        Array.Fill(ids, _padId);
        Array.Fill(labels, Example.Ignored);
        var segments = rows.Any(row => row.Count > 1) ? new int[size * length] : null;
        int[]? classes = null;
        for (var row = 0; row < size; row++)
        {
            var at = row * length;
            for (var segment = 0; segment < rows[row].Count; segment++)
            {
                var (example, start, count) = rows[row][segment];
                if (example.Class is not null && classes is null)
                {
                    classes = new int[size * length];
                    Array.Fill(classes, Batch.NoClass);
                }

                classes?.AsSpan(at, count).Fill(example.Class ?? Batch.NoClass);
                for (var t = 0; t < count; t++, at++)
                {
                    ids[at] = example.InputIds[start + t];
                    // What stands before the first token is nothing, or another example: neither predicts it.
                    labels[at] = t == 0 ? Example.Ignored : example.Labels[start + t];
                    positions[at] = t;
                    if (segments is not null)
                    {
                        segments[at] = segment + 1;
                    }
                }
            }
        }

        return new(size, length, ids, labels, positions, segments)
        {
            Classes = classes,
            Lengths = [.. rows.Select(row => row.Sum(piece => piece.Length))],
            Examples = [.. planned.Sequences.SelectMany(sequence => sequence).Select(index => _examples[index])],
        };
    }

    /// <summary>What stands in each row of a batch: the first sequence of every example, then the second of every example, and so on.</summary>
    private List<List<(Example Example, int Start, int Length)>> RowsOf(PlannedBatch planned)
    {
        var sequences = planned.Sequences.Select(sequence => sequence.Select(index => _examples[index]).ToList()).ToList();
        var parts = sequences[0][0].Ends?.Count ?? 1;
        return
        [
            .. Enumerable.Range(0, parts).SelectMany(part => sequences.Select(sequence => sequence.ConvertAll(example => Piece(example, part)))),
        ];

        static (Example, int Start, int Length) Piece(Example example, int part)
        {
            var start = part == 0 ? 0 : example.Ends![part - 1];
            return (example, start, (example.Ends?[part] ?? example.InputIds.Length) - start);
        }
    }

    private SequenceList Sequences(int epoch)
    {
        if (_seed is not { } seed)
        {
            return _capacity is { } inOrder ? Packing.InOrder(_lengths, inOrder) : new([.. Enumerable.Range(0, _lengths.Length)], starts: null);
        }

        var random = SplitMix64.For(seed, epoch);
        var order = random.Permutation(_examples.Count);

        // Best fit leaves the longest examples in front; the second shuffle spreads them over the epoch.
        return _capacity is { } capacity
            ? Packing.BestFit(_lengths, order, capacity, count => random.Permutation(count))
            : new(order, starts: null);
    }

    /// <summary>The batches of one epoch, each made when it is asked for.</summary>
    private sealed class EpochPlan(SequenceList sequences, int batchSize) : IReadOnlyList<PlannedBatch>
    {
        public int Count => (sequences.Count + batchSize - 1) / batchSize;

        public PlannedBatch this[int index]
        {
            get
            {
                ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)Count, nameof(index));
                var first = index * batchSize;
                return new([.. Enumerable.Range(first, Math.Min(batchSize, sequences.Count - first)).Select(place => sequences[place])]);
            }
        }

        public IEnumerator<PlannedBatch> GetEnumerator() => Enumerable.Range(0, Count).Select(index => this[index]).GetEnumerator();

        IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
    }
}
