using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>The reference model: the model with its adapter switched off, or numbers that were made before training.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class ReferenceTests
{
    public ReferenceTests() => set_num_threads(1);

    [Theory]
    [InlineData("lora")]
    [InlineData("pissa")]
    [InlineData("dora")]
    [InlineData("prompt")]
    [InlineData("prefix")]
    public void A_model_whose_adapter_is_switched_off_equals_a_second_copy(string name)
    {
        using var scope = NewDisposeScope();
        using var copy = GoldenPreferences.Model();
        using var model = GoldenPreferences.Model();
        using var adapter = Config(name).Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new SgdConfig().Create(parameters);
        var batch = GoldenPairs.Batch();
        for (var step = 0; step < 3; step++)
        {
            TrainingStep.Backward(model, adapter, new DpoConfig { Beta = 1 }, parameters, [batch], CPU);
            optimizer.Step(0.5);
        }

        adapter.SetTraining(false);   // dropout draws numbers
        using var noGrad = no_grad();
        var trained = AnswerLogProbs.Of(model, batch, CPU);
        var expected = AnswerLogProbs.Of(copy, batch, CPU);
        using (var off = adapter.SwitchOff())
        {
            Assert.NotNull(off);
            Assert.InRange(Models.Numbers.RelativeError(AnswerLogProbs.Of(model, batch, CPU), expected), 0, 1e-6);
        }

        Assert.True(Models.Numbers.RelativeError(trained, expected) > 1e-4);
        Assert.True(AnswerLogProbs.Of(model, batch, CPU).equal(trained).all().item<bool>());
    }

    [Fact]
    public void Numbers_from_before_training_stand_in_for_the_reference_model()
    {
        using var scope = NewDisposeScope();
        using var golden = new GoldenPreferences();
        using var model = GoldenPreferences.Model();
        var examples = new ChosenExamples(GoldenPairs.Examples(), [0, 1, 2, 3]);
        var done = new List<int>();
        var measured = ReferencePass.Over(new DpoConfig(), model, examples, 3, 0, CPU, done.Add, TestContext.Current.CancellationToken);
        var again = ReferencePass.Over(new DpoConfig(), model, examples, 3, 0, CPU, _ => { }, TestContext.Current.CancellationToken);

        var expected = golden.Numbers("reference_logps");
        Assert.Equal(Enumerable.Range(0, 4).SelectMany(pair => new[] { expected[pair], expected[pair + 4] }), measured.SelectMany(row => row.References!).Select(number => (double)number), new Near(1e-6));
        Assert.Equal(measured.SelectMany(row => row.References!), again.SelectMany(row => row.References!));
        Assert.Equal([3, 4], done);

        using var adapter = new LoraConfig { From = GoldenPreferences.AdapterFolder }.Attach(model, seed: 0);
        using var parameters = new FlatParameters(adapter.Trainable);
        var plan = BatchPlan.ForEvaluation(measured, 4, 0);
        var step = TrainingStep.Backward(model, adapter, new DpoConfig(), parameters, [plan.Collate(plan.ForEpoch(0)[0])], CPU);
        Assert.Equal(golden.Facts.GetProperty("dpo").GetProperty("sigmoid").GetProperty("mean").GetDouble(), step.Loss, 1e-6);
        golden.AssertEqual("grad_sigmoid|", adapter, tensor => tensor.Parameter.grad!);
    }

    [Fact]
    public void Weights_that_train_in_place_leave_no_base_to_switch_to()
    {
        using var model = GoldenPreferences.Model();
        using (var full = new FullConfig().Attach(model, seed: 1))
        {
            Assert.Null(full.SwitchOff());
        }

        var saving = new LoraConfig { ModulesToSave = ["lm_head"] };
        using var adapter = saving.Attach(model, seed: 1);
        Assert.Null(adapter.SwitchOff());
        Assert.False(saving.LeavesBase(model.Config, held: null));
        Assert.False(new FullConfig().LeavesBase(model.Config, held: null));
        Assert.True(new LoraConfig().LeavesBase(model.Config, held: null));
        Assert.True(new LoraConfig { From = GoldenPreferences.AdapterFolder }.LeavesBase(model.Config, held: null));
        Assert.False(new PissaConfig().LeavesBase(model.Config, new Training.Quantization.Nf4Config()));
    }

    private static AdapterConfig Config(string name) => name switch
    {
        "lora" => new LoraConfig { Rank = 4, Dropout = 0.2 },
        "pissa" => new PissaConfig { Rank = 4 },
        "dora" => new DoraConfig { Rank = 4 },
        "prompt" => new PromptConfig { NumVirtualTokens = 4 },
        "prefix" => new PrefixConfig { NumVirtualTokens = 4 },
        _ => throw new ArgumentOutOfRangeException(nameof(name), name, "no such adapter"),
    };
}
