using System.Text.Json;
using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>What every method on layers holds to. The test class of a method derives from it and adds the method's own numbers.</summary>
public abstract class AdapterContract
{
    protected static readonly ModelCard Card = new("base");

    /// <summary>The method on the small model, away from its defaults where that finds more.</summary>
    protected abstract LayerAdapterConfig Config { get; }

    /// <summary>Largest relative distance of the first logits from the base model's; zero when training starts at it to the bit.</summary>
    protected virtual double StartError => 0;

    /// <summary>The same over quantised weights: as far as codes of the method's own are from those of the base.</summary>
    protected virtual double QuantizedStartError => StartError;

    /// <summary>At which plain gradient descent lowers the loss of one batch.</summary>
    protected virtual double LearningRate => 0.1;

    /// <summary>Training rows, for a method that looks at them before it starts.</summary>
    protected virtual Calibration? CalibrationData => null;

    /// <summary>The small model as the method takes it.</summary>
    protected virtual Training.Models.CausalLm LoadModel(ScalarType dtype = ScalarType.Float32) => TinyModel.Load(dtype: dtype);

    [Fact]
    public void It_starts_at_the_base_model()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        var ids = TinyModel.Batch().Ids;
        var before = TinyModel.Logits(model, ids);

        using var adapter = Config.Attach(model, seed: 1, CalibrationData);

        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), before), 0, StartError);
    }

    [Fact]
    public void Its_own_tensors_move_and_lower_the_loss_and_the_base_stays()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        var before = model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter.detach().clone());
        var (ids, labels) = TinyModel.Batch();
        using (var adapter = Config.Attach(model, seed: 1, CalibrationData))
        {
            var start = adapter.Trainable.Select(tensor => tensor.Parameter.detach().clone()).ToList();
            var first = TinyModel.Loss(model, ids, labels).item<float>();

            Step(model, adapter, LearningRate, steps: 3);

            Assert.InRange(TinyModel.Loss(model, ids, labels).item<float>(), 0, first - 1e-3);
            Assert.All(adapter.Trainable.Zip(start), pair =>
                Assert.False(pair.First.Parameter.equal(pair.Second).all().item<bool>(), pair.First.Name));
        }

        Assert.All(model.NamedWeights(), weight => Assert.True(weight.Parameter.equal(before[weight.Name]).all().item<bool>(), weight.Name));
    }

    [Fact]
    public void Switched_off_it_gives_the_base_model_back_where_it_says_so()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        var ids = TinyModel.Batch().Ids;
        var before = TinyModel.Logits(model, ids);
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        Step(model, adapter, LearningRate, steps: 2);
        var trained = TinyModel.Logits(model, ids);

        using (var off = adapter.SwitchOff())
        {
            Assert.Equal(Config.LeavesBase(model.Config, model.Quantization), off is not null);
            Assert.InRange(off is null ? 0 : Numbers.RelativeError(TinyModel.Logits(model, ids), before), 0, 1e-6);
        }

        Assert.True(TinyModel.Logits(model, ids).equal(trained).all().item<bool>());
    }

    [Fact]
    public void Saved_loaded_and_merged_give_the_same_logits()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        var ids = TinyModel.Batch().Ids;
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        Step(model, adapter, LearningRate, steps: 2);
        var trained = TinyModel.Logits(model, ids);
        adapter.Save(folder, Card);

        using var other = LoadModel();
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 9);
        loaded.SetTraining(false);
        Assert.True(TinyModel.Logits(other, ids).equal(trained).all().item<bool>());

        loaded.MergeIntoModel();
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(other, ids), trained), 0, 1e-5);
    }

    [Fact]
    public void A_checkpoint_goes_on_to_the_bit()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        Step(model, adapter, LearningRate, steps: 1);
        adapter.Save(folder, Card);
        Step(model, adapter, LearningRate, steps: 2);

        using var other = LoadModel();
        using var resumed = Config.Attach(other, seed: 1, CalibrationData);
        resumed.Load(folder);
        Step(other, resumed, LearningRate, steps: 2);

        Assert.All(adapter.Trainable.Zip(resumed.Trainable), pair =>
            Assert.True(pair.First.Parameter.equal(pair.Second.Parameter).all().item<bool>(), pair.First.Name));
    }

    [Fact]
    public void The_estimate_counts_what_trains()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);

        var counted = Config.Trained(model.Config);

        Assert.Equal(adapter.Trainable.Select(tensor => string.Join(' ', tensor.Parameter.shape)), counted.Select(tensor => string.Join(' ', tensor.Shape)));
        Assert.Equal(adapter.Trainable.Select(tensor => tensor.Role), counted.Select(tensor => tensor.Role));
    }

    [Fact]
    public void Steps_leave_no_tensor_behind()
    {
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        Backward(model);   // the first gives every parameter its gradient
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        for (var step = 0; step < 3; step++)
        {
            Backward(model);
            adapter.AfterStep(step + 1);
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void The_change_of_each_matrix_is_the_one_that_the_layer_makes()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = LoadModel();
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        using (enable_grad())
        {
            Step(model, adapter, LearningRate, steps: 1);
        }

        adapter.SetTraining(false);
        var slots = model.Linears.ToDictionary(slot => slot.Name);
        foreach (var update in adapter.Updates)
        {
            var slot = slots[update.Module];
            var input = arange(3 * update.Weight.shape[1], dtype: ScalarType.Float32).reshape(3, -1).sin();
            var expected = nn.functional.linear(input, Adapter.Merge(update), slot.Base is QuantizedLinear held ? held.Bias : ((Training.Models.Linear)slot.Base).bias);
            Assert.InRange(Numbers.RelativeError(slot.Module.forward(input), expected), 0, 1e-5);
            if (update.Factors is { } factors)
            {
                var difference = factors.Left.mm(factors.Right) * factors.Scale - update.Delta;
                Assert.InRange((difference.norm() / update.Weight.norm()).item<float>(), 0, 1e-6);
            }
        }
    }

    [Fact]
    public void It_runs_over_bfloat16_weights_with_tensors_of_its_own_in_float32()
    {
        using var scope = NewDisposeScope();
        using var model = LoadModel(ScalarType.BFloat16);
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        var (ids, labels) = TinyModel.Batch();

        Step(model, adapter, LearningRate, steps: 1);

        Assert.Equal(ScalarType.BFloat16, TinyModel.Logits(model, ids).dtype);
        Assert.All(adapter.Trainable, tensor => Assert.Equal(ScalarType.Float32, tensor.Parameter.dtype));
        Assert.True(double.IsFinite(TinyModel.Loss(model, ids, labels).to_type(ScalarType.Float32).item<float>()));
    }

    [Fact]
    public void It_trains_beside_quantised_weights_or_says_that_it_cannot()
    {
        using var scope = NewDisposeScope();
        using var model = Training.Models.CausalLm.Load(TinyModel.Folder(), ScalarType.Float32, CPU, new Nf4Config());
        if (Config.RefusesQuantization is not null)
        {
            var refusal = Assert.Throws<TrainingException>(() => Config.Attach(model, seed: 1, CalibrationData));
            Assert.Equal("quantization", refusal.Param);
            return;
        }

        var ids = TinyModel.Batch().Ids;
        var before = TinyModel.Logits(model, ids);
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), before), 0, QuantizedStartError);

        Step(model, adapter, LearningRate, steps: 2);

        var trained = TinyModel.Logits(model, ids);
        Assert.InRange(Numbers.RelativeError(trained, before), 1e-6, 10);
        adapter.MergeIntoModel();
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), trained), 0, 1e-5);
    }

    [Fact]
    public void It_comes_back_from_a_spec()
    {
        var json = JsonSerializer.Serialize<AdapterConfig>(Config, SpecJson.Options);
        var spec = SpecJson.Parse($$"""{"model": "m", "data": {"train": "t"}, "adapter": {{json}}}""");

        Assert.Empty(spec.Errors);
        Assert.Equal(json, JsonSerializer.Serialize(spec.Spec!.Adapter, SpecJson.Options));
    }

    protected static void Step(Training.Models.CausalLm model, Adapter adapter, double learningRate, int steps)
    {
        using var scope = NewDisposeScope();
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), learningRate);
        var (ids, labels) = TinyModel.Batch();
        for (var step = 0; step < steps; step++)
        {
            optimizer.zero_grad();
            TinyModel.Loss(model, ids, labels).backward();
            optimizer.step();
        }
    }

    private static void Backward(Training.Models.CausalLm model)
    {
        using var scope = NewDisposeScope();
        var (ids, labels) = TinyModel.Batch();
        TinyModel.Loss(model, ids, labels).backward();
    }
}
