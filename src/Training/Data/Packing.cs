using System.Numerics;

namespace TrainingService.Training.Data;

/// <summary>Which examples each sequence of an epoch holds, as two arrays however many there are.</summary>
/// <param name="examples">Examples, by index, sequence after sequence.</param>
/// <param name="starts">Where each sequence begins, and the end of the last one; null: each holds one example.</param>
internal sealed class SequenceList(int[] examples, int[]? starts)
{
    public int Count => starts is null ? examples.Length : starts.Length - 1;

    public IReadOnlyList<int> this[int index] => starts is null
        ? new ArraySegment<int>(examples, index, 1)
        : new ArraySegment<int>(examples, starts[index], starts[index + 1] - starts[index]);
}

/// <summary>Puts several examples into one sequence. An example is never divided.</summary>
internal static class Packing
{
    private const int None = -1;

    /// <summary>Best fit, longest first: each example goes to the fullest sequence that still has room for it.</summary>
    /// <remarks>The number of sequences depends on the lengths alone, not on <paramref name="order"/>, so every epoch has as many steps as
    /// the first. Examples of equal length change places with <paramref name="order"/>.</remarks>
    /// <param name="lengths">Length of each example, from 1; none exceeds <paramref name="capacity"/>.</param>
    /// <param name="order">Permutation of the examples that settles ties. Used up.</param>
    /// <param name="arrange">Given the number of sequences: the order in which they come out.</param>
    public static SequenceList BestFit(int[] lengths, int[] order, int capacity, Func<int, int[]> arrange)
    {
        SortLongestFirst(order, lengths);
        var first = new List<int>();          // of each sequence: its first example, its last, and what sequence has as much room
        var last = new List<int>();
        var below = new List<int>();
        var next = new int[lengths.Length];   // of each example: the one behind it in its sequence
        var top = new int[capacity + 1];      // of each room: the newest sequence with so much
        Array.Fill(top, None);
        var rooms = new RoomSet(capacity);
        foreach (var index in order)
        {
            var length = lengths[index];
            var room = rooms.Smallest(length);
            next[index] = None;
            int sequence;
            if (room == None)
            {
                (sequence, room) = (first.Count, capacity);
                first.Add(index);
                last.Add(index);
                below.Add(None);
            }
            else
            {
                sequence = top[room];
                top[room] = below[sequence];
                if (top[room] == None)
                {
                    rooms.Remove(room);
                }

                next[last[sequence]] = index;
                last[sequence] = index;
            }

            var left = room - length;
            if (left > 0)
            {
                below[sequence] = top[left];
                top[left] = sequence;
                rooms.Add(left);
            }
        }

        return Flatten(first, next, arrange(first.Count));
    }

    /// <summary>Fills one sequence after the other, so that the examples stay in file order.</summary>
    public static SequenceList InOrder(int[] lengths, int capacity)
    {
        var starts = new List<int>();
        var room = 0;
        for (var index = 0; index < lengths.Length; index++)
        {
            if (lengths[index] > room || starts.Count == 0)
            {
                starts.Add(index);
                room = capacity;
            }

            room -= lengths[index];
        }

        starts.Add(lengths.Length);
        return new([.. Enumerable.Range(0, lengths.Length)], [.. starts]);
    }

    /// <summary>Sorts examples by falling length; those of one length stay as they stand.</summary>
    public static void SortLongestFirst(int[] order, int[] lengths)
    {
        var keys = new long[order.Length];
        for (var place = 0; place < order.Length; place++)
        {
            keys[place] = ((long)(int.MaxValue - lengths[order[place]]) << 32) | (uint)place;
        }

        Array.Sort(keys);
        var before = (int[])order.Clone();
        for (var place = 0; place < order.Length; place++)
        {
            order[place] = before[(int)keys[place]];
        }
    }

    private static SequenceList Flatten(List<int> first, int[] next, int[] arranged)
    {
        var examples = new int[next.Length];
        var starts = new int[first.Count + 1];
        var at = 0;
        for (var place = 0; place < arranged.Length; place++)
        {
            starts[place] = at;
            for (var example = first[arranged[place]]; example != None; example = next[example])
            {
                examples[at++] = example;
            }
        }

        starts[^1] = at;
        return new(examples, starts);
    }

    /// <summary>A set of small numbers that knows the smallest from a number on.</summary>
    private sealed class RoomSet(int largest)
    {
        private readonly ulong[] _words = new ulong[(largest >> 6) + 1];

        public void Add(int value) => _words[value >> 6] |= 1UL << value;

        public void Remove(int value) => _words[value >> 6] &= ~(1UL << value);

        public int Smallest(int from)
        {
            var word = from >> 6;
            for (var bits = _words[word] & (ulong.MaxValue << from); ; bits = _words[word])
            {
                if (bits != 0)
                {
                    return (word << 6) + BitOperations.TrailingZeroCount(bits);
                }

                if (++word == _words.Length)
                {
                    return None;
                }
            }
        }
    }
}
