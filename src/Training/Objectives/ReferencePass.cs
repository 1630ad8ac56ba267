using TrainingService.Training.Data;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Runs the reference model over rows before training, so that its log-probabilities travel with them.</summary>
internal static class ReferencePass
{
    /// <param name="model">The base model, with nothing attached.</param>
    /// <param name="progress">Gets the number of rows that are done.</param>
    /// <returns>The examples with <see cref="Example.References"/>: the same numbers whenever the same rows meet the same model, on a CPU.</returns>
    public static IExamples Over(
        ReferencedConfig objective, CausalLm model, IExamples examples, int batchSize, int padId, Device device, Action<int> progress,
        CancellationToken ct)
    {
        using var noGrad = no_grad();
        var each = objective.AnswersPerExample;
        var found = new float[examples.Count * each];
        var ordered = ChosenExamples.LongestFirst(examples);   // neighbours of equal length waste no padding
        var plan = BatchPlan.ForEvaluation(ordered, batchSize, padId);
        var done = 0;
        foreach (var planned in examples.Count == 0 ? [] : plan.ForEpoch(0))
        {
            ct.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            var answers = objective.Answers(model, plan.Collate(planned), device).cpu().data<float>().ToArray();
            foreach (var (row, sequence) in planned.Sequences.Index())
            {
                answers.AsSpan(row * each, each).CopyTo(found.AsSpan(ordered.Order[sequence[0]] * each));
            }

            done += planned.Sequences.Count;
            progress(done);
        }

        return new ExtendedExamples(examples, (index, example) => example with { References = found[(index * each)..((index + 1) * each)] });
    }
}
