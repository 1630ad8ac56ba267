using System.Collections;
using System.Numerics;
using TrainingService.Training.Data.Stored;

namespace TrainingService.Training.Data;

/// <summary>Figures of some rows of a table, taken in one walk over it.</summary>
internal sealed class RowCounts
{
    private readonly int[] _flagged = new int[8 * sizeof(RowFlags)];
    private readonly ulong[] _fingerprints;   // ascending
    private readonly ulong[] _pairs;   // ascending; empty where rows are no pairs

    private RowCounts(RowTable table, BitArray? aside, bool side)
    {
        var (rows, examples, pairs, next) = (new Column<ulong>(), new Column<int>(), new Column<ulong>(), 0);
        for (var index = 0; index < table.Rows; index++)
        {
            var row = table.Row(index);
            if (aside is null || aside[index] == side)
            {
                Add(row);
                rows.Add(row.Fingerprint);
                if (row.Pair is { } pair)
                {
                    pairs.Add(pair);
                }

                for (var example = next; example < next + row.Examples; example++)
                {
                    examples.Add(example);
                    TrainableTokens += table.TrainableTokensOf(example);
                }
            }

            next += row.Examples;
        }

        _fingerprints = rows.ToArray();
        Array.Sort(_fingerprints);
        _pairs = pairs.ToArray();
        Array.Sort(_pairs);
        Examples = examples.ToArray();
        var lengths = Array.ConvertAll(Examples, table.LengthOf);
        Array.Sort(lengths);
        Tokens = TokenStatistics.Of(lengths);
    }

    public int Rows => _fingerprints.Length;

    /// <summary>Rows that are not dropped.</summary>
    public int Usable => Rows - Of(RowFlags.Dropped);

    /// <summary>Sequences of these rows, by their number in the table.</summary>
    public int[] Examples { get; }

    public TokenStatistics? Tokens { get; }

    public long TrainableTokens { get; }

    /// <summary>Rows that became several sequences.</summary>
    public int Chunked { get; private set; }

    public int EmptyAssistantTurns { get; private set; }

    /// <summary>Rows equal to an earlier one.</summary>
    public int Duplicates => Repeated(_fingerprints);

    /// <summary>Pairs that would be equal to an earlier one if case, punctuation and white space did not count, and are not.</summary>
    public int NearDuplicates => Math.Max(0, Repeated(_pairs) - Duplicates);

    /// <summary>Pairs that stand there in both orders.</summary>
    public int Contradicting
    {
        get
        {
            var rows = 0;
            for (var first = 0; first < _pairs.Length;)
            {
                // Both orders are neighbours: they differ in the lowest bit alone.
                var end = first + 1;
                while (end < _pairs.Length && _pairs[end] >> 1 == _pairs[first] >> 1)
                {
                    end++;
                }

                rows += _pairs[first] != _pairs[end - 1] ? end - first : 0;
                first = end;
            }

            return rows;
        }
    }

    private static int Repeated(ulong[] sorted)
    {
        var repeated = 0;
        for (var i = 1; i < sorted.Length; i++)
        {
            repeated += sorted[i] == sorted[i - 1] ? 1 : 0;
        }

        return repeated;
    }

    /// <param name="aside">Which rows of the table are held back; null: there is but one side.</param>
    /// <param name="side">Whether those are counted, or the others.</param>
    public static RowCounts Of(RowTable table, BitArray? aside = null, bool side = false) => new(table, aside, side);

    /// <summary>Rows with a flag.</summary>
    public int Of(RowFlags flag) => _flagged[BitOperations.TrailingZeroCount((int)flag)];

    /// <summary>Rows here that are also among <paramref name="others"/>.</summary>
    public int Shared(RowCounts others) => _fingerprints.Count(fingerprint => Array.BinarySearch(others._fingerprints, fingerprint) >= 0);

    private void Add(RowFacts row)
    {
        for (var flags = (int)row.Flags; flags != 0; flags &= flags - 1)
        {
            _flagged[BitOperations.TrailingZeroCount(flags)]++;
        }

        Chunked += row.Examples > 1 ? 1 : 0;
        EmptyAssistantTurns += row.EmptyAssistantTurns;
    }
}
