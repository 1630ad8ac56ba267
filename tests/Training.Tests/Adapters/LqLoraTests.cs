using TrainingService.Training.Adapters;
using TrainingService.Training.Exports;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LqLoraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LqLoraConfig { Rank = 4, Alpha = 8, TargetBits = 5 };

    protected override double StartError => 0.6;   // the start is nearer to W than to NF4(W)

    protected override double LearningRate => 0.02;

    protected override CausalLm LoadModel(ScalarType dtype = ScalarType.Float32) => TinyModel.Load(dtype: dtype, quantization: new Nf4Config());

    [Fact]
    public void Factors_and_codes_are_nearer_to_every_weight_than_the_same_codes_alone()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = LoadModel();
        using var full = TinyModel.Load();
        var same = full.Linears.ToDictionary(slot => slot.Name, _ => "nf4/64/double");   // those that nf4 has
        var alone = model.Linears.Zip(full.Linears, (codes, slot) => (AdaptedLinear.WeightOf(codes.Base) - AdaptedLinear.WeightOf(slot.Base)).norm().item<float>()).ToList();

        using var adapter = new LqLoraConfig { Rank = 4, TargetBits = 9, Allocation = same }.Attach(model, seed: 1);

        for (var layer = 0; layer < alone.Count; layer++)
        {
            var error = (AdaptedLinear.WeightOf(full.Linears[layer].Base) - Adapter.Merge(adapter.Updates[layer])).norm().item<float>();
            Assert.InRange(error, 0, 0.97 * alone[layer]);
        }
    }

    [Fact]
    public void At_the_bits_of_nf4_the_error_of_all_layers_is_smaller_and_the_budget_is_kept()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = LoadModel();
        using var full = TinyModel.Load();
        var numbers = full.Linears.Sum(slot => AdaptedLinear.WeightOf(slot.Base).numel());
        var bits = 8.0 * model.Linears.Sum(slot => ((QuantizedLinear)slot.Base).Weight.Bytes) / numbers;
        var alone = model.Linears.Zip(full.Linears, (codes, slot) => Square(AdaptedLinear.WeightOf(codes.Base) - AdaptedLinear.WeightOf(slot.Base))).Sum();

        using var adapter = new LqLoraConfig { Rank = 4, TargetBits = bits }.Attach(model, seed: 1);

        Assert.InRange(8.0 * model.Linears.Sum(slot => ((QuantizedLinear)slot.Base).Weight.Bytes) / numbers, bits - 0.1, bits);
        Assert.InRange(adapter.Updates.Zip(full.Linears, (update, slot) => Square(AdaptedLinear.WeightOf(slot.Base) - Adapter.Merge(update))).Sum(), 0, 0.9 * alone);
    }

    [Fact]
    public void No_other_allocation_of_the_budget_costs_less()
    {
        // Three layers of one block, every one of 24³ allocations.
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        var config = new LqLoraConfig { Rank = 4, TargetBits = 3.3, TargetModules = ModuleSelector.OfNames(["layers.0.self_attn.k_proj", "layers.1.mlp.up_proj", "layers.2.mlp.down_proj"]) };
        var layers = LayerPlan.Create(config, model.Config).Layers;
        var measured = config.Measure(model, layers, null);
        var costs = layers.Select(layer => measured["costs of " + layer.Name].data<double>().ToArray()).ToList();
        var sizes = layers.Select(layer => NormalFloat.All.Select(form => form.BytesOf(layer.In * layer.Out)).ToArray()).ToList();
        var best = double.PositiveInfinity;
        for (var code = 0; code < 24 * 24 * 24; code++)
        {
            var (a, b, c) = (code % 24, code / 24 % 24, code / 576);
            if (sizes[0][a] + sizes[1][b] + sizes[2][c] <= config.BudgetBytes(layers))
            {
                best = Math.Min(best, costs[0][a] + costs[1][b] + costs[2][c]);
            }
        }

        var completed = (LqLoraConfig)config.Completed(layers, measured);

        var chosen = layers.Select(layer => NormalFloat.All.ToList().FindIndex(form => form.Name == completed.Allocation[layer.Name])).ToList();
        Assert.Equal(3, chosen.Count);
        Assert.Equal(best, costs.Zip(chosen, (row, index) => row[index]).Sum(), 1e-9 * best);
    }

    [Fact]
    public void A_budget_above_the_bits_of_the_base_is_in_the_estimate()
    {
        // 8.14 bits for the linear layers instead of the 4.14 that nf4 has for these small matrices: four more for each number.
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        var numbers = model.Linears.Sum(slot => ((QuantizedLinear)slot.Base).Weight.Count);
        var held = model.Linears.Sum(slot => ((QuantizedLinear)slot.Base).Weight.Bytes);
        long More(double bits) => new LqLoraConfig { TargetBits = bits }.MoreFrozenBytes(model.Config, new Nf4Config());

        Assert.Equal(numbers / 2, More((8.0 * held / numbers) + 4), 1.0);
        Assert.Equal(0, More(3));
    }

    [Fact]
    public void A_budget_below_the_smallest_codes_is_refused()
    {
        using var model = LoadModel();

        var refusal = Assert.Throws<TrainingException>(() => new LqLoraConfig { Rank = 4, TargetBits = 2.2, Allocation = model.Linears.ToDictionary(slot => slot.Name, _ => "nf8/16") }.Attach(model, seed: 1));

        Assert.Equal("adapter.target_bits", refusal.Param);
        Assert.Contains(
            SpecJson.Parse("""{"model": "m", "data": {"train": "t"}, "adapter": {"type": "lq_lora", "allocation": {"model.layers.0.mlp.up_proj": "nf5/64"}}}""").Errors,
            error => error.Path.StartsWith("adapter.allocation", StringComparison.Ordinal));
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

        using var other = LoadModel();
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 7);
        using var third = LoadModel();
        using var resumed = Config.Attach(third, seed: 7, restoring: folder);
        resumed.Load(folder);
        var merged = Path.Combine(TinyModel.NewFolder(), "merged");
        Assert.True(Exporter.Merged(TinyModel.Folder(), folder, merged).Holds);

        Assert.All(model.Linears.Zip(other.Linears, third.Linears), same =>
        {
            Assert.True(Codes(same.First).equal(Codes(same.Second)).all().item<bool>());
            Assert.True(Codes(same.First).equal(Codes(same.Third)).all().item<bool>());
        });
        using var whole = CausalLm.Load(merged, ScalarType.Float32, CPU);
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(whole, ids), trained), 0, 1e-5);
    }

    private static Tensor Codes(LinearSlot slot) => ((QuantizedLinear)slot.Base).Weight.Codes;

    private static double Square(Tensor matrix) => Math.Pow(matrix.norm().item<float>(), 2);
}

/// <summary>With the error weighted by squared gradients.</summary>
[Collection(nameof(RandomNumbers))]
public class LqLoraFisherTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LqLoraConfig { Rank = 4, CalibrationRows = 3 };

    protected override Calibration? CalibrationData => TinyModel.Calibration();

    protected override double StartError => 0.8;

    protected override double LearningRate => 0.02;

    protected override CausalLm LoadModel(ScalarType dtype = ScalarType.Float32) => TinyModel.Load(dtype: dtype, quantization: new Nf4Config());

    [Fact]
    public void Weights_are_the_mean_squared_gradients_of_plain_weights()
    {
        // The gradients are those of a model that holds this one matrix in full; rows times columns give their mean square in each place,
        // and the means over the other axis are as they were.
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        var config = new LqLoraConfig { Rank = 4, CalibrationRows = 3, TargetModules = ModuleSelector.OfNames(["layers.1.mlp.up_proj"]) };
        var layers = LayerPlan.Create(config, model.Config).Layers;
        var squares = zeros(layers[0].Out, layers[0].In);
        CalibrationData!.Gradients(model, new HashSet<string> { layers[0].Name }, 3, (_, gradient) => squares.add_(gradient.square()));

        var measured = config.Measure(model, layers, CalibrationData);

        var modelled = measured["rows of " + layers[0].Name].square() * measured["columns of " + layers[0].Name].square();
        Assert.InRange(Numbers.RelativeError(modelled.mean([1L]), squares.mean([1L])), 0, 1e-5);
        Assert.InRange(Numbers.RelativeError(modelled.mean([0L]), squares.mean([0L])), 0, 1e-5);
        Assert.All(model.Linears, slot => Assert.Same(slot.Base, slot.Module));
    }

    [Fact]
    public void Attaching_leaves_no_tensor_behind()
    {
        using var model = LoadModel();
        Config.Attach(model, seed: 1, CalibrationData).Dispose();   // from now on the model has codes of these forms
        var before = TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        Config.Attach(model, seed: 1, CalibrationData).Dispose();

        Assert.Equal(before, TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void The_weighted_error_is_smaller_than_without_weights()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var generator = new Generator(0, CPU);
        var matrix = arange(24 * 16, dtype: ScalarType.Float32).square().sin().view(24, 16);
        var (rows, columns) = (arange(1, 25, dtype: ScalarType.Float32).view(24, 1), arange(1, 17, dtype: ScalarType.Float32).sqrt().view(1, 16));
        double Error((Tensor Left, Tensor Right) factors) => LqLora.Error(matrix - factors.Left.mm(factors.Right), rows, columns);

        var weighted = Error(LqLora.Factors(matrix, 4, rows, columns, generator));

        // Eckart and Young for the weighted matrix: what is left are its smaller singular values.
        var values = linalg.svdvals((rows * matrix * columns).to_type(ScalarType.Float64));
        Assert.Equal(values.narrow(0, 4, 12).norm().item<double>(), weighted, 1e-4 * weighted);
        Assert.InRange(weighted, 0, 0.99 * Error(LqLora.Factors(matrix, 4, null, null, generator)));
    }
}
