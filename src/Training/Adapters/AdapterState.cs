using System.Text.Json;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>What an adapter remembers between steps, besides the tensors that it saves: importance scores, a budget of ranks.</summary>
/// <param name="Tensors">Owned by the adapter.</param>
/// <param name="Record">Anything else, as a JSON object; null: nothing.</param>
public sealed record AdapterState(IReadOnlyList<(string Name, Tensor Tensor)> Tensors, JsonElement? Record)
{
    /// <summary>Of an adapter that is its trained tensors and nothing else.</summary>
    public static AdapterState None { get; } = new([], null);
}
