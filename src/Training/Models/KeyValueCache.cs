using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>Keys and values of the tokens that a generation has already seen, for each layer.</summary>
/// <remarks>It owns its tensors, because they outlive the step that made them.</remarks>
internal sealed class KeyValueCache(int layers) : IDisposable
{
    private readonly (Tensor Keys, Tensor Values)?[] _layers = new (Tensor, Tensor)?[layers];

    /// <summary>Tokens that are cached.</summary>
    public long Length => _layers[^1] is { } last ? last.Keys.shape[2] : 0;

    /// <summary>Appends new keys and values [B, G, T, K] and returns all of them, [B, G, cached + T, K], which stay the cache's own.</summary>
    public (Tensor Keys, Tensor Values) Append(int layer, Tensor keys, Tensor values)
    {
        var old = _layers[layer];
        var all = old is null
            ? (keys.alias(), values.alias())
            : (cat([old.Value.Keys, keys], dim: 2), cat([old.Value.Values, values], dim: 2));
        old?.Keys.Dispose();
        old?.Values.Dispose();
        _layers[layer] = (all.Item1.DetachFromDisposeScope(), all.Item2.DetachFromDisposeScope());
        return all;
    }

    /// <summary>Keys and values of a layer that has seen tokens, [B, G, cached, K] each; the cache's own.</summary>
    public (Tensor Keys, Tensor Values) Of(int layer) => _layers[layer]!.Value;

    public void Dispose()
    {
        foreach (var layer in _layers)
        {
            layer?.Keys.Dispose();
            layer?.Values.Dispose();
        }
    }
}
