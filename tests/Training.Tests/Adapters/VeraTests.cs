using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class VeraTests : AdapterContract
{
    private const string Query = "model.layers.0.self_attn.q_proj";
    private const string Key = "model.layers.0.self_attn.k_proj";

    protected override LayerAdapterConfig Config => new VeraConfig { Rank = 24 };

    protected override double LearningRate => 1;

    [Theory]
    [InlineData(24, 768, 1024, 43_008)]    // RoBERTa base, query and value: 0.043 M in table 2 of the paper
    [InlineData(48, 1024, 256, 61_440)]    // RoBERTa large: 0.061 M
    public void It_trains_as_many_numbers_as_the_paper_counts(int layers, int width, int rank, int expected)
    {
        var tensors = new VeraConfig { Rank = rank }.TensorsOf(new("layer", width, width));

        Assert.Equal(expected, layers * tensors.Sum(tensor => tensor.Shape.Aggregate(1L, (product, side) => product * side)));
    }

    [Fact]
    public void An_entry_of_the_change_is_the_sum_over_the_ranks_of_b_B_d_A()
    {
        // ΔW[o, i] = b[o]·Σ_r B[o, r]·d[r]·A[r, i]; layers of other sizes read the same matrices from their corner.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Filled.ByFormula(adapter, 0.5);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        using var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors"));
        var (a, b) = (file.Read("base_model.vera_A"), file.Read("base_model.vera_B"));
        Assert.Equal([24, 96], a.shape);
        Assert.Equal([96, 24], b.shape);

        foreach (var (module, row, column) in ((string, int, int)[])[(Query, 63, 0), (Key, 31, 63), ("model.layers.2.mlp.down_proj", 5, 95)])
        {
            var (outputs, ranks) = (Filled.Of(adapter, module + ".vera_lambda_b"), Filled.Of(adapter, module + ".vera_lambda_d"));
            var sum = Enumerable.Range(0, 24).Sum(rank =>
                (double)b[row, rank].item<float>() * ranks[rank].item<float>() * a[rank, column].item<float>());
            var delta = adapter.Updates.Single(update => update.Module == module).Delta;
            Assert.Equal(outputs[row].item<float>() * sum, delta[row, column].item<float>(), 1e-6);
        }
    }

    [Fact]
    public void The_shared_matrices_are_uniform_up_to_the_root_of_six_over_their_columns()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        using var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors"));

        foreach (var name in (string[])["base_model.vera_A", "base_model.vera_B"])
        {
            var values = file.Read(name);
            var bound = Math.Sqrt(6.0 / values.shape[1]);
            Assert.InRange(values.abs().max().item<float>(), 0.98 * bound, bound);
            Assert.InRange(values.mean().item<float>(), -0.05 * bound, 0.05 * bound);
        }
    }

    [Fact]
    public void Its_folder_has_the_keys_and_fields_of_peft()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = (Config with { TargetModules = ModuleSelector.OfNames(["q_proj"]) }).Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();

        adapter.Save(folder, Card);

        using var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors"));
        Assert.Equal(
            ["base_model.model.model.layers.0.self_attn.q_proj.vera_lambda_b", "base_model.model.model.layers.0.self_attn.q_proj.vera_lambda_d",
             "base_model.model.model.layers.1.self_attn.q_proj.vera_lambda_b", "base_model.model.model.layers.1.self_attn.q_proj.vera_lambda_d",
             "base_model.model.model.layers.2.self_attn.q_proj.vera_lambda_b", "base_model.model.model.layers.2.self_attn.q_proj.vera_lambda_d",
             "base_model.vera_A", "base_model.vera_B"],
            file.Entries.Keys.Order(StringComparer.Ordinal));

        // The fields of VeraConfig in PEFT 0.20.0, tuners/vera/config.py, and those of its base classes.
        Assert.Equal(
            ["auto_mapping", "base_model_name_or_path", "bias", "d_initial", "fan_in_fan_out", "inference_mode", "init_weights", "layers_pattern",
             "layers_to_transform", "modules_to_save", "peft_type", "peft_version", "projection_prng_key", "r", "revision", "save_projection",
             "target_modules", "task_type", "vera_dropout"],
            Filled.Fields(folder).Keys.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_folder_without_the_random_matrices_is_refused_with_the_way_out()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var folder = TinyModel.NewFolder();
        using (var adapter = Config.Attach(model, seed: 1))
        {
            adapter.Save(folder, Card);
        }

        Filled.SetField(folder, "save_projection", "false");

        var error = Assert.Throws<TrainingException>(() => (Config with { From = folder }).Attach(model, seed: 1));
        Assert.Contains("save_projection = True", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Layers_that_are_left_out_stay_out_though_peft_has_no_word_for_it()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var folder = TinyModel.NewFolder();
        using (var adapter = (Config with { ExcludeModules = ModuleSelector.OfNames(["layers.1.mlp.up_proj"]) }).Attach(model, seed: 1))
        {
            adapter.Save(folder, Card);
        }

        Assert.DoesNotContain("exclude_modules", Filled.Fields(folder).Keys);
        using var loaded = AdapterConfig.Saved(folder).Attach(model, seed: 1);
        Assert.Equal(20, loaded.Updates.Count);
        Assert.DoesNotContain(loaded.Updates, update => update.Module == "model.layers.1.mlp.up_proj");
    }
}

/// <summary>A rank above the layers' own: then ΔW is no product of thin matrices.</summary>
[Collection(nameof(RandomNumbers))]
public class HighRankVeraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new VeraConfig { Rank = 128 };

    protected override double LearningRate => 1;
}
