using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LoKrTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LoKrConfig { Rank = 2, Alpha = 8 };

    protected override double LearningRate => 0.3;

    [Theory]
    [InlineData(256, -1, 16, 16)]   // the examples in the reference's own documentation
    [InlineData(128, -1, 8, 16)]
    [InlineData(127, -1, 1, 127)]
    [InlineData(128, 4, 4, 32)]
    [InlineData(128, 5, 4, 32)]     // 5 divides nothing, and 8 is above it
    [InlineData(12, 6, 6, 2)]       // a divisor is taken as it is
    public void Sides_are_split_as_the_reference_splits_them(int side, int factor, int small, int large) =>
        Assert.Equal((small, large), LoKrConfig.Split(side, factor));

    [Fact]
    public void The_change_is_the_kronecker_product_of_the_factors()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Filled.ByFormula(adapter, 1);
        var update = adapter.Updates.Single(update => update.Module == "model.layers.0.mlp.down_proj");   // 64 = 8·8, 96 = 8·12
        Tensor Own(string name) => Filled.Of(adapter, update.Module + name).to_type(ScalarType.Float64);
        Assert.Equal([8, 8], Own(".lokr_w1").shape);
        Assert.Equal([8, 2], Own(".lokr_w2_a").shape);
        Assert.Equal([2, 12], Own(".lokr_w2_b").shape);

        Assert.InRange(Numbers.RelativeError(update.Delta, kron(Own(".lokr_w1"), Own(".lokr_w2_a").mm(Own(".lokr_w2_b"))) * 4), 0, 1e-5);
    }

    [Fact]
    public void Two_whole_factors_give_full_rank_for_a_sixteenth_of_the_numbers()
    {
        // The singular values of a Kronecker product are the products of those of its factors: 8 · 8 = 64 of them.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new LoKrConfig { Rank = 8 }.Attach(model, seed: 1);
        var update = adapter.Updates[0];
        var (first, second) = (Filled.Of(adapter, update.Module + ".lokr_w1"), Filled.Of(adapter, update.Module + ".lokr_w2"));
        first.copy_(eye(8) + arange(64).reshape(8, 8).sin() * 0.2);
        var expected = outer(linalg.svdvals(first), linalg.svdvals(second)).flatten().sort(0, descending: true).Values;

        Assert.InRange(Numbers.RelativeError(linalg.svdvals(update.Delta), expected), 0, 1e-5);
        Assert.InRange((expected[-1] / expected[0]).item<float>(), 1e-4, 1);
        Assert.Equal(128, first.numel() + second.numel());
    }

    [Fact]
    public void Its_folder_has_the_fields_of_peft()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();

        adapter.Save(folder, Card);

        // The fields of LoKrConfig in PEFT 0.20.0, tuners/lokr/config.py, and those of its base classes.
        Assert.Equal(
            ["alpha", "alpha_pattern", "auto_mapping", "base_model_name_or_path", "decompose_both", "decompose_factor", "exclude_modules",
             "inference_mode", "init_weights", "layers_pattern", "layers_to_transform", "module_dropout", "modules_to_save", "peft_type", "peft_version",
             "r", "rank_dropout", "rank_dropout_scale", "rank_pattern", "revision", "target_modules", "task_type", "use_effective_conv2d"],
            Filled.Fields(folder).Keys.Order(StringComparer.Ordinal));
    }
}

[Collection(nameof(RandomNumbers))]
public class DecomposedLoKrTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LoKrConfig { Rank = 2, Alpha = 8, DecomposeBoth = true, DecomposeFactor = 16 };

    protected override double LearningRate => 0.3;

    [Fact]
    public void Both_factors_have_the_rank() => Assert.Equal(
        ["lokr_w1_a 16 2", "lokr_w1_b 2 16", "lokr_w2 4 4"],
        Config.TensorsOf(new("layer", 64, 64)).Select(tensor => $"{tensor.Name} {string.Join(' ', tensor.Shape)}"));
}
