using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LoraTests
{
    private static readonly ModelCard Card = new("base");

    [Fact]
    public void It_starts_at_the_base_model()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var ids = TinyModel.Batch().Ids;
        var before = TinyModel.Logits(model, ids);

        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);

        Assert.True(TinyModel.Logits(model, ids).equal(before).all().item<bool>());
    }

    [Fact]
    public void The_same_seed_gives_the_same_start_within_one_over_the_root_of_the_inputs()
    {
        using var scope = NewDisposeScope();
        using var first = TinyModel.Load();
        using var second = TinyModel.Load();
        using var one = new LoraConfig { Rank = 4 }.Attach(first, seed: 7);
        using var two = new LoraConfig { Rank = 4 }.Attach(second, seed: 7);

        Assert.All(one.Trainable.Zip(two.Trainable), pair =>
            Assert.True(pair.First.Parameter.equal(pair.Second.Parameter).all().item<bool>(), pair.First.Name));
        Assert.All(one.Trainable.Where(tensor => tensor.Name.EndsWith("lora_A.weight", StringComparison.Ordinal)), tensor =>
        {
            var bound = 1 / Math.Sqrt(tensor.Parameter.shape[1]);
            Assert.InRange(tensor.Parameter.abs().max().item<float>(), 0.9 * bound, bound);
        });
    }

    [Fact]
    public void Only_its_own_parameters_move()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var before = model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter.detach().clone());
        using var adapter = new LoraConfig { Rank = 2, TargetModules = ModuleSelector.OfNames(["q_proj"]) }.Attach(model, seed: 1);

        Step(model, adapter, learningRate: 0.5, steps: 2);

        Assert.All(model.NamedWeights(), weight => Assert.True(weight.Parameter.equal(before[weight.Name]).all().item<bool>(), weight.Name));
        Assert.All(adapter.Trainable, tensor => Assert.True(tensor.Parameter.abs().sum().item<float>() > 0));
    }

    [Fact]
    public void Saved_loaded_and_merged_give_the_same_logits()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        var ids = TinyModel.Batch().Ids;
        var config = new LoraConfig
        {
            Rank = 4,
            Alpha = 12,
            UseRslora = true,
            RankPattern = new Dictionary<string, int> { ["layers\\.1\\..*q_proj"] = 2, ["down_proj"] = 3 },
            AlphaPattern = new Dictionary<string, double> { ["v_proj"] = 5.5 },
            ExcludeModules = ModuleSelector.OfNames(["up_proj"]),
        };
        using var model = TinyModel.Load();
        using var adapter = config.Attach(model, seed: 1);
        Step(model, adapter, learningRate: 0.5, steps: 2);
        var trained = TinyModel.Logits(model, ids);
        adapter.Save(folder, Card);

        using var other = TinyModel.Load();
        using var loaded = new LoraConfig { From = folder }.Attach(other, seed: 9);
        Assert.True(TinyModel.Logits(other, ids).equal(trained).all().item<bool>());

        loaded.MergeIntoModel();
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(other, ids), trained), 1e-12, 1e-5);
    }

    [Theory]
    [InlineData(false, 8.0 / 4)]
    [InlineData(true, 8.0 / 2)]   // α/√r with r = 4
    public void The_scale_is_alpha_over_the_rank_or_over_its_root(bool rankStabilised, double scale)
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig { Rank = 4, Alpha = 8, UseRslora = rankStabilised }.Attach(model, seed: 1);

        Assert.All(adapter.Updates, update => Assert.Equal(scale, update.Factors!.Scale, 12));
    }

    [Fact]
    public void Patterns_choose_rank_and_scale_of_single_layers()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig
        {
            Rank = 4,
            Alpha = 8,
            RankPattern = new Dictionary<string, int> { ["q_proj"] = 2 },
            AlphaPattern = new Dictionary<string, double> { ["layers\\.0\\.self_attn\\.q_proj"] = 6 },
        }.Attach(model, seed: 1);

        LowRankFactors Of(string module) => adapter.Updates.Single(update => update.Module == module).Factors!;
        Assert.Equal((2, 3.0), (Of("model.layers.0.self_attn.q_proj").Right.shape[0], Of("model.layers.0.self_attn.q_proj").Scale));
        Assert.Equal((2, 4.0), (Of("model.layers.1.self_attn.q_proj").Right.shape[0], Of("model.layers.1.self_attn.q_proj").Scale));
        Assert.Equal((4, 2.0), (Of("model.layers.0.self_attn.k_proj").Right.shape[0], Of("model.layers.0.self_attn.k_proj").Scale));
    }

    [Fact]
    public void Biases_and_whole_modules_come_back_from_the_folder()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        var ids = TinyModel.Batch().Ids;
        using var model = TinyModel.Load("qwen2");
        using var adapter = new LoraConfig
        {
            Rank = 2,
            TargetModules = ModuleSelector.OfNames(["q_proj", "down_proj"]),
            Bias = BiasTraining.All,
            ModulesToSave = ["lm_head", "norm"],
        }.Attach(model, seed: 1);
        Step(model, adapter, learningRate: 0.1, steps: 2);
        var trained = TinyModel.Logits(model, ids);
        adapter.Save(folder, Card);

        using (var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors")))
        {
            Assert.Contains("base_model.model.lm_head.weight", file.Entries.Keys);
            Assert.Contains("base_model.model.model.norm.weight", file.Entries.Keys);
            Assert.Contains("base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias", file.Entries.Keys);
            Assert.Contains("base_model.model.model.layers.0.self_attn.k_proj.bias", file.Entries.Keys);
            Assert.DoesNotContain(file.Entries.Keys, key => key.Contains("layernorm", StringComparison.Ordinal));
        }

        using var other = TinyModel.Load("qwen2");
        using var loaded = new LoraConfig { From = folder }.Attach(other, seed: 9);
        Assert.True(TinyModel.Logits(other, ids).equal(trained).all().item<bool>());
    }

    [Fact]
    public void Dropout_acts_in_training_only_and_follows_the_seed()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig { Rank = 4, Dropout = 0.5 }.Attach(model, seed: 1);
        var ids = TinyModel.Batch().Ids;
        Step(model, adapter, learningRate: 0.5, steps: 1);

        Tensor Seeded()
        {
            random.manual_seed(3);
            return TinyModel.Logits(model, ids);
        }

        Assert.True(Seeded().equal(Seeded()).all().item<bool>());
        Assert.False(TinyModel.Logits(model, ids).equal(Seeded()).all().item<bool>());
        adapter.SetTraining(false);
        Assert.True(TinyModel.Logits(model, ids).equal(TinyModel.Logits(model, ids)).all().item<bool>());
    }

    [Fact]
    public void Factors_stay_float32_over_a_bfloat16_model()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load(dtype: ScalarType.BFloat16);
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);
        var (ids, labels) = TinyModel.Batch();

        Step(model, adapter, learningRate: 0.1, steps: 1);

        Assert.Equal(ScalarType.BFloat16, TinyModel.Logits(model, ids).dtype);
        Assert.All(adapter.Trainable, tensor => Assert.Equal(ScalarType.Float32, tensor.Parameter.dtype));
        Assert.True(double.IsFinite(TinyModel.Loss(model, ids, labels).to_type(ScalarType.Float32).item<float>()));
    }

    [Fact]
    public void Five_steps_leave_no_tensor_behind()
    {
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig { Rank = 4, Dropout = 0.1 }.Attach(model, seed: 1);
        Backward(model);   // the first gives every parameter its gradient
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        for (var step = 0; step < 5; step++)
        {
            Backward(model);
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void Disposing_it_gives_the_base_model_back()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var ids = TinyModel.Batch().Ids;
        var before = TinyModel.Logits(model, ids);
        using (var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1))
        {
            Step(model, adapter, learningRate: 0.5, steps: 1);
            Assert.False(TinyModel.Logits(model, ids).equal(before).all().item<bool>());
        }

        Assert.True(TinyModel.Logits(model, ids).equal(before).all().item<bool>());
    }

    [Fact]
    public void Numbers_that_are_not_finite_are_never_saved()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);
        using (no_grad())
        {
            adapter.Trainable[3].Parameter.fill_(double.NaN);
        }

        var folder = TinyModel.NewFolder();
        var error = Assert.Throws<TrainingException>(() => adapter.Save(folder, Card));

        Assert.Equal(FailureCode.Diverged, error.Code);
        Assert.Empty(Directory.GetFiles(folder));
    }

    [Fact]
    public void Full_fine_tuning_saves_a_model_that_loads_and_continues()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        var ids = TinyModel.Batch().Ids;
        using var model = TinyModel.Load();
        using var adapter = new FullConfig().Attach(model, seed: 0);
        Step(model, adapter, learningRate: 0.1, steps: 1);
        var trained = TinyModel.Logits(model, ids);
        adapter.Save(folder, Card);

        using var other = TinyModel.Load();
        using var loaded = new FullConfig { From = folder }.Attach(other, seed: 0);

        Assert.True(TinyModel.Logits(other, ids).equal(trained).all().item<bool>());
        Assert.Equal(model.Config.Weights.Count, loaded.Trainable.Count);
    }

    private static void Step(Training.Models.CausalLm model, Adapter adapter, double learningRate, int steps)
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
