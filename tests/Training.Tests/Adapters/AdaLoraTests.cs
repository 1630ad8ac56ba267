using System.Text.Json.Nodes;
using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class AdaLoraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new AdaLoraConfig { InitialRank = 4, TargetRank = 2, Alpha = 64 };

    protected override double LearningRate => 3;   // E starts at zero between small A and B: the first gradients are small

    private static AdaLoraConfig Falling => new() { InitialRank = 4, TargetRank = 2, WarmupSteps = 1, FinalSteps = 2, Interval = 2 };

    [Fact]
    public void Its_numbers_are_those_of_peft() => PeftGolden.Holds("adalora", new AdaLoraConfig());

    [Fact]
    public void Its_folder_is_that_of_peft() => PeftGolden.IsSavedAlike("adalora", new AdaLoraConfig { TotalSteps = 10 });

    [Fact]
    public void A_folder_without_the_pruned_triplets_is_read()
    {
        // PEFT leaves them out and says so in rank_pattern: of the six of each layer here the second and the fifth, in one layer all.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        const string All = "model.layers.1.self_attn.v_proj";
        var kept = tensor(new long[] { 0, 2, 3, 5 });
        var folder = TinyModel.NewFolder();
        JsonObject pattern = [];
        using (var whole = SafeTensorsFile.Open(Path.Combine(PeftGolden.Folder("adalora"), "adapter_model.safetensors")))
        {
            SafeTensorsWriter.Write(
                Path.Combine(folder, "adapter_model.safetensors"),
                [.. whole.Entries.Keys.Select(key =>
                {
                    var axis = key.EndsWith("lora_B", StringComparison.Ordinal) ? 1 : 0;
                    return (key, whole.Read(key).index_select(axis, key.Contains(All, StringComparison.Ordinal) ? kept.narrow(0, 0, 0) : kept));
                })],
                new Dictionary<string, string> { ["format"] = "pt" });
            foreach (var key in whole.Entries.Keys.Where(key => key.EndsWith("lora_E", StringComparison.Ordinal)))
            {
                pattern[key["base_model.model.".Length..]] = JsonNode.Parse(
                    key.Contains(All, StringComparison.Ordinal) ? "[false, false, false, false, false, false]" : "[true, false, true, true, false, true]");
            }
        }

        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(PeftGolden.Folder("adalora"), "adapter_config.json")))!;
        config["rank_pattern"] = pattern;
        File.WriteAllText(Path.Combine(folder, "adapter_config.json"), config.ToJsonString());

        using var model = TinyModel.Load();
        var ids = TinyModel.Batch().Ids;
        Tensor expected;
        using (var adapter = (new AdaLoraConfig { From = PeftGolden.Folder("adalora") }).Attach(model, seed: 0))
        {
            foreach (var singular in adapter.Trainable.Where(tensor => tensor.Name.EndsWith("lora_E", StringComparison.Ordinal)))
            {
                var rows = singular.Name.Contains(All, StringComparison.Ordinal) ? (long[])[0, 1, 2, 3, 4, 5] : [1, 4];
                singular.Parameter.index_fill_(0, tensor(rows), 0);
            }

            expected = TinyModel.Logits(model, ids);
        }

        using var pruned = (AdaLoraAdapter)AdapterConfig.Saved(folder).Attach(model, seed: 0);

        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), expected), 0, 1e-6);
        Assert.Equal([0, 4], pruned.Ranks.Values.Distinct().Order());
    }

    [Theory]
    [InlineData(3, 47)]   // (1 - 1/6)³·30 + 30 = 47.36
    [InlineData(5, 33)]   // (1/2)³·30 + 30 = 33.75
    [InlineData(8, 30)]
    public void The_budget_falls_by_a_cubic_curve(int step, int budget) =>
        Assert.Equal(budget, AdaLoraAdapter.BudgetAt(step, start: 60, target: 30, warmup: 2, last: 8));

    [Fact]
    public void The_first_importance_is_the_product_of_weight_and_gradient()
    {
        // I = |2·3| = 6; Ī = 0.15·6 = 0.9; U = 0.15·|6 - 0.9| = 0.765.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Falling.Attach(model, seed: 1);
        adapter.Begin(10);
        var singular = adapter.Trainable[1].Parameter;
        using (no_grad())
        {
            singular.fill_(-2);
            singular.grad = full_like(singular, 3);
        }

        adapter.AfterStep(1);

        var state = adapter.State.Tensors.ToDictionary(tensor => tensor.Name, tensor => tensor.Tensor);
        Assert.Equal(0.9, state["model.layers.0.self_attn.q_proj.lora_E.importance"][0].item<float>(), 1e-6);
        Assert.Equal(0.765, state["model.layers.0.self_attn.q_proj.lora_E.uncertainty"][0].item<float>(), 1e-6);
    }

    [Fact]
    public void The_triplets_with_the_highest_scores_stay_and_of_equal_ones_the_later()
    {
        // Scores Ī·U: the first triplet of each layer has 2·1 from E. The second has the mean 1·1 of its row of A and the mean 0.5·1 of its
        // column of B, 1.5 in all, but in the sixth layer 1 + 1.5. So of 42 triplets 21 stay: both of the sixth layer, none of the first.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = (AdaLoraAdapter)new AdaLoraConfig { InitialRank = 2, TargetRank = 1 }.Attach(model, seed: 1);
        adapter.Begin(4);
        using (no_grad())
        {
            foreach (var trained in adapter.Trainable)
            {
                trained.Parameter.fill_(1);
            }

            var layers = adapter.Updates.Select(update => update.Module).ToList();
            var values = adapter.State.Tensors.Select(tensor => (tensor.Name, Tensor: ones_like(tensor.Tensor))).ToDictionary(pair => pair.Name, pair => pair.Tensor);
            foreach (var (index, layer) in layers.Index())
            {
                values[layer + ".lora_E.importance"].copy_(tensor(new float[] { 2, 0 }).unsqueeze(1));
                values[layer + ".lora_A.importance"][0] = 0;
                values[layer + ".lora_B.importance"].copy_(tensor(new float[] { 0, index == 5 ? 1.5f : 0.5f }));
            }

            adapter.Restore(new([.. values.Select(pair => (pair.Key, pair.Value))], null));
        }

        adapter.AfterStep(4);

        Assert.Equal([0, 1, 1, 1, 1, 2, .. Enumerable.Repeat(1, 15)], adapter.Ranks.Values);
    }

    [Fact]
    public void It_ends_at_its_budget_and_spends_it_unevenly()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = (AdaLoraAdapter)Falling.Attach(model, seed: 1);
        adapter.Begin(10);
        using var optimizer = optim.AdamW(adapter.Trainable.Select(tensor => tensor.Parameter), 1e-2);
        List<int> totals = [];
        for (var step = 1; step <= 10; step++)
        {
            Train(model, adapter, optimizer, step);
            totals.Add(adapter.Ranks.Values.Sum());
        }

        // 21 layers with 4 ranks each; at step 2, (1 - 1/7)³·42 + 42 = 68.4, at 4, (4/7)³·42 + 42 = 49.8, at 6, 42.98; from step 8 on 2 each.
        Assert.Equal([68, 49, 42, 42, 42, 42], ((int[])[2, 4, 6, 8, 9, 10]).Select(step => totals[step - 1]));
        Assert.True(adapter.Ranks.Values.Distinct().Count() > 1);
    }

    [Theory]
    [InlineData(3)]
    [InlineData(9)]
    public void A_resume_is_exact_in_every_phase(int stop)
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        using var model = TinyModel.Load();
        using var adapter = Falling.Attach(model, seed: 1);
        adapter.Begin(10);
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 1);
        AdapterState? state = null;
        for (var step = 1; step <= 10; step++)
        {
            Train(model, adapter, optimizer, step);
            if (step == stop)
            {
                adapter.Save(folder, Card);
                state = new([.. adapter.State.Tensors.Select(tensor => (tensor.Name, tensor.Tensor.clone()))], adapter.State.Record);
            }
        }

        using var other = TinyModel.Load();
        using var resumed = Falling.Attach(other, seed: 1, restoring: folder);
        resumed.Begin(10);
        resumed.Load(folder);
        resumed.Restore(state!);
        using var again = optim.SGD(resumed.Trainable.Select(tensor => tensor.Parameter), 1);
        for (var step = stop + 1; step <= 10; step++)
        {
            Train(other, resumed, again, step);
        }

        Assert.All(adapter.Trainable.Zip(resumed.Trainable), pair =>
            Assert.True(pair.First.Parameter.equal(pair.Second.Parameter).all().item<bool>(), pair.First.Name));
        Assert.All(adapter.State.Tensors.Zip(resumed.State.Tensors), pair =>
            Assert.True(pair.First.Tensor.equal(pair.Second.Tensor).all().item<bool>(), pair.First.Name));
    }

    [Fact]
    public void Allocations_leave_no_tensor_behind()
    {
        using var model = TinyModel.Load();
        using var adapter = Falling.Attach(model, seed: 1);
        adapter.Begin(10);
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 1);
        Train(model, adapter, optimizer, 1);
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        for (var step = 2; step <= 10; step++)
        {
            Train(model, adapter, optimizer, step);
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void A_run_that_is_too_short_for_its_phases_is_refused()
    {
        using var model = TinyModel.Load();
        using var adapter = Falling.Attach(model, seed: 1);

        Assert.Equal("adapter.warmup_steps", Assert.Throws<TrainingException>(() => adapter.Begin(3)).Param);
    }

    [Fact]
    public void A_target_above_the_start_is_refused() => Assert.Contains(
        SpecJson.Parse("""{"model": "m", "data": {"train": "t"}, "adapter": {"type": "adalora", "target_rank": 16}}""").Errors,
        error => error.Path == "adapter.target_rank");

    private static void Train(CausalLm model, Adapter adapter, optim.Optimizer optimizer, int step)
    {
        using var scope = NewDisposeScope();
        var (ids, labels) = TinyModel.Batch();
        optimizer.zero_grad();
        (TinyModel.Loss(model, ids, labels) + adapter.Regulariser()!).backward();
        optimizer.step();
        adapter.AfterStep(step);
    }
}
