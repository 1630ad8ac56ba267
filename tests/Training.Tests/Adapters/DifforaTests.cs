using System.Text.Json;
using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class DifforaTests : AdapterContract
{
    private static readonly string[] Inner = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"];

    // Two kinds of modules of the same shape, so that the estimate is exact whichever are chosen.
    protected override LayerAdapterConfig Config => new DifforaConfig
    {
        Rank = 4,
        TargetModules = ModuleSelector.OfNames(["q_proj", "o_proj"]),
        HeldOut = 0.34,
        SearchEpochs = 1,
    };

    protected override double LearningRate => 0.5;

    protected override Calibration? CalibrationData => TinyModel.Calibration();

    [Fact]
    public void Gates_choose_what_matters_and_beat_a_random_choice()
    {
        // In the layers 1 and 2 nothing leaves the attention or the gated block, so of the 15 modules inside only the 5 of layer 0 matter.
        using var scope = NewDisposeScope();
        var config = new DifforaConfig
        {
            Rank = 4,
            Rho = 1 / 3.0,
            TargetModules = ModuleSelector.OfNames(Inner),
            SearchEpochs = 10,
            HeldOut = 0.34,
            SearchRate = 1e-3,
        };
        using var model = Partial();
        using (var adapter = config.Attach(model, seed: 1, TinyModel.Calibration(oneRow: true)))
        {
            Assert.Equal(Inner.Select(name => $"model.layers.0.{(name[1] == '_' ? "self_attn" : "mlp")}.{name}"), adapter.Updates.Select(update => update.Module));
            Step(model, adapter, 0.1, steps: 20);
            var loss = Loss(model);
            var random = new Random(7);
            var all = LayerPlan.LinearsOf(model.Config).Where(layer => config.TargetModules.Selects(layer.Name)).Select(layer => layer.Name).ToArray();
            for (var draw = 0; draw < 3; draw++)
            {
                using var other = Partial();
                random.Shuffle(all);
                using var lora = new LoraConfig { Rank = 4, TargetModules = ModuleSelector.OfNames([.. all.Take(5)]) }.Attach(other, seed: 1);
                Step(other, lora, 0.1, steps: 20);
                Assert.InRange(loss, 0, Loss(other) - 0.5);   // 2.3 beside 3.4 to 4.8
            }
        }
    }

    [Fact]
    public void The_gram_score_finds_them_too()
    {
        using var scope = NewDisposeScope();
        using var model = Partial();
        using var adapter = new DifforaConfig
        {
            Rank = 4,
            Rho = 1 / 3.0,
            TargetModules = ModuleSelector.OfNames(Inner),
            SearchEpochs = 1,
            HeldOut = 0.34,
            Score = ModuleScore.Gram,
        }.Attach(model, seed: 1, CalibrationData);

        Assert.All(adapter.Updates, update => Assert.StartsWith("model.layers.0.", update.Module, StringComparison.Ordinal));
        Assert.Equal(5, adapter.Updates.Count);
    }

    [Fact]
    public void The_score_is_the_smallest_eigenvalue_of_the_gram_matrix()
    {
        // J = (1 0; 1 1) has J·Jᵀ = (1 1; 1 2), with the eigenvalues (3 ± √5)/2.
        using var scope = NewDisposeScope();
        Assert.Equal((3 - Math.Sqrt(5)) / 2, ModuleSearch.SmallestEigenvalue(tensor(new float[] { 1, 0, 1, 1 }).reshape(2, 2)), 1e-12);
        Assert.Equal([0, 2], DifforaConfig.Highest([2, 1, 2, 0], 2).Order());
        Assert.Equal([4, 9], Enumerable.Range(0, 10).Where(row => ModuleSearch.IsHeldOut(row, 0.2)));
    }

    [Fact]
    public void It_is_saved_as_a_lora_on_the_chosen_modules_with_the_scores_beside_it()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        var chosen = adapter.Updates.Select(update => update.Module).ToList();
        adapter.Save(folder, Card);

        var fields = Filled.Fields(folder);
        Assert.Equal("LORA", fields["peft_type"].GetString());
        Assert.Equal(chosen, fields["target_modules"].EnumerateArray().Select(name => name.GetString()));
        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "dam.json")));
        var modules = document.RootElement.EnumerateArray().ToList();
        Assert.Equal(6, modules.Count);   // of which half
        Assert.Equal(chosen, modules.Where(module => module.GetProperty("chosen").GetBoolean()).Select(module => module.GetProperty("module").GetString()));
        Assert.All(modules, module =>
        {
            // One row of three is held out, and Adam's first step has the size of its rate: g = ±0.01, whatever the gradient.
            var gate = module.GetProperty("gate").GetDouble();
            Assert.Equal(0.01, Math.Abs(Math.Log(gate / (1 - gate))), 1e-4);
            Assert.True(module.GetProperty("gram").GetDouble() > 0);
        });

        using var other = TinyModel.Load();
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 2);
        var copy = TinyModel.NewFolder();
        loaded.Save(copy, Card);
        Assert.Equal(File.ReadAllText(Path.Combine(folder, "dam.json")), File.ReadAllText(Path.Combine(copy, "dam.json")));
    }

    [Fact]
    public void The_search_leaves_no_tensor_and_no_layer_behind()
    {
        using var model = TinyModel.Load();
        Config.Attach(model, seed: 1, CalibrationData).Dispose();
        var data = TinyModel.Calibration();
        var count = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        Config.Attach(model, seed: 1, data).Dispose();

        Assert.Equal(count, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        Assert.All(model.Linears, slot => Assert.Same(slot.Base, slot.Module));
    }

    [Fact]
    public void Too_few_rows_for_the_gates_are_refused()
    {
        using var model = TinyModel.Load();

        var error = Assert.Throws<TrainingException>(() => ((DifforaConfig)Config with { HeldOut = 0.1 }).Attach(model, seed: 1, CalibrationData));

        Assert.Equal("adapter.held_out", error.Param);
        Assert.All(model.Linears, slot => Assert.Same(slot.Base, slot.Module));
    }

    private static float Loss(CausalLm model)
    {
        var (ids, labels) = TinyModel.Batch();
        return TinyModel.Loss(model, ids, labels).item<float>();
    }

    private static CausalLm Partial()
    {
        using var off = no_grad();
        var model = TinyModel.Load();
        foreach (var (name, weight) in model.NamedWeights())
        {
            if (!name.StartsWith("model.layers.0.", StringComparison.Ordinal)
                && (name.EndsWith("o_proj.weight", StringComparison.Ordinal) || name.EndsWith("down_proj.weight", StringComparison.Ordinal)))
            {
                weight.zero_();
            }
        }

        return model;
    }
}
