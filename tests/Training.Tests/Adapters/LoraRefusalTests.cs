using System.Text.Json.Nodes;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>What cannot be attached, and what its owner is told.</summary>
public class LoraRefusalTests
{
    private static string GoldenAdapter => SharedData.Path("golden", "peft", "lora", "adapter");

    [Fact]
    public void An_unknown_target_is_answered_with_what_exists()
    {
        var error = Refused(new LoraConfig { Rank = 4, TargetModules = ModuleSelector.OfNames(["q_proj", "q_porj"]) });

        Assert.Equal("adapter.target_modules[1]", error.Param);
        Assert.Contains("'q_porj'", error.Message, StringComparison.Ordinal);
        Assert.Contains("down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj", error.Message, StringComparison.Ordinal);
        Assert.Contains("did you mean q_proj?", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_rank_above_the_matrix_names_the_layer_and_its_shape()
    {
        var error = Refused(new LoraConfig { Rank = 48 });

        Assert.Equal("adapter.rank", error.Param);
        Assert.Contains("k_proj' allows, whose weight is 32 x 64", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("lm_head", "put lm_head into adapter.modules_to_save")]
    [InlineData("c_attn", "here are down_proj")]
    public void A_target_that_is_no_adaptable_layer_is_refused(string target, string says) =>
        Assert.Contains(says, Refused(new LoraConfig { Rank = 2, TargetModules = ModuleSelector.OfNames([target]) }).Message, StringComparison.Ordinal);

    [Fact]
    public void A_module_cannot_be_adapted_and_saved_in_full() => Assert.Contains(
        "both select layer 'model.layers.0.self_attn.q_proj'",
        Refused(new LoraConfig { Rank = 2, TargetModules = ModuleSelector.OfNames(["q_proj"]), ModulesToSave = ["q_proj"] }).Message,
        StringComparison.Ordinal);

    [Fact]
    public void A_pattern_that_matches_no_layer_is_refused() => Assert.Equal(
        "adapter.rank_pattern.fc1",
        Refused(new LoraConfig { Rank = 2, RankPattern = new Dictionary<string, int> { ["fc1"] = 3 } }).Param);

    [Fact]
    public void An_adapter_of_another_base_is_refused_by_its_first_tensor()
    {
        var error = Refused(new LoraConfig { From = SharedData.Path("data", "adapters", "gpt2-lora") });

        Assert.Equal(FailureCode.InvalidData, error.Code);
        Assert.Contains("made for another base", error.Message, StringComparison.Ordinal);
        Assert.Contains("c_attn.lora_A", error.Message, StringComparison.Ordinal);
        Assert.Contains("[8, 768]", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_adapter_of_another_size_is_refused_with_both_shapes()
    {
        var folder = Copy(_ => { });
        using var scope = NewDisposeScope();
        using (var original = SafeTensorsFile.Open(Path.Combine(GoldenAdapter, "adapter_model.safetensors")))
        {
            const string Wide = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";
            SafeTensorsWriter.Write(
                Path.Combine(folder, "adapter_model.safetensors"),
                original.Entries.Keys.Select(key => (key, key == Wide ? zeros(4, 128) : original.Read(key))).ToList());
        }

        var error = Refused(new LoraConfig { From = folder });

        Assert.Contains("down_proj.lora_A.weight' is [4, 128], this model needs [4, 96]", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_pickle_is_refused_with_the_way_to_convert_it()
    {
        var error = Refused(new LoraConfig { From = SharedData.Path("data", "adapters", "roberta-lora-pickle") });

        Assert.Contains("pickle", error.Message, StringComparison.Ordinal);
        Assert.Contains("safe_serialization=True", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("peft_type", "\"POLY\"")]
    [InlineData("lora_bias", "true")]
    [InlineData("fan_in_fan_out", "true")]
    [InlineData("init_lora_weights", "\"pissa_niter_4\"")]
    [InlineData("layer_replication", "[[0, 2]]")]
    [InlineData("trainable_token_indices", "[5]")]
    [InlineData("target_parameters", "[\"experts.weight\"]")]
    [InlineData("use_something_new", "true")]
    public void A_feature_that_changes_the_mathematics_is_refused_by_name(string field, string value)
    {
        var error = Refused(new LoraConfig { From = Copy(config => config[field] = JsonNode.Parse(value)) });

        Assert.Contains(field, error.Message, StringComparison.Ordinal);
        Assert.Equal($"adapter_config.json:{field}", error.Param);
    }

    [Fact]
    public void A_spec_of_another_method_is_told_the_saved_one()
    {
        var error = Refused(new LoraConfig { From = Copy(config => config["use_dora"] = true) });

        Assert.Equal("adapter.type", error.Param);
        Assert.Contains("set adapter.type to dora", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_spec_that_contradicts_the_saved_adapter_is_told_both_values()
    {
        var error = Refused(new LoraConfig { From = GoldenAdapter, Rank = 8 });

        Assert.Equal("adapter.rank", error.Param);
        Assert.Contains("sets rank to 8", error.Message, StringComparison.Ordinal);
        Assert.Contains("saved with 4", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_spec_that_agrees_in_other_words_is_accepted()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig
        {
            From = GoldenAdapter,
            Rank = 4,
            Alpha = 8,
            TargetModules = ModuleSelector.OfPattern(".*\\.(self_attn|mlp)\\..*_proj"),
        }.Attach(model, seed: 0);

        Assert.Equal(21, adapter.Updates.Count);
    }

    [Fact]
    public void Fewer_tensors_than_the_configuration_says_are_refused() => Assert.Contains(
        "tensors that adapter_config.json does not account for",
        Refused(new LoraConfig { From = Copy(config => config["target_modules"] = new JsonArray("q_proj")) }).Message,
        StringComparison.Ordinal);

    private static TrainingException Refused(LoraConfig config)
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        return Assert.Throws<TrainingException>(() => config.Attach(model, seed: 0).Dispose());
    }

    private static string Copy(Action<JsonObject> change)
    {
        var folder = TinyModel.NewFolder();
        File.WriteAllBytes(
            Path.Combine(folder, "adapter_model.safetensors"), File.ReadAllBytes(Path.Combine(GoldenAdapter, "adapter_model.safetensors")));
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(GoldenAdapter, "adapter_config.json")))!.AsObject();
        change(config);
        File.WriteAllText(Path.Combine(folder, "adapter_config.json"), config.ToJsonString());
        return folder;
    }
}
