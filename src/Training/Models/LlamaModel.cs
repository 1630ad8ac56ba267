using TorchSharp.Modules;
using TrainingService.Training.Numerics;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>A decoder of the Llama family.</summary>
internal sealed class LlamaModel : CausalLm
{
    private readonly Parameter _embedding;   // [V, D]
    private readonly Parameter? _head;       // [V, D]; the embedding itself when tied, nothing where sequences alone are scored
    private readonly LlamaLayer[] _layers;
    private readonly RmsNorm _norm;
    private readonly Rope _rope;
    private readonly List<LinearSlot> _linears = [];

    public LlamaModel(LlamaConfig config, WeightSource source, QuantizationConfig? quantization = null)
        : base(config, config.Architecture, source, quantization)
    {
        var weights = NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter, StringComparer.Ordinal);
        _embedding = weights["model.embed_tokens.weight"];
        _head = config.TiesHead ? _embedding : weights.GetValueOrDefault("lm_head.weight");
        _norm = new(weights["model.norm.weight"], config.NormEpsilon);
        _layers = [.. Enumerable.Range(0, config.LayerCount).Select(index => new LlamaLayer(config, index, weights, MakeLinear, _linears))];
        _rope = new(config.Rope.Frequencies(config.HeadWidth), _embedding.device);
        register_module("norm", _norm);
        for (var index = 0; index < _layers.Length; index++)
        {
            register_module($"layer_{index}", _layers[index]);
        }
    }

    public override IReadOnlyList<LinearSlot> Linears => _linears;

    public override Tensor HiddenStates(Tensor inputIds, Tensor positions, Tensor? segments = null)
    {
        using var scope = NewDisposeScope();
        return Run(inputIds, positions, segments is null ? null : SegmentMask(segments), cache: null).MoveToOuterDisposeScope();
    }

    public override Parameter HeadWeight =>
        _head ?? throw new InvalidOperationException("The model scores sequences and has no output head.");

    /// <summary>What each token of packed rows sees.</summary>
    /// <param name="segments">[B, T]; 0 on padding.</param>
    /// <returns>[B, 1, T, T], bool: earlier tokens of the same segment, and itself, so that no row of the softmax is empty.</returns>
    internal static Tensor SegmentMask(Tensor segments)
    {
        using var scope = NewDisposeScope();
        var length = segments.shape[1];
        var causal = ones([length, length], ScalarType.Bool, segments.device).tril();
        var same = segments.unsqueeze(2).eq(segments.unsqueeze(1)).logical_and(segments.ne(0).unsqueeze(2)).logical_and(causal);
        return same.logical_or(eye(length, dtype: ScalarType.Bool, device: segments.device)).unsqueeze(1).MoveToOuterDisposeScope();
    }

    /// <summary>A bool mask as what is added to scores: 0 where it is true, else -∞. The attention would make it anew in every layer.</summary>
    private Tensor Additive(Tensor mask) =>
        zeros(mask.shape, dtype: DType, device: mask.device).masked_fill_(mask.logical_not(), double.NegativeInfinity);

    internal override Tensor Continue(Tensor inputIds, Tensor positions, Tensor? mask, KeyValueCache cache)
    {
        using var scope = NewDisposeScope();
        return Run(inputIds, positions, mask, cache).MoveToOuterDisposeScope();
    }

    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        if (disposing)
        {
            _rope.Dispose();
        }
    }

    /// <param name="mask">[B, 1, T, S], bool; null for causal attention.</param>
    /// <param name="cache">Null: each row is seen whole.</param>
    private Tensor Run(Tensor inputIds, Tensor positions, Tensor? mask, KeyValueCache? cache)
    {
        var (batch, tokens) = (inputIds.shape[0], inputIds.shape[1]);
        var cached = cache?.Length ?? 0;

        // Columns of padding make the cache longer than any position, so what follows the prompts is not measured by it.
        var length = cached == 0 ? (VirtualTokens?.Count ?? 0) + tokens : Math.Min(cached + tokens, Config.MaxPositions);
        if (length > Config.MaxPositions)
        {
            throw TrainingException.InvalidSpec(
                $"A sequence of {tokens} tokens is longer than the model's max_position_embeddings, {Config.MaxPositions}"
                + (VirtualTokens is null ? "; " : $", less its {VirtualTokens.Count} virtual tokens; ")
                + $"set data.max_length to at most {MostTokens}.", "data.max_length");
        }

        var hidden = _embedding.index_select(0, inputIds.reshape(-1)).view(batch, tokens, -1);   // [B, T, D]
        if (VirtualTokens is { } before)
        {
            (hidden, positions, mask) = before.Precede(hidden, positions, mask, isFirst: cached == 0);
        }

        var (cos, sin) = _rope.At(positions, length);
        var view = new AttentionView(
            cos, sin, cache is null && mask is not null ? Additive(mask) : mask, cached == 0 ? VirtualTokens?.Past : null, cache);
        for (var index = 0; index < _layers.Length; index++)
        {
            hidden = Recomputes(index, hidden, view) ? RunTwice(_layers[index], hidden, view) : _layers[index].Run(hidden, view);
        }

        var behind = hidden.shape[1] - tokens;   // what was predicted after virtual tokens is nobody's
        return _norm.call(behind == 0 ? hidden : hidden.narrow(1, behind, tokens));
    }

    /// <summary>Below the first layer that trains no graph is built, so there is nothing to save.</summary>
    private bool Recomputes(int index, Tensor hidden, AttentionView view) =>
        Checkpointing.Recomputes(index) && is_grad_enabled()
        && (hidden.requires_grad || view.Past is not null || _layers[index].parameters().Any(parameter => parameter.requires_grad));

    private static Tensor RunTwice(LlamaLayer layer, Tensor hidden, AttentionView view)
    {
        var past = view.Past;
        Tensor[] beside = view.Mask is { } mask ? [view.Cos, view.Sin, mask] : [view.Cos, view.Sin];
        return Recomputed.Run(
            (input, shared) => layer.Run(input, new(shared[0], shared[1], shared.Count > 2 ? shared[2] : null, past, Cache: null)),
            hidden, beside, BackwardPass.OfThisThread);
    }
}
