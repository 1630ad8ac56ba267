using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Spectra;
using TrainingService.Training.Tests.Spec;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LnTuningTests
{
    private static readonly ModelCard Card = new("base");

    [Fact]
    public void It_starts_at_the_base_model_and_moves_the_norms_alone()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var before = model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter.detach().clone());
        var (ids, labels) = TinyModel.Batch();
        var logits = TinyModel.Logits(model, ids);

        using var adapter = new LnTuningConfig().Attach(model, seed: 1);
        Assert.True(TinyModel.Logits(model, ids).equal(logits).all().item<bool>());
        var first = TinyModel.Loss(model, ids, labels).item<float>();
        Step(model, adapter, steps: 3);

        Assert.InRange(TinyModel.Loss(model, ids, labels).item<float>(), 0, first - 1e-3);
        Assert.All(model.NamedWeights(), weight => Assert.Equal(
            !weight.Name.EndsWith("norm.weight", StringComparison.Ordinal), weight.Parameter.equal(before[weight.Name]).all().item<bool>()));
    }

    [Fact]
    public void It_is_saved_under_the_keys_of_peft_and_loaded_again()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new LnTuningConfig().Attach(model, seed: 1);
        Step(model, adapter, steps: 2);
        var ids = TinyModel.Batch().Ids;
        var trained = TinyModel.Logits(model, ids);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);

        using (var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors")))
        {
            Assert.Equal(7, file.Entries.Count);
            Assert.Contains("base_model.model.model.layers.1.post_attention_layernorm.ln_tuning_layers.weight", file.Entries.Keys);
            Assert.Contains("base_model.model.model.norm.ln_tuning_layers.weight", file.Entries.Keys);
        }

        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "adapter_config.json")));
        Assert.False(document.RootElement.TryGetProperty("layers_to_transform", out _));   // PEFT has no such field here
        Assert.Equal("LN_TUNING", document.RootElement.GetProperty("peft_type").GetString());
        Assert.Equal(
            ["input_layernorm", "norm", "post_attention_layernorm"],
            document.RootElement.GetProperty("target_modules").EnumerateArray().Select(name => name.GetString()));

        using var other = TinyModel.Load();
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 9);
        Assert.True(TinyModel.Logits(other, ids).equal(trained).all().item<bool>());
        loaded.MergeIntoModel();
        Assert.True(TinyModel.Logits(other, ids).equal(trained).all().item<bool>());
    }

    [Fact]
    public void The_counts_are_two_norms_a_layer_and_the_last()
    {
        // A Llama 3.2 3B has 28 layers of width 3072: (2·28 + 1)·3072.
        var counts = new LnTuningConfig().Count(SpecModels.Llama32Of3B);

        Assert.Equal(175_104, counts.InPlace);
        Assert.Equal(0, counts.Added);
        Assert.Equal(28 * 3072, new LnTuningConfig { TargetModules = ModuleSelector.OfNames(["input_layernorm"]) }.Count(SpecModels.Llama32Of3B).InPlace);
    }

    [Fact]
    public void What_is_counted_is_what_trains()
    {
        var config = new LnTuningConfig { ModulesToSave = ["lm_head"] };
        using var model = TinyModel.Load();
        using var adapter = config.Attach(model, seed: 1);

        Assert.Equal(adapter.Trainable.Select(tensor => tensor.Parameter.numel()), config.Trained(model.Config).Select(tensor => tensor.Count));
        Assert.Equal(adapter.Trainable.Select(tensor => tensor.Role), config.Trained(model.Config).Select(tensor => tensor.Role));
    }

    [Fact]
    public void A_linear_layer_is_no_norm()
    {
        var error = new LnTuningConfig { TargetModules = ModuleSelector.OfNames(["q_proj"]) }.Check(SpecModels.Stories260K)[0];

        Assert.Equal("adapter.target_modules[0]", error.Path);
        Assert.Contains("input_layernorm", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Spectra_of_an_adapter_that_changes_no_matrix_are_empty()
    {
        using var model = TinyModel.Load();
        using var adapter = new LnTuningConfig().Attach(model, seed: 1);

        Assert.Empty(SpectraWriter.Write(adapter, TinyModel.NewFolder()).Layers);
    }

    private static void Step(CausalLm model, Adapter adapter, int steps)
    {
        using var scope = NewDisposeScope();
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 0.1);
        var (ids, labels) = TinyModel.Batch();
        for (var step = 0; step < steps; step++)
        {
            optimizer.zero_grad();
            TinyModel.Loss(model, ids, labels).backward();
            optimizer.step();
        }
    }
}
