using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class PissaTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new PissaConfig { Rank = 4, Alpha = 8 };

    protected override double StartError => 1e-5;

    protected override double QuantizedStartError => 0.6;   // codes of W_res instead of W

    protected override double LearningRate => 0.02;

    [Fact]
    public void The_start_is_that_of_peft()
    {
        // The signs of singular vectors are free, so the products are compared; PEFT's SVD is float32, and the fourth and fifth singular
        // values of these matrices are so near to each other that this shows in the fifth digit.
        using var scope = NewDisposeScope();
        using var golden = SafeTensorsFile.Open(Path.Combine(PeftGolden.Folder("pissa"), "adapter_model.safetensors"));
        using var model = TinyModel.Load();
        using var adapter = new PissaConfig { Rank = 4, Alpha = 8 }.Attach(model, seed: 0);
        var ours = adapter.Trainable.ToDictionary(tensor => tensor.Name, tensor => tensor.Parameter);

        foreach (var layer in adapter.Updates.Select(update => "base_model.model." + update.Module))
        {
            var (a, b) = (layer + ".lora_A.weight", layer + ".lora_B.weight");
            Assert.InRange(Numbers.RelativeError(ours[b].mm(ours[a]), golden.Read(b).mm(golden.Read(a))), 0, 5e-5);
        }
    }

    [Fact]
    public void Three_steps_end_where_those_of_peft_end()
    {
        // W_res + s·B·A of the first layer, against PEFT's residual base and factors after three steps of plain gradient descent.
        using var scope = NewDisposeScope();
        using var golden = PeftGolden.Open("pissa");
        using var model = TinyModel.Load();
        using var adapter = new PissaConfig { Rank = 4, Alpha = 8 }.Attach(model, seed: 0);
        Step(model, adapter, learningRate: 0.1, steps: 3);

        using var off = no_grad();
        const string Module = "model.layers.0.self_attn.q_proj";
        const string Key = "base_model.model." + Module;
        var rest = golden.Entries.Keys.Single(key => key.StartsWith("init_base|", StringComparison.Ordinal) && key.Contains("0.self_attn.q_proj", StringComparison.Ordinal));
        var theirs = golden.Read(rest) + 2 * golden.Read($"sgd3|{Key}.lora_B.weight").mm(golden.Read($"sgd3|{Key}.lora_A.weight"));
        Assert.InRange(Numbers.RelativeError(Adapter.Merge(adapter.Updates.Single(update => update.Module == Module)), theirs), 0, 1e-5);
    }

    [Fact]
    public void The_factors_hold_the_largest_singular_values()
    {
        // s·B·A is the best approximation of W of rank r, so what is left has W's remaining singular values: ‖W_res‖² = Σ of their squares.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new PissaConfig { Rank = 5 }.Attach(model, seed: 0);
        using var off = no_grad();
        var factors = adapter.Trainable.ToDictionary(tensor => tensor.Name, tensor => tensor.Parameter);
        var update = adapter.Updates[0];
        var (b, a) = (factors[$"base_model.model.{update.Module}.lora_B.weight"], factors[$"base_model.model.{update.Module}.lora_A.weight"]);
        var values = linalg.svdvals(update.Weight.to_type(ScalarType.Float64));

        var rest = (update.Weight - b.mm(a) * (16.0 / 5)).to_type(ScalarType.Float64).norm().item<double>();

        Assert.Equal(values.narrow(0, 5, values.shape[0] - 5).norm().item<double>(), rest, 1e-5 * rest);
    }

    [Fact]
    public void It_is_saved_as_a_plain_lora_of_twice_the_rank_for_the_unchanged_base()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, LearningRate, steps: 2);
        var ids = TinyModel.Batch().Ids;
        var trained = TinyModel.Logits(model, ids);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        File.Delete(Path.Combine(folder, "adapter_method.json"));   // what others do not know of

        using var other = TinyModel.Load();
        var config = (LoraConfig)AdapterConfig.Saved(folder);
        using var loaded = config.Attach(other, seed: 0);

        Assert.Equal(8, loaded.Updates[0].Factors!.Right.shape[0]);
        Assert.Equal(2, loaded.Updates[0].Factors!.Scale);
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(other, ids), trained), 0, 1e-5);
    }

    [Fact]
    public void Dropout_is_refused() => Assert.Contains(
        SpecJson.Parse("""{"model": "m", "data": {"train": "t"}, "adapter": {"type": "pissa", "dropout": 0.1}}""").Errors,
        error => error.Path == "adapter.dropout");
}

[Collection(nameof(RandomNumbers))]
public class RandomizedPissaTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new PissaConfig { Rank = 4, Iterations = 16 };

    protected override double StartError => 1e-5;

    protected override double QuantizedStartError => 0.6;   // codes of W_res instead of W

    protected override double LearningRate => 0.02;
}
