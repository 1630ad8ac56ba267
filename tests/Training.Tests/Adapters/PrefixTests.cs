using System.Text.Json.Nodes;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Models;
using TrainingService.Training.Tests.Spec;
using TrainingService.Training.Throughput;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class PrefixTests : VirtualTokensContract
{
    protected override VirtualTokensConfig Config => new PrefixConfig { NumVirtualTokens = 4 };

    /// <summary>Of PEFT 0.20.0's PrefixTuningConfig.</summary>
    protected override IReadOnlyList<string> PeftFields =>
    [
        "auto_mapping", "base_model_name_or_path", "encoder_hidden_size", "inference_mode", "init_weights", "modules_to_save", "num_attention_heads",
        "num_layers", "num_transformer_submodules", "num_virtual_tokens", "peft_type", "peft_version", "prefix_projection", "revision", "task_type",
        "token_dim",
    ];

    [Fact]
    public void It_trains_a_key_and_a_value_per_token_layer_and_key_value_head() =>
        Assert.Equal(20 * 28 * 2 * 1024, new PrefixConfig().Count(SpecModels.Llama32Of3B).Total);

    [Fact]
    public void Operations_count_what_the_attention_reads_more()
    {
        // As of prompt tuning, whose virtual tokens run through the layers, too.
        var spec = SpecModels.Spec("") with { Adapter = new PrefixConfig { NumVirtualTokens = 64 } };

        Assert.Equal((4.0 * 259_328) + (6 * 128 * 320), StepOperations.PerToken(spec, SpecModels.Stories260K, length: 64));
    }

    [Fact]
    public void Of_a_token_the_table_has_layer_after_layer_keys_then_values_head_by_head()
    {
        // Three layers, two key and value heads of width 16: the number at token p, layer l, half h, head g and place k has index
        // p·192 + ((2l + h)·2 + g)·16 + k, as PEFT's view of [batch, tokens, 2·layers, heads, width] reads it.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var table = arange(4 * 192, dtype: ScalarType.Float32).reshape(4, 192);

        var (keys, values) = new PrefixConfig { NumVirtualTokens = 4 }.Seen(model.Config, table).Past!(2);

        Assert.Equal([2, 4, 16], keys.shape);
        Assert.Equal(3 * 192 + ((2 * 2) * 2 + 1) * 16 + 5, keys[1, 3, 5].item<float>());
        Assert.Equal(1 * 192 + ((2 * 2 + 1) * 2 + 0) * 16 + 9, values[0, 1, 9].item<float>());
    }

    [Fact]
    public void Where_all_values_are_those_of_the_token_the_keys_do_not_matter()
    {
        // The weights of the softmax add up to one, so a token whose prefix has its own value in every layer reads that value, whatever the
        // scores are. A row of one token has the same logits at any position.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var cache = new KeyValueCache(3);
        var ids = tensor((long[])[17]).unsqueeze(0);
        var plain = TinyModel.Logits(model, ids);
        model.Continue(ids, zeros_like(ids), mask: null, cache);
        using var adapter = Config.Attach(model, seed: 1);

        var rows = Enumerable.Range(0, 3).SelectMany(layer => new[] { (arange(4 * 32, dtype: ScalarType.Float32) * (layer + 1)).sin().reshape(4, 32), cache.Of(layer).Values.reshape(1, 32).expand(4, 32) });
        adapter.Trainable[0].Parameter.copy_(cat([.. rows], dim: 1));
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), plain), 0, 1e-6);

        adapter.Trainable[0].Parameter.zero_();   // what PEFT's init_weights "zero" starts from is not the base model
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), plain), 1e-3, 10);
    }

    [Fact]
    public void A_prefix_that_peft_trained_through_a_projection_is_read_as_what_came_out_of_it()
    {
        using var scope = NewDisposeScope();
        var folder = Saved();
        var path = Path.Combine(folder, "adapter_config.json");
        var ids = TinyModel.Batch().Ids;
        using var model = TinyModel.Load();
        Tensor expected;
        using (AdapterConfig.Saved(folder).Attach(model, seed: 0))
        {
            expected = TinyModel.Logits(model, ids);
        }

        var fields = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        fields["prefix_projection"] = true;
        fields["encoder_hidden_size"] = 512;
        fields["init_weights"] = "zero";
        File.WriteAllText(path, fields.ToJsonString());
        using var adapter = AdapterConfig.Saved(folder).Attach(model, seed: 0);

        Assert.True(TinyModel.Logits(model, ids).equal(expected).all().item<bool>());
    }
}
