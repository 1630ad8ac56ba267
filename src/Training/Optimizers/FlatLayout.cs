using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Tensors of one shape and one role, at equal distances in a flat buffer.</summary>
/// <param name="Offset">Where the first one begins.</param>
/// <param name="Stride">From the beginning of one to that of the next; what is left after a tensor is zero.</param>
/// <param name="Members">Places of the tensors in the list that was laid out.</param>
public sealed record FlatGroup(IReadOnlyList<long> Shape, TensorRole Role, long Offset, long Stride, IReadOnlyList<int> Members)
{
    /// <summary>Numbers in one tensor.</summary>
    public long Size => Shape.Aggregate(1L, (product, size) => product * size);

    /// <summary>Numbers of the buffer that the group takes, gaps included.</summary>
    public long Length => Members.Count * Stride;

    /// <summary>Whether it starts and ends on a block of <see cref="FlatLayout.Block"/> numbers, and so does each of its tensors.</summary>
    public bool IsBlocked => Size >= FlatLayout.BlockedFrom;

    /// <summary>The tensors stacked, [members, shape…]: a view of <paramref name="buffer"/>, in the caller's dispose scope.</summary>
    public Tensor Stack(Tensor buffer) => Stack(buffer, 0, Members.Count);

    /// <summary>Some of the tensors stacked, [count, shape…].</summary>
    public Tensor Stack(Tensor buffer, int first, int count) =>
        buffer.narrow(0, Offset + first * Stride, count * Stride).view(count, Stride).narrow(1, 0, Size).view([count, .. Shape]);
}

/// <summary>How tensors of any shapes are laid end to end in one buffer.</summary>
/// <remarks>
/// Equal tensors stand side by side, so that what needs their shapes can take all of them in one batch, without a copy. Large ones come first,
/// and each starts on a block: whatever is kept per block never mixes two tensors.
/// </remarks>
public static class FlatLayout
{
    /// <summary>Numbers in a block.</summary>
    public const int Block = DynamicCode.Block;

    /// <summary>Numbers from which on a tensor starts on a block. Of a smaller one too much could be gap.</summary>
    public const int BlockedFrom = 4096;

    /// <summary>Places of the tensors, groups in the order of their first tensor.</summary>
    public static IReadOnlyList<FlatGroup> Of(IReadOnlyList<(IReadOnlyList<long> Shape, TensorRole Role)> tensors)
    {
        var offset = 0L;
        var groups = new List<FlatGroup>();
        foreach (var group in tensors
            .Select((tensor, index) => new FlatGroup(tensor.Shape, tensor.Role, 0, 0, [index]))
            .GroupBy(tensor => (tensor.Role, Shape: string.Join(',', tensor.Shape)))
            .OrderBy(group => group.First().IsBlocked ? 0 : 1))
        {
            var first = group.First();
            var stride = first.IsBlocked ? (first.Size + Block - 1) / Block * Block : first.Size;
            groups.Add(first with { Offset = offset, Stride = stride, Members = [.. group.SelectMany(tensor => tensor.Members)] });
            offset += groups[^1].Length;
        }

        return groups;
    }
}
