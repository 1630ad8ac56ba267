using System.Collections;

namespace TrainingService.Training.Data;

/// <summary>Sequences of another list, each with what is known of it beside its row.</summary>
/// <param name="extend">Gives an example with it, by its number; called whenever the example is read, on any thread.</param>
public sealed class ExtendedExamples(IExamples source, Func<int, Example, Example> extend) : IExamples
{
    public int Count => source.Count;

    public Example this[int index] => extend(index, source[index]);

    public int LengthOf(int index) => source.LengthOf(index);

    public IEnumerator<Example> GetEnumerator() => Enumerable.Range(0, Count).Select(index => this[index]).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
