using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class IncreLoraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new IncreLoraConfig { TargetRank = 2, MaxRank = 4, Alpha = 16 };

    protected override double StartError => 1e-5;   // the reserve is as good as nothing

    protected override double LearningRate => 20;   // E starts at zero between small A and B: the first gradients are small

    private static IncreLoraConfig Growing => new() { TargetRank = 3, MaxRank = 8, Increment = 2, TopLayers = 5, WarmupSteps = 1, Interval = 1 };

    [Fact]
    public void Ranks_go_to_the_highest_scores_and_the_last_are_fewer()
    {
        // Of 5 ranks, in twos, by scores 3 > 2 > 1: two, two, one; a layer at its maximum is passed over.
        Assert.Equal([1, 2, 2], IncreLoraAdapter.Share([1, 1, 1], [1, 2, 3], left: 5, wanted: 9, increment: 2, maximum: 8));
        Assert.Equal([2, 3, 0], IncreLoraAdapter.Share([1, 1, 8], [1, 2, 3], left: 9, wanted: 5, increment: 2, maximum: 8));
        Assert.Equal([2, 0, 0], IncreLoraAdapter.Share([1, 1, 1], [4, 4, 4], left: 2, wanted: 2, increment: 2, maximum: 8));
    }

    [Fact]
    public void The_gradient_that_is_watched_is_that_of_the_change()
    {
        // With y = ΔW·x and loss Σ y, the gradient of ΔW is x in every row, once for each pass.
        using var scope = NewDisposeScope();
        var sink = new GradientSink { Sum = zeros(2, 3) };
        var delta = zeros(2, 3).requires_grad_();
        var x = tensor(new float[] { 1, 2, 3 });

        for (var pass = 0; pass < 2; pass++)
        {
            BackwardPass.OfThisThread.Run(GradientWatch.apply(delta * 1, sink).matmul(x).sum());
        }

        Assert.True(sink.Sum.equal(tensor(new float[] { 2, 4, 6, 2, 4, 6 }).reshape(2, 3)).all().item<bool>());
        Assert.True(delta.grad!.equal(sink.Sum).all().item<bool>());
    }

    [Fact]
    public void It_ends_at_its_budget_and_spends_it_unevenly()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = (IncreLoraAdapter)Growing.Attach(model, seed: 1);
        adapter.Begin(12);
        using var optimizer = optim.AdamW(adapter.Trainable.Select(tensor => tensor.Parameter), 1e-2);
        List<int> totals = [];
        for (var step = 1; step <= 12; step++)
        {
            Train(model, adapter, optimizer, step);
            totals.Add(adapter.Ranks.Values.Sum());
        }

        // 21 layers start with 1 each and end with 63: 5 layers get 2 at the steps 2 to 5, which is 61, and the last two at step 6.
        Assert.Equal([21, 31, 41, 51, 61, 63, 63, 63, 63, 63, 63, 63], totals);
        Assert.True(adapter.Ranks.Values.Distinct().Count() > 1);
        Assert.All(adapter.Updates, update => Assert.Equal(adapter.Ranks[update.Module], update.Factors!.Right.shape[0]));   // no reserve is left
    }

    [Fact]
    public void More_layers_grow_at_a_time_where_the_run_is_short()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = (IncreLoraAdapter)(Growing with { TopLayers = 1, WarmupSteps = 0 }).Attach(model, seed: 1);
        adapter.Begin(4);
        using var optimizer = optim.AdamW(adapter.Trainable.Select(tensor => tensor.Parameter), 1e-2);
        for (var step = 1; step <= 4; step++)
        {
            Train(model, adapter, optimizer, step);
        }

        Assert.Equal(63, adapter.Ranks.Values.Sum());
    }

    [Fact]
    public void Layers_that_are_computed_again_give_the_same_digits()
    {
        using var scope = NewDisposeScope();
        List<List<Tensor>> ends = [];
        foreach (var checkpointing in (ActivationCheckpointing[])[ActivationCheckpointing.Off, ActivationCheckpointing.Full])
        {
            using var model = TinyModel.Load();
            model.Checkpointing = checkpointing;
            using var adapter = Growing.Attach(model, seed: 1);
            adapter.Begin(12);
            using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 1);
            for (var step = 1; step <= 4; step++)
            {
                Train(model, adapter, optimizer, step);
            }

            ends.Add([.. adapter.Trainable.Select(tensor => tensor.Parameter.detach().clone())]);
        }

        Assert.All(ends[0].Zip(ends[1]), pair => Assert.True(pair.First.equal(pair.Second).all().item<bool>()));
    }

    [Theory]
    [InlineData(3)]
    [InlineData(9)]
    public void A_resume_is_exact_in_every_phase(int stop)
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        using var model = TinyModel.Load();
        using var adapter = (IncreLoraAdapter)Growing.Attach(model, seed: 1);
        adapter.Begin(12);
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 1);
        AdapterState? state = null;
        for (var step = 1; step <= 12; step++)
        {
            Train(model, adapter, optimizer, step);
            if (step == stop)
            {
                adapter.Save(folder, Card);
                state = adapter.State;
            }
        }

        using var other = TinyModel.Load();
        using var resumed = (IncreLoraAdapter)Growing.Attach(other, seed: 1, restoring: folder);
        resumed.Begin(12);
        resumed.Load(folder);
        resumed.Restore(state!);
        using var again = optim.SGD(resumed.Trainable.Select(tensor => tensor.Parameter), 1);
        for (var step = stop + 1; step <= 12; step++)
        {
            Train(other, resumed, again, step);
        }

        Assert.Equal(adapter.Ranks, resumed.Ranks);
        Assert.Equal(adapter.State.Record!.Value.GetRawText(), resumed.State.Record!.Value.GetRawText());
        Assert.All(adapter.Trainable.Zip(resumed.Trainable), pair =>
            Assert.True(pair.First.Parameter.equal(pair.Second.Parameter).all().item<bool>(), pair.First.Name));
    }

    [Fact]
    public void Growth_leaves_no_tensor_behind()
    {
        using var model = TinyModel.Load();
        using var adapter = Growing.Attach(model, seed: 1);
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 1);
        Train(model, adapter, optimizer, 1);
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        adapter.Begin(12);
        for (var step = 2; step <= 12; step++)
        {
            Train(model, adapter, optimizer, step);
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void A_run_that_is_too_short_for_its_warm_up_is_refused()
    {
        using var model = TinyModel.Load();
        using var adapter = (Growing with { WarmupSteps = 8 }).Attach(model, seed: 1);

        Assert.Equal("adapter.warmup_steps", Assert.Throws<TrainingException>(() => adapter.Begin(12)).Param);
    }

    [Fact]
    public void A_largest_rank_below_the_average_is_refused() => Assert.Contains(
        SpecJson.Parse("""{"model": "m", "data": {"train": "t"}, "adapter": {"type": "increlora", "max_rank": 4}}""").Errors,
        error => error.Path == "adapter.max_rank");

    private static void Train(CausalLm model, Adapter adapter, optim.Optimizer optimizer, int step)
    {
        using var scope = NewDisposeScope();
        var (ids, labels) = TinyModel.Batch();
        optimizer.zero_grad();
        BackwardPass.OfThisThread.Run(TinyModel.Loss(model, ids, labels) + adapter.Regulariser()!);
        optimizer.step();
        adapter.AfterStep(step);
    }
}
