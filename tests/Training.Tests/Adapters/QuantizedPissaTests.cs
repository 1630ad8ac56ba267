using TrainingService.Training.Adapters;
using TrainingService.Training.Exports;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>PiSSA over codes (QPiSSA). The base that the contract means is the one in full precision; the start is off by the error of the codes.</summary>
[Collection(nameof(RandomNumbers))]
public class QuantizedPissaTests : AdapterContract
{
    private static readonly Nf4Config Nf4 = new() { DoubleQuantization = false };

    protected override LayerAdapterConfig Config => new PissaConfig { Rank = 4, Alpha = 8 };

    protected override double StartError => 0.6;

    protected override double LearningRate => 0.02;

    protected override CausalLm LoadModel(ScalarType dtype = ScalarType.Float32) => TinyModel.Load(dtype: dtype, quantization: Nf4);

    [Fact]
    public void Codes_beside_the_principal_part_are_nearer_to_every_weight_than_codes_alone()
    {
        // At equal bits of the base: ‖W − Q − s·B·A‖ against ‖W − NF4(W)‖, Frobenius, layer by layer.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = LoadModel();
        using var plain = LoadModel();
        using var full = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        foreach (var (update, slots) in adapter.Updates.Zip(plain.Linears.Zip(full.Linears)))
        {
            var weight = AdaptedLinear.WeightOf(slots.Second.Base);
            var codesAlone = (weight - AdaptedLinear.WeightOf(slots.First.Base)).norm().item<float>();
            Assert.InRange((weight - Adapter.Merge(update)).norm().item<float>(), 0, 0.97 * codesAlone);
        }
    }

    [Fact]
    public void The_passes_are_those_of_the_authors()
    {
        // pissa_quant by hand for two passes: factors of W, codes of the rest, factors of what the codes leave, codes of the rest.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var full = TinyModel.Load();
        var weight = AdaptedLinear.WeightOf(full.Linears[0].Base);
        var first = weight - Codes(weight - Principal(weight));
        var second = Principal(first);

        var (left, right, errors) = QuantizedSplit.FactorsFirst(weight, Codes, Factors, passes: 2);

        Assert.Equal((first - Principal(weight)).norm().item<float>(), errors[0], 1e-5);
        Assert.Equal((weight - Codes(weight - second) - second).norm().item<float>(), errors[1], 1e-5);
        Assert.True(errors[1] < errors[0]);
        Assert.InRange(Numbers.RelativeError(left.mm(right), second), 0, 1e-5);
    }

    [Fact]
    public void More_passes_are_never_worse()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var full = TinyModel.Load();
        foreach (var slot in full.Linears.Take(7))
        {
            var weight = AdaptedLinear.WeightOf(slot.Base);
            double Error(int passes)
            {
                var (left, right, _) = QuantizedSplit.FactorsFirst(weight, Codes, Factors, passes);
                var rest = weight - left.mm(right);
                return (rest - Codes(rest)).norm().item<float>();
            }

            var errors = new[] { 1, 2, 5 }.Select(Error).ToList();
            Assert.Equal(errors.OrderDescending(), errors);
            Assert.True(errors[2] < errors[0]);
        }
    }

    [Fact]
    public void A_saved_adapter_finds_the_same_codes_again()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, LearningRate, steps: 2);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);

        using var other = TinyModel.Load(quantization: QuantizedBase.Of(folder));
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 7);

        Assert.All(model.Linears.Zip(other.Linears), pair => Assert.True(CodesOf(pair.First).equal(CodesOf(pair.Second)).all().item<bool>()));
        using var untouched = LoadModel();
        using var inFull = TinyModel.Load();
        Assert.Equal("quantization", Assert.Throws<TrainingException>(() => AdapterConfig.Saved(folder).Attach(inFull, seed: 7)).Param);
        Assert.False(CodesOf(model.Linears[0]).equal(CodesOf(untouched.Linears[0])).all().item<bool>());
    }

    [Fact]
    public void Exports_hold_the_codes_of_the_method()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, LearningRate, steps: 2);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        adapter.SetTraining(false);
        var ids = TinyModel.Batch().Ids;
        var trained = TinyModel.Logits(model, ids);
        var (merged, lora) = (Path.Combine(TinyModel.NewFolder(), "merged"), Path.Combine(TinyModel.NewFolder(), "lora"));

        Assert.True(Exporter.Merged(TinyModel.Folder(), folder, merged).Holds);
        var report = LoraExporter.Write(TinyModel.Folder(), folder, lora, rank: 8);

        using var whole = CausalLm.Load(merged, ScalarType.Float32, CPU);
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(whole, ids), trained), 0, 1e-5);
        Assert.True(report.Holds);
        Assert.Null(QuantizedBase.Of(lora));   // for the base in full precision
        using var plain = TinyModel.Load();
        using var read = AdapterConfig.Saved(lora).Attach(plain, seed: 0);
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(plain, ids), trained), 0, 0.3);   // the noise of the codes has no low rank
    }

    private static Tensor CodesOf(LinearSlot slot) => ((QuantizedLinear)slot.Base).Weight.Codes;

    private static Tensor Codes(Tensor matrix) => QuantizedSplit.RoundTrip(Nf4, matrix, "w");

    private static Tensor Principal(Tensor matrix)
    {
        var (left, right) = Factors(matrix);
        return left.mm(right);
    }

    private static (Tensor Left, Tensor Right) Factors(Tensor matrix)
    {
        var (left, values, right) = SingularVectors.Largest(matrix, 4);
        return (left * values.sqrt(), values.sqrt().unsqueeze(1) * right);
    }
}
