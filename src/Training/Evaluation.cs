using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training;

/// <summary>What a model does on rows that it does not train on.</summary>
/// <param name="Loss">Mean over all trainable tokens of the set, nats; not a mean of batch means.</param>
/// <param name="TokenAccuracy">Share of these tokens that were the most likely one.</param>
/// <param name="Tokens">Trainable tokens of the set.</param>
public sealed record Evaluation(double Loss, double TokenAccuracy, long Tokens)
{
    /// <summary>Runs the model over every example once, without gradients. The caller switches dropout off.</summary>
    public static Evaluation Run(
        CausalLm model, Adapter adapter, ObjectiveConfig objective, IReadOnlyList<Example> examples, int batchSize, int padId, Device device, CancellationToken ct)
    {
        using var noGrad = no_grad();

        // Neighbours of equal length waste no padding; the result is a sum, so the order does not matter to it.
        var plan = BatchPlan.ForEvaluation(ChosenExamples.LongestFirst(examples), batchSize, padId);
        var (loss, correct, tokens) = (0.0, 0L, 0L);
        foreach (var planned in plan.ForEpoch(0))
        {
            ct.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            var batch = plan.Collate(planned);
            using var seen = adapter.BeginBatch(batch);
            var measured = objective.Measure(model, batch, device);
            loss += measured.Sum.item<float>();
            correct += measured.Correct.item<long>();
            tokens += objective.Weight(batch);
        }

        return new(loss / tokens, correct / (double)tokens, tokens);
    }
}
