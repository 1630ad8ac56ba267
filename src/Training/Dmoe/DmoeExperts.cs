using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Dmoe;

/// <summary>Runs frozen experts, one after the other on one model.</summary>
internal static class DmoeExperts
{
    /// <summary>Last hidden states of every expert on every sequence, the experts side by side.</summary>
    /// <param name="model">Without an adapter; with a score head as the experts have.</param>
    /// <param name="experts">Folders of their adapters.</param>
    /// <returns>[sequences, nD], float32, on the CPU, in the caller's dispose scope.</returns>
    public static Tensor HiddenStates(
        CausalLm model, IReadOnlyList<string> experts, IReadOnlyList<int[]> sequences, int batchSize, Action<int>? progress, CancellationToken ct)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var width = model.Config.HiddenSize;
        var states = zeros([sequences.Count, (long)width * experts.Count], ScalarType.Float32);
        for (var expert = 0; expert < experts.Count; expert++)
        {
            var (column, done) = (expert, expert * sequences.Count);
            OnAdapter(model, experts[expert], sequences, batchSize, (first, batch) =>
            {
                var last = BatchInput.LastOf(BatchInput.HiddenStates(model, batch, model.Device), batch, model.Device);
                states.narrow(0, first, batch.Size).narrow(1, (long)column * width, width).copy_(last.to_type(ScalarType.Float32).cpu());
                progress?.Invoke(done + first + batch.Size);
            }, ct);
        }

        return states.MoveToOuterDisposeScope();
    }

    /// <summary>The likeliest class of every sequence.</summary>
    /// <param name="model">Without an adapter; with a score head of as many outputs as there are classes.</param>
    public static int[] Route(CausalLm model, string router, IReadOnlyList<int[]> sequences, int batchSize, CancellationToken ct)
    {
        using var noGrad = no_grad();
        var classes = new int[sequences.Count];
        OnAdapter(model, router, sequences, batchSize, (first, batch) =>
        {
            foreach (var (row, number) in BatchInput.Scores(model, batch, model.Device).argmax(1).cpu().data<long>().ToArray().Index())
            {
                classes[first + row] = (int)number;
            }
        }, ct);
        return classes;
    }

    /// <param name="take">Gets the number of a batch's first sequence, and the batch; its tensors are gone after the call.</param>
    private static void OnAdapter(
        CausalLm model, string folder, IReadOnlyList<int[]> sequences, int batchSize, Action<int, Batch> take, CancellationToken ct)
    {
        using var adapter = AdapterConfig.Saved(folder).Attach(model, seed: 0);
        adapter.SetTraining(false);
        var plan = BatchPlan.ForEvaluation([.. sequences.Select(ids => new Example(ids, ids, Row: 1))], batchSize, padId: 0);
        var first = 0;
        foreach (var planned in plan.ForEpoch(0))
        {
            ct.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            var batch = plan.Collate(planned);
            take(first, batch);
            first += batch.Size;
        }
    }
}
