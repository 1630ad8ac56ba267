using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class EvaTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new EvaConfig { Rank = 4, Alpha = 8, Rho = 1 };

    protected override Calibration? CalibrationData => TinyModel.Calibration();

    [Fact]
    public void Portions_have_the_components_of_all_rows_together()
    {
        // With as many components as the rows have directions nothing is lost between portions: the components are the right singular
        // vectors of the centred rows, and what each explains is its singular value's square over the sum of squares.
        using var scope = NewDisposeScope();
        using var generator = new Generator(0, CPU);
        var rows = arange(12 * 6, dtype: ScalarType.Float32).reshape(12, 6).square().sin() * tensor(new float[] { 5, 4, 3, 2, 1, 0.5f }) + 2;
        var analysis = new IncrementalPca(6, 6, CPU, generator);
        analysis.Add(rows.narrow(0, 0, 5));
        analysis.Add(rows.narrow(0, 5, 4));
        analysis.Add(rows.narrow(0, 9, 3));

        var (_, values, right) = SingularVectors.Largest(rows - rows.mean([0L]), 6);

        Assert.InRange(Numbers.RelativeError((analysis.Components() * right).sum(dim: 1).abs(), ones(6)), 0, 1e-5);
        Assert.InRange(Numbers.RelativeError(tensor(analysis.Shares()), (values.square() / values.square().sum()).to_type(ScalarType.Float64)), 0, 1e-5);
        Assert.Equal(12, analysis.Rows);
    }

    [Fact]
    public void The_rows_of_a_are_orthonormal_and_b_is_zero()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        foreach (var tensor in adapter.Trainable)
        {
            var (value, isA) = (tensor.Parameter, tensor.Name.EndsWith("lora_A.weight", StringComparison.Ordinal));
            Assert.InRange(Numbers.RelativeError(isA ? value.mm(value.t()) : value + 1, isA ? eye(4) : ones_like(value)), 0, 1e-5);
        }
    }

    [Fact]
    public void Its_directions_hold_more_of_the_inputs_than_those_of_lora()
    {
        // The share of the centred inputs' squares that stays when they are projected onto the rows of A.
        var eva = SharesHeld(Config, CalibrationData);
        var lora = SharesHeld(new LoraConfig { Rank = 4 }, null);

        Assert.All(eva.Zip(lora), layer => Assert.True(layer.First > layer.Second + 0.1, $"{layer}"));
        Assert.True(eva.Average() > 3 * lora.Average(), $"{eva.Average()} {lora.Average()}");
    }

    [Fact]
    public void Ranks_go_where_the_inputs_have_directions_and_their_sum_stays()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new EvaConfig { Rank = 4, Alpha = 8 }.Attach(model, seed: 1, CalibrationData);
        var factors = adapter.Updates.Select(update => update.Factors!).ToList();
        var ranks = factors.ConvertAll(part => part.Right.shape[0]);

        Assert.Equal(4 * 21, ranks.Sum());
        Assert.True(ranks.Distinct().Count() > 1);
        Assert.InRange(ranks.Max(), 5, 8);
        Assert.All(factors, part => Assert.Equal(2, part.Scale));   // α grows with the rank
    }

    [Fact]
    public void A_run_with_uneven_ranks_goes_on_to_the_bit_and_its_folder_is_a_plain_lora()
    {
        using var scope = NewDisposeScope();
        var config = new EvaConfig { Rank = 4, Alpha = 8 };
        var folder = TinyModel.NewFolder();
        using var model = TinyModel.Load();
        using var adapter = config.Attach(model, seed: 1, CalibrationData);
        Step(model, adapter, LearningRate, steps: 1);
        adapter.Save(folder, Card);

        using var other = TinyModel.Load();
        using var resumed = config.Attach(other, seed: 1, restoring: folder);
        resumed.Load(folder);
        Step(model, adapter, LearningRate, steps: 2);
        Step(other, resumed, LearningRate, steps: 2);

        Assert.Equal(adapter.Trainable.Count, resumed.Trainable.Count);
        Assert.All(adapter.Trainable.Zip(resumed.Trainable), pair =>
            Assert.True(pair.First.Parameter.equal(pair.Second.Parameter).all().item<bool>(), pair.First.Name));

        adapter.Save(folder, Card);
        var ids = TinyModel.Batch().Ids;
        var trained = TinyModel.Logits(model, ids);
        using (var third = TinyModel.Load())
        {
            using var from = new EvaConfig { Rank = 4, Alpha = 8, From = folder }.Attach(third, seed: 2);   // no rows are looked at
            Assert.True(TinyModel.Logits(third, ids).equal(trained).all().item<bool>());
        }

        File.Delete(Path.Combine(folder, "adapter_method.json"));   // what others do not know of
        using var plain = TinyModel.Load();
        using var loaded = ((LoraConfig)AdapterConfig.Saved(folder)).Attach(plain, seed: 0);
        Assert.True(TinyModel.Logits(plain, ids).equal(trained).all().item<bool>());
    }

    [Fact]
    public void Too_few_tokens_for_the_components_are_refused()
    {
        using var model = TinyModel.Load();

        var error = Assert.Throws<TrainingException>(() =>
            new EvaConfig { Rank = 16, CalibrationRows = 1 }.Attach(model, seed: 1, CalibrationData));

        Assert.Contains("20 tokens, too few for 32 principal components", error.Message, StringComparison.Ordinal);
    }

    private static List<double> SharesHeld(LayerAdapterConfig config, Calibration? calibration)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        var inputs = model.Linears.ToDictionary(slot => slot.Name, _ => new List<Tensor>());
        TinyModel.Calibration().Inputs(model, inputs.Keys.ToHashSet(), limit: 3, (layer, input) => inputs[layer].Add(input.clone().MoveToOtherDisposeScope(scope)));
        using var adapter = config.Attach(model, seed: 1, calibration);
        return adapter.Updates.Select(update =>
        {
            var rows = cat(inputs[update.Module], 0);
            var centred = rows - rows.mean([0L]);
            var basis = linalg.qr(update.Factors!.Right.t()).Q;   // [in, R]
            return (double)(centred.mm(basis).square().sum() / centred.square().sum()).item<float>();
        }).ToList();
    }
}
