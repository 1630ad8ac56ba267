using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LoHaTests : AdapterContract
{
    private static readonly LoHaConfig Small = new() { Rank = 4, Alpha = 8 };

    protected override LayerAdapterConfig Config => Small;

    protected override double LearningRate => 10;

    [Fact]
    public void The_change_is_the_elementwise_product_of_two_products_of_rank_r_squared()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Filled.ByFormula(adapter, 1);
        var update = adapter.Updates.Single(update => update.Module == "model.layers.0.mlp.up_proj");   // 96 x 64
        Tensor Own(string name) => Filled.Of(adapter, update.Module + name).to_type(ScalarType.Float64);

        var expected = Own(".hada_w1_a").mm(Own(".hada_w1_b")) * Own(".hada_w2_a").mm(Own(".hada_w2_b")) * 2;

        Assert.InRange(Numbers.RelativeError(update.Delta, expected), 0, 1e-5);
        Assert.Equal(16, update.Factors!.Right.shape[0]);
    }

    [Fact]
    public void Random_factors_of_rank_r_have_a_change_of_rank_r_squared()
    {
        // With 2·r·(in + out) numbers LoRA has rank 2r = 8.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Filled.Of(adapter, "layers.0.self_attn.q_proj.hada_w2_b").copy_(LowRankConfig.Kaiming([4, 64], new Generator(3, CPU)));

        var values = linalg.svdvals(adapter.Updates[0].Delta.to_type(ScalarType.Float64));

        Assert.InRange((values[15] / values[0]).item<double>(), 1e-3, 1);
        Assert.InRange((values[16] / values[0]).item<double>(), 0, 1e-6);
        Assert.Equal(2 * 4 * 128, Config.TensorsOf(new("layer", 64, 64)).Sum(tensor => tensor.Shape[0] * tensor.Shape[1]));
    }

    [Fact]
    public void Its_folder_has_the_keys_and_fields_of_peft()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();

        adapter.Save(folder, Card);

        Assert.Equal(
            ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"],
            adapter.Trainable.Take(4).Select(tensor => tensor.Name["base_model.model.model.layers.0.self_attn.q_proj.".Length..]));

        // The fields of LoHaConfig in PEFT 0.20.0, tuners/loha/config.py, and those of its base classes.
        Assert.Equal(
            ["alpha", "alpha_pattern", "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "init_weights", "layers_pattern",
             "layers_to_transform", "module_dropout", "modules_to_save", "peft_type", "peft_version", "r", "rank_dropout", "rank_pattern", "revision",
             "target_modules", "task_type", "use_effective_conv2d"],
            Filled.Fields(folder).Keys.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_folder_that_means_another_product_is_refused()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var folder = TinyModel.NewFolder();
        using (var adapter = Config.Attach(model, seed: 1))
        {
            adapter.Save(folder, Card);
        }

        Filled.SetField(folder, "rank_dropout", "0.2");   // matters in training alone
        (Config with { From = folder }).Attach(model, seed: 1).Dispose();

        Filled.SetField(folder, "init_weights", "\"abba\"");
        Assert.Contains(
            "init_weights", Assert.Throws<TrainingException>(() => (Config with { From = folder }).Attach(model, seed: 1)).Message, StringComparison.Ordinal);
    }
}

/// <summary>A rank whose square is no saving: the change is made in full.</summary>
[Collection(nameof(RandomNumbers))]
public class WideLoHaTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LoHaConfig { Rank = 10, Alpha = 20 };

    protected override double LearningRate => 10;
}
