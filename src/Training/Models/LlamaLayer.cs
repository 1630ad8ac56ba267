using TorchSharp.Modules;
using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>What the attention of every layer shares in one pass.</summary>
/// <param name="Cos">[B, 1, T, K], its two halves equal.</param>
/// <param name="Sin">[B, 1, T, K/2].</param>
/// <param name="Mask">[B, 1, T, S], bool, or in the weights' format what is added to scores; null for plain causal attention.</param>
/// <param name="Past">Keys and values of a layer's virtual tokens; null: none, or the cache has them.</param>
/// <param name="Cache">Keys and values of earlier tokens; null outside generation.</param>
internal sealed record AttentionView(
    Tensor Cos, Tensor Sin, Tensor? Mask, Func<int, (Tensor Keys, Tensor Values)>? Past, KeyValueCache? Cache);

/// <summary>One layer: h + attention(norm(h)), then + gated block(norm(·)).</summary>
/// <remarks>
/// Grouped-query attention: Ainslie et al. 2023, arXiv:2305.13245, §2.2. Gated SiLU block: Shazeer 2020, arXiv:2002.05202, eq. 6.
/// </remarks>
internal sealed class LlamaLayer : nn.Module
{
    private readonly LlamaConfig _config;
    private readonly int _index;
    private readonly RmsNorm _inputNorm;
    private readonly RmsNorm _postAttentionNorm;
    private readonly LinearSlot _query, _key, _value, _output, _gate, _up, _down;

    /// <param name="makeLinear">Makes a linear layer of the model by its name.</param>
    /// <param name="slots">Gets the layer's slots, in the order of the network.</param>
    public LlamaLayer(
        LlamaConfig config, int index, IReadOnlyDictionary<string, Parameter> weights, Func<string, nn.Module<Tensor, Tensor>> makeLinear,
        List<LinearSlot> slots)
        : base(nameof(LlamaLayer))
    {
        _config = config;
        _index = index;
        _inputNorm = Norm("input_layernorm");
        _query = Slot("self_attn", "q_proj");
        _key = Slot("self_attn", "k_proj");
        _value = Slot("self_attn", "v_proj");
        _output = Slot("self_attn", "o_proj");
        _postAttentionNorm = Norm("post_attention_layernorm");
        _gate = Slot("mlp", "gate_proj");
        _up = Slot("mlp", "up_proj");
        _down = Slot("mlp", "down_proj");

        RmsNorm Norm(string name)
        {
            var norm = new RmsNorm(weights[$"model.layers.{index}.{name}.weight"], config.NormEpsilon);
            register_module(name, norm);
            return norm;
        }

        LinearSlot Slot(string part, string name)
        {
            var path = $"model.layers.{index}.{part}.{name}";
            var layer = makeLinear(path);
            register_module(name, layer);
            var slot = new LinearSlot(path, this, name, layer);
            slots.Add(slot);
            return slot;
        }
    }

    /// <summary>[B, T, D] to [B, T, D], in the caller's dispose scope.</summary>
    public Tensor Run(Tensor hidden, AttentionView view)
    {
        using var scope = NewDisposeScope();
        var attended = hidden + Attend(_inputNorm.call(hidden), view);
        return (attended + Feed(_postAttentionNorm.call(attended))).MoveToOuterDisposeScope();
    }

    private Tensor Feed(Tensor input)
    {
        var wide = LinearSlot.Run(input, _gate, _up);   // [B, T, M] twice
        return _down.Run(GatedSilu.Run(wide[0], wide[1]));
    }

    private Tensor Attend(Tensor input, AttentionView view)
    {
        var (batch, length) = (input.shape[0], input.shape[1]);
        var projected = LinearSlot.Run(input, _query, _key, _value);
        var queries = Rope.Turn(Heads(projected[0]), view.Cos, view.Sin);   // [B, H, T, K]
        var keys = Rope.Turn(Heads(projected[1]), view.Cos, view.Sin);      // [B, G, T, K]
        var values = Heads(projected[2]);                                   // [B, G, T, K]
        if (view.Past is { } past)
        {
            var before = past(_index);                                      // [G, P, K] each
            (keys, values) = (Behind(before.Keys, keys), Behind(before.Values, values));   // [B, G, P + T, K]
        }

        if (view.Cache is { } cache)
        {
            (keys, values) = cache.Append(_index, keys, values);                 // [B, G, S, K]
        }

        // One new token sees all that is cached; without a mask, only a whole sequence is causal.
        var isCausal = view.Mask is null && length > 1;
        var attended = nn.functional.scaled_dot_product_attention(
            queries, Repeat(keys), Repeat(values), view.Mask, is_casual: isCausal);
        return _output.Run(attended.transpose(1, 2).reshape(batch, length, (long)_config.HeadCount * _config.HeadWidth));

        Tensor Behind(Tensor before, Tensor own) => cat([before.to(own.dtype).expand(batch, -1, -1, -1), own], dim: 2);

        Tensor Heads(Tensor rows) => rows.view(batch, length, -1, _config.HeadWidth).transpose(1, 2);
    }

    /// <summary>Gives each query head its group's keys or values: [B, G, S, K] to [B, H, S, K].</summary>
    private Tensor Repeat(Tensor groups)
    {
        var times = _config.HeadCount / _config.KeyValueHeadCount;
        return times == 1 ? groups : groups.repeat_interleave(times, dim: 1);
    }
}
