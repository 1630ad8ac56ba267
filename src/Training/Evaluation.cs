using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training;

/// <summary>What a model does on rows that it does not train on.</summary>
/// <param name="Loss">Mean over all items of the set (trainable tokens, or pairs of answers), nats; not a mean of batch means.</param>
/// <param name="Accuracy">Share of these items that were right.</param>
/// <param name="Items">Items of the set.</param>
/// <param name="Figures">Means over the items of what <see cref="ObjectiveConfig.Figures"/> names.</param>
public sealed record Evaluation(double Loss, double Accuracy, long Items, IReadOnlyList<double> Figures)
{
    /// <summary>Runs the model over every example once, without gradients. The caller switches dropout off.</summary>
    public static Evaluation Run(
        CausalLm model, Adapter adapter, ObjectiveConfig objective, IReadOnlyList<Example> examples, int batchSize, int padId, Device device, CancellationToken ct)
    {
        using var noGrad = no_grad();

        // Neighbours of equal length waste no padding; the result is a sum, so the order does not matter to it.
        var plan = BatchPlan.ForEvaluation(ChosenExamples.LongestFirst(examples), batchSize, padId);
        var (loss, correct, items) = (0.0, 0L, 0L);
        var sums = new double[objective.Figures.Count];
        foreach (var planned in plan.ForEpoch(0))
        {
            ct.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            var batch = plan.Collate(planned);
            using var seen = adapter.BeginBatch(batch);
            var measured = objective.Measure(model, adapter, batch, device);
            loss += measured.Sum.item<float>();
            correct += measured.Correct.item<long>();
            items += objective.Weight(batch);
            foreach (var (index, sum) in (measured.Figures?.cpu().data<float>().ToArray() ?? []).Index())
            {
                sums[index] += sum;
            }
        }

        return new(loss / items, correct / (double)items, items, [.. sums.Select(sum => sum / items)]);
    }

    /// <summary>The figures by their public names, such as <c>eval/loss</c>.</summary>
    public IEnumerable<KeyValuePair<string, double>> Named(ObjectiveConfig objective) =>
        [new("eval/loss", Loss), .. objective.Named("eval/", Accuracy, Figures)];
}
