using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class HiraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new HiraConfig { Rank = 4 };

    protected override double LearningRate => 20;   // the gradient of a factor is the weight's, times the weight

    [Fact]
    public void Each_number_of_the_weight_is_multiplied_and_the_change_has_the_weights_rank()
    {
        // ΔW[o, i] = W[o, i]·Σ_k B[o, k]·A[k, i]. Two columns of B times two rows of A cannot make a matrix of rank 3; times W they can.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new HiraConfig { Rank = 2 }.Attach(model, seed: 1);
        var (a, b) = (adapter.Trainable[0].Parameter, adapter.Trainable[1].Parameter);
        a.copy_(arange(a.numel()).reshape(a.shape).sin());
        b.copy_(arange(b.numel()).reshape(b.shape).cos());
        var update = adapter.Updates[0];

        var expected = update.Weight[3, 5].item<float>() * (b[3, 0].item<float>() * a[0, 5].item<float>() + b[3, 1].item<float>() * a[1, 5].item<float>());

        Assert.Equal(expected, update.Delta[3, 5].item<float>(), 1e-6);
        Assert.Equal(64, linalg.matrix_rank(update.Delta).item<long>());
        Assert.Null(update.Factors);
    }

    [Fact]
    public void It_trains_as_many_numbers_as_lora()
    {
        // r·(in + out); 9,175,040 for rank 32 on q_proj and v_proj of a model with 28 layers, width 3072 and key width 1024, as LoRA.
        var model = Spec.SpecModels.Stories260K;

        Assert.Equal(new LoraConfig { Rank = 8 }.Count(model).Added, new HiraConfig { Rank = 8 }.Count(model).Added);
    }

    [Fact]
    public void Its_keys_and_fields_are_those_of_peft()
    {
        // PEFT 0.20.0: the fields of HiraConfig and of the classes below it; factors without the ending of a module's weight.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new HiraConfig { Rank = 4, Dropout = 0.25 }.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);

        using var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors"));
        using var config = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "adapter_config.json")));
        Assert.Contains("base_model.model.model.layers.0.self_attn.q_proj.hira_A", file.Entries.Keys);
        Assert.Contains("base_model.model.model.layers.2.mlp.down_proj.hira_B", file.Entries.Keys);
        Assert.Equal(
            [
                "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "hira_dropout", "inference_mode", "init_weights",
                "layers_pattern", "layers_to_transform", "modules_to_save", "peft_type", "peft_version", "r", "rank_pattern", "revision",
                "target_modules", "task_type",
            ],
            config.RootElement.EnumerateObject().Select(field => field.Name));
        Assert.Equal("HIRA", config.RootElement.GetProperty("peft_type").GetString());
        Assert.Equal(4, config.RootElement.GetProperty("r").GetInt32());
        Assert.Equal(0.25, config.RootElement.GetProperty("hira_dropout").GetDouble());
    }

    [Fact]
    public void A_folder_of_peft_whose_factors_started_otherwise_is_read()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        var path = Path.Combine(folder, "adapter_config.json");
        File.WriteAllText(path, File.ReadAllText(path).Replace("\"init_weights\": true", "\"init_weights\": \"gaussian\"", StringComparison.Ordinal));

        using var other = TinyModel.Load();
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 9);
        Assert.Equal([4, 64], loaded.Trainable[0].Parameter.shape);
    }
}
