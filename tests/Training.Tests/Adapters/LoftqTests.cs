using TrainingService.Training.Adapters;
using TrainingService.Training.Exports;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LoftqTests : AdapterContract
{
    private static readonly Nf4Config Nf4 = new() { DoubleQuantization = false };

    protected override LayerAdapterConfig Config => new LoftqConfig { Rank = 4, Alpha = 8 };

    protected override double StartError => 0.6;   // the start is nearer to W than to Q

    protected override double LearningRate => 0.02;

    protected override CausalLm LoadModel(ScalarType dtype = ScalarType.Float32) => TinyModel.Load(dtype: dtype, quantization: Nf4);

    [Fact]
    public void One_pass_leaves_the_smaller_singular_values_of_the_error()
    {
        // Eckart and Young: s·B·A is the nearest matrix of rank 4 to W − NF4(W), so ‖W − NF4(W) − s·B·A‖² is the sum of the other squared values.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = LoadModel();
        using var plain = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        foreach (var (update, slot) in adapter.Updates.Zip(plain.Linears))
        {
            var lost = AdaptedLinear.WeightOf(slot.Base) - update.Weight;
            var values = linalg.svdvals(lost.to_type(ScalarType.Float64));
            var expected = values.narrow(0, 4, values.shape[0] - 4).norm().item<double>();

            var error = (lost - update.Delta).norm().item<float>();

            Assert.Equal(expected, error, 1e-4 * expected);
            Assert.InRange(error, 0, 0.97 * lost.norm().item<float>());
        }
    }

    [Fact]
    public void The_passes_are_those_of_the_paper()
    {
        // Algorithm 1 by hand: Q₁ = q(W), (L₁, R₁) of W − Q₁; Q₂ = q(W − L₁R₁), (L₂, R₂) of W − Q₂.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var full = TinyModel.Load();
        var weight = AdaptedLinear.WeightOf(full.Linears[0].Base);
        var first = Product(LoftqConfig.Factors(weight - Codes(weight), 4));
        var lost = weight - Codes(weight - first);
        var second = Product(LoftqConfig.Factors(lost, 4));

        var (left, right, removed, errors) = QuantizedSplit.CodesFirst(weight, Codes, matrix => LoftqConfig.Factors(matrix, 4), passes: 2);

        Assert.Equal((weight - Codes(weight) - first).norm().item<float>(), errors[0], 1e-5);
        Assert.Equal((lost - second).norm().item<float>(), errors[1], 1e-5);
        Assert.True(errors[1] < errors[0]);
        Assert.InRange(Numbers.RelativeError(left.mm(right), second), 0, 1e-5);
        Assert.InRange(Numbers.RelativeError(Product(removed!.Value), first), 0, 1e-5);
    }

    [Fact]
    public void One_pass_is_a_plain_lora_for_the_quantised_base()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, LearningRate, steps: 2);
        var (ids, folder) = (TinyModel.Batch().Ids, TinyModel.NewFolder());
        adapter.Save(folder, Card);
        File.Delete(Path.Combine(folder, "adapter_method.json"));

        using var other = TinyModel.Load(quantization: QuantizedBase.Of(folder));
        using var loaded = Assert.IsType<LoraConfig>(AdapterConfig.Saved(folder)).Attach(other, seed: 0);

        Assert.True(TinyModel.Logits(other, ids).equal(TinyModel.Logits(model, ids)).all().item<bool>());
    }

    [Fact]
    public void It_asks_for_codes()
    {
        using var model = TinyModel.Load();

        Assert.Equal("quantization", Assert.Throws<TrainingException>(() => Config.Attach(model, seed: 1)).Param);
        var spec = SpecJson.Parse("""{"model": "m", "data": {"train": "t"}, "adapter": {"type": "loftq"}}""").Spec!;
        Assert.Equal(new Nf4Config(), spec.HeldBase);
    }

    private static Tensor Codes(Tensor matrix) => QuantizedSplit.RoundTrip(Nf4, matrix, "w");

    private static Tensor Product((Tensor Left, Tensor Right) factors) => factors.Left.mm(factors.Right);
}

/// <summary>More passes, whose codes are the method's own.</summary>
[Collection(nameof(RandomNumbers))]
public class LoftqPassesTests : AdapterContract
{
    private static readonly Int8Config Int8 = new();

    protected override LayerAdapterConfig Config => new LoftqConfig { Rank = 4, Alpha = 8, QuantizationIterations = 5 };

    protected override double StartError => 0.05;

    protected override double QuantizedStartError => 0.6;

    protected override double LearningRate => 0.02;

    protected override CausalLm LoadModel(ScalarType dtype = ScalarType.Float32) => TinyModel.Load(dtype: dtype, quantization: Int8);

    [Fact]
    public void More_passes_are_never_worse()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var full = TinyModel.Load();
        var weights = full.Linears.Take(7).Select(slot => AdaptedLinear.WeightOf(slot.Base)).ToList();
        var errors = new[] { 1, 2, 5 }.Select(passes =>
        {
            using var model = TinyModel.Load(quantization: new Nf4Config());
            using var adapter = new LoftqConfig { Rank = 4, QuantizationIterations = passes }.Attach(model, seed: 1);
            return weights.Zip(adapter.Updates).Select(pair => (double)(pair.First - Adapter.Merge(pair.Second)).norm().item<float>()).ToList();
        }).ToList();

        for (var layer = 0; layer < 7; layer++)
        {
            Assert.InRange(errors[1][layer], 0, errors[0][layer] * 1.0001);
            Assert.InRange(errors[2][layer], 0, errors[1][layer] * 1.0001);
        }

        Assert.InRange(errors[2].Sum(), 0, 0.99 * errors[0].Sum());
    }

    [Fact]
    public void A_saved_adapter_finds_the_same_codes_and_is_merged_with_them()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, LearningRate, steps: 2);
        var (ids, folder) = (TinyModel.Batch().Ids, TinyModel.NewFolder());
        adapter.Save(folder, Card);
        adapter.SetTraining(false);
        var trained = TinyModel.Logits(model, ids);

        using var other = TinyModel.Load(quantization: QuantizedBase.Of(folder));
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 7);
        var merged = Path.Combine(TinyModel.NewFolder(), "merged");
        Assert.True(Exporter.Merged(TinyModel.Folder(), folder, merged).Holds);

        Assert.All(model.Linears.Zip(other.Linears), pair => Assert.True(Codes(pair.First).equal(Codes(pair.Second)).all().item<bool>()));
        using var whole = CausalLm.Load(merged, ScalarType.Float32, CPU);
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(whole, ids), trained), 0, 1e-5);
    }

    private static Tensor Codes(LinearSlot slot) => ((QuantizedLinear)slot.Base).Weight.Codes;
}
