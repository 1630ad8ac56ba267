using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Runs;

/// <summary>They run alone, because resident memory is that of the whole process.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class GrowthTests
{
    [Fact]
    public void Nothing_grows_over_two_thousand_steps()
    {
        set_num_threads(1);
        using var model = TinyLlama.Create(("hidden_size", 32), ("num_hidden_layers", 1));
        using var adapter = new LoraConfig { Rank = 2, Dropout = 0.1 }.Attach(model, 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new AdamWConfig().Create(parameters);
        var examples = Enumerable.Range(0, 8).Select(row =>
        {
            var ids = Enumerable.Range(0, 32).Select(t => (row * 5 + t * 7) % 32).ToArray();
            return new Example(ids, ids, row + 1);
        }).ToArray();
        var batch = new BatchPlan(examples, batchSize: 8, padId: 0, packTo: null, shuffleSeed: null);
        var batches = batch.ForEpoch(0).Select(batch.Collate).ToArray();

        Steps(1000);
        var (tensors, bytes) = (DisposeScopeManager.Statistics.ThreadTotalLiveCount, Resident());
        Steps(2000);

        // One tensor of [B, T, D] that stayed behind in each step would make 64 MB, and a scalar 2000 tensors.
        Assert.Equal(tensors, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        Assert.True(Resident() - bytes < 24 << 20, $"{(Resident() - bytes) >> 10} KiB");

        void Steps(int count)
        {
            for (var step = 0; step < count; step++)
            {
                model.Checkpointing = step % 2 == 0 ? ActivationCheckpointing.Off : ActivationCheckpointing.Full;
                TrainingStep.Backward(model, adapter, new SftConfig(), parameters, batches, CPU);
                optimizer.Step(1e-4);
            }
        }
    }

    /// <summary>Resident memory once managed objects that nobody needs are gone: they lie about until there are enough of them.</summary>
    private static long Resident()
    {
        GC.GetTotalMemory(forceFullCollection: true);
        return Environment.WorkingSet;
    }
}
