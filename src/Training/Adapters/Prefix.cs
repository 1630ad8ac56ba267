using System.Text.Json.Nodes;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Prefix tuning: in every layer, trained keys and values stand before those of each row.</summary>
/// <remarks>
/// Li and Liang 2021, arXiv:2101.00190, §4.2; PEFT 0.20.0, <c>tuners/prefix_tuning</c>. The keys are used as they are, as those of tokens that a
/// cache has already turned. Trained directly, without the network that the paper puts between a smaller table and the keys and values.
/// Does not start at the base model: the attention of each token spends a part on the prefix, even where its values are zero.
/// </remarks>
[Method(
    "Prefix tuning",
    "In every layer, some trained keys and values stand before those of each row; no weight changes.",
    "Prompt tuning's uses with more to train: the prefix steers every layer, and costs no positions of computation.",
    Paper = "Li and Liang 2021, Prefix-Tuning: Optimizing Continuous Prompts for Generation",
    Arxiv = "2101.00190",
    Parameters = "num_virtual_tokens·layers·2·key and value heads·head width")]
[PeftType("PREFIX_TUNING")]
[PeftConstant("num_transformer_submodules", "1")]
public sealed record PrefixConfig : VirtualTokensConfig
{
    internal override long WidthOf(ModelConfig model) => 2L * model.LayerCount * model.KeyValueHeadCount * model.HeadWidth;

    /// <inheritdoc/>
    /// <remarks>What the base model computes of the tokens (§7.4 of the paper): training starts as if they stood before the row.</remarks>
    internal override Tensor TableOf(CausalLm model, Tensor ids)
    {
        using var scope = NewDisposeScope();
        using var cache = new KeyValueCache(model.Config.LayerCount);
        var row = ids.unsqueeze(0);
        model.Continue(row, arange(ids.shape[0], ScalarType.Int64, model.Device).unsqueeze(0), mask: null, cache);
        var layers = Enumerable.Range(0, model.Config.LayerCount).Select(cache.Of)
            .Select(layer => stack([layer.Keys.squeeze(0), layer.Values.squeeze(0)]).permute(2, 0, 1, 3));   // [P, 2, G, K]
        return stack([.. layers], dim: 1).reshape(ids.shape[0], -1).MoveToOuterDisposeScope();
    }

    internal override VirtualTokens Seen(ModelConfig model, Tensor table) => new(NumVirtualTokens)
    {
        Past = layer =>
        {
            using var scope = NewDisposeScope();

            // Of a token: layer after layer its keys, then its values, each head by head.
            var both = table.view(NumVirtualTokens, model.LayerCount, 2, model.KeyValueHeadCount, model.HeadWidth).select(1, layer).permute(1, 2, 0, 3);
            return (both[0].MoveToOuterDisposeScope(), both[1].MoveToOuterDisposeScope());   // [G, P, K]
        },
    };

    internal override JsonObject PeftShape(ModelConfig model, string baseModel) => new()
    {
        ["encoder_hidden_size"] = model.KeyValueHeadCount * model.HeadWidth,
        ["init_weights"] = null,
        ["modules_to_save"] = null,
        ["num_attention_heads"] = model.KeyValueHeadCount,
        ["num_layers"] = model.LayerCount,
        ["prefix_projection"] = false,
        ["token_dim"] = model.KeyValueHeadCount * model.HeadWidth,
    };

    /// <inheritdoc/>
    /// <remarks>A prefix that PEFT trained through a projection is saved as what comes out of it, so it is read like any other.</remarks>
    internal override void FromPeft(JsonObject fields, JsonObject members)
    {
        foreach (var read in (string[])["encoder_hidden_size", "init_weights", "num_attention_heads", "num_layers", "prefix_projection", "token_dim"])
        {
            fields.Remove(read);
        }
    }
}
