using System.Collections;

namespace TrainingService.Training.Data;

/// <summary>Sequences of which only the lengths need be in memory.</summary>
public interface IExamples : IReadOnlyList<Example>
{
    /// <summary>Tokens of one sequence, without reading it.</summary>
    int LengthOf(int index);
}

/// <summary>Sequences of another list, some of them or all, in an order of their own.</summary>
/// <param name="order">Their numbers there.</param>
public sealed class ChosenExamples(IReadOnlyList<Example> source, int[] order) : IExamples
{
    public int Count => order.Length;

    /// <summary>Number in the other list of each.</summary>
    public IReadOnlyList<int> Order => order;

    public Example this[int index] => source[order[index]];

    public int LengthOf(int index) => LengthOf(source, order[index]);

    /// <summary>Tokens of one sequence of any list.</summary>
    public static int LengthOf(IReadOnlyList<Example> examples, int index) =>
        examples is IExamples stored ? stored.LengthOf(index) : examples[index].InputIds.Length;

    /// <summary>The longest first, and those of one length in the order in which they stand.</summary>
    public static ChosenExamples LongestFirst(IReadOnlyList<Example> examples)
    {
        var lengths = new int[examples.Count];
        var order = new int[examples.Count];
        for (var i = 0; i < order.Length; i++)
        {
            (lengths[i], order[i]) = (LengthOf(examples, i), i);
        }

        Packing.SortLongestFirst(order, lengths);
        return new(examples, order);
    }

    public IEnumerator<Example> GetEnumerator() => order.Select(index => source[index]).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
