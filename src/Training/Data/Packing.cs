namespace TrainingService.Training.Data;

/// <summary>Puts several examples into one sequence. An example is never divided.</summary>
internal static class Packing
{
    /// <summary>Best fit, longest first: each example goes to the fullest sequence that still has room for it.</summary>
    /// <remarks>The number of sequences depends on the lengths alone, not on <paramref name="order"/>, so every epoch has as many steps as
    /// the first. Examples of equal length change places with <paramref name="order"/>.</remarks>
    /// <param name="lengths">Length of each example; none exceeds <paramref name="capacity"/>.</param>
    /// <param name="order">Permutation of the examples that settles ties.</param>
    public static List<List<int>> BestFit(IReadOnlyList<int> lengths, int[] order, int capacity)
    {
        var sequences = new List<List<int>>();
        var byRoom = new Dictionary<int, Stack<int>>();
        var rooms = new SortedSet<int>();
        foreach (var index in order.OrderByDescending(i => lengths[i]))   // stable: ties stay in the given order
        {
            var length = lengths[index];
            var room = rooms.GetViewBetween(length, capacity).Min;   // 0 when no sequence has room
            int sequence;
            if (room == 0)
            {
                sequence = sequences.Count;
                sequences.Add([]);
                room = capacity;
            }
            else
            {
                var stack = byRoom[room];
                sequence = stack.Pop();
                if (stack.Count == 0)
                {
                    rooms.Remove(room);
                }
            }

            sequences[sequence].Add(index);
            var left = room - length;
            if (left == 0)
            {
                continue;
            }

            if (!byRoom.TryGetValue(left, out var others))
            {
                byRoom[left] = others = new Stack<int>();
            }

            others.Push(sequence);
            rooms.Add(left);
        }

        return sequences;
    }

    /// <summary>Fills one sequence after the other, so that the examples stay in file order.</summary>
    public static List<List<int>> InOrder(IReadOnlyList<int> lengths, int capacity)
    {
        var sequences = new List<List<int>>();
        var room = 0;
        for (var index = 0; index < lengths.Count; index++)
        {
            if (lengths[index] > room || sequences.Count == 0)
            {
                sequences.Add([]);
                room = capacity;
            }

            sequences[^1].Add(index);
            room -= lengths[index];
        }

        return sequences;
    }
}
