using TorchSharp;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Neighbouring groups of a flat buffer that are updated alike.</summary>
/// <param name="Index">Its place among the stretches of an optimizer.</param>
/// <param name="RateFactor">Its learning rate is the run's times this.</param>
/// <param name="Decays">Whether the weight decay applies.</param>
internal sealed record Stretch(FlatPart Part, int Index, IReadOnlyList<FlatGroup> Groups, double RateFactor, bool Decays)
{
    /// <summary>Numbers that an update takes at once: on a CPU few enough to stay in its cache from one operation to the next, on a GPU enough to keep it busy.</summary>
    private const long ChunkOnCpu = 1 << 17;
    private const long ChunkOnGpu = 1 << 26;

    /// <summary>Numbers in a batch of matrices.</summary>
    private const long LargestBatch = 1 << 22;

    public long Offset => Groups[0].Offset;

    public long Length => Groups[^1].Offset + Groups[^1].Length - Offset;

    /// <summary>Cuts a part where two neighbouring groups are to be treated differently.</summary>
    public static IEnumerable<Stretch> Cut(FlatPart part, Func<FlatGroup, (double RateFactor, bool Decays, object? Kind)> treatment)
    {
        var groups = new List<FlatGroup>();
        foreach (var group in part.Groups)
        {
            if (groups.Count > 0 && treatment(groups[0]) != treatment(group))
            {
                yield return Of(groups);
                groups = [];
            }

            groups.Add(group);
        }

        if (groups.Count > 0)
        {
            yield return Of(groups);
        }

        Stretch Of(List<FlatGroup> cut) => new(part, 0, cut, treatment(cut[0]).RateFactor, treatment(cut[0]).Decays);
    }

    /// <summary>Goes through the stretch in chunks of whole blocks, each in a dispose scope of its own.</summary>
    public void ForEachChunk(Action<Chunk> update)
    {
        var step = Part.Masters.device_type == DeviceType.CPU ? ChunkOnCpu : ChunkOnGpu;
        for (var start = 0L; start < Length; start += step)
        {
            using var scope = NewDisposeScope();
            var length = Math.Min(step, Length - start);
            update(new(
                Part.Masters.narrow(0, Offset + start, length),
                Part.Gradients.narrow(0, Offset + start, length).to_type(ScalarType.Float32),
                start,
                length));
        }
    }

    /// <summary>Goes through the tensors of a stretch of one group in batches, each in a dispose scope of its own.</summary>
    /// <param name="update">Gets the first tensor and how many there are; their values, float32, [count, shape…], and their gradients.</param>
    public void ForEachBatch(Action<int, int, Tensor, Tensor> update)
    {
        // As many at once as keep the machine busy; a large one does so by itself, and the intermediate results are as large as the batch.
        var group = Groups.Single();
        var batch = (int)Math.Clamp(LargestBatch / group.Stride, 1, group.Members.Count);
        for (var first = 0; first < group.Members.Count; first += batch)
        {
            using var scope = NewDisposeScope();
            var count = Math.Min(batch, group.Members.Count - first);
            update(first, count, group.Stack(Part.Masters, first, count), group.Stack(Part.Gradients, first, count).to_type(ScalarType.Float32));
        }
    }

    /// <summary>The same tensors of a buffer that has one number per number of the stretch, [count, shape…].</summary>
    public Tensor Stack(Tensor buffer, int first, int count) => (Groups.Single() with { Offset = 0 }).Stack(buffer, first, count);
}

/// <summary>Some neighbouring numbers of a <see cref="Stretch"/>.</summary>
/// <param name="Values">Float32, [Length]: the master values themselves.</param>
/// <param name="Gradients">Float32, [Length]: the gradients, or a copy where they are not float32.</param>
/// <param name="Start">Counted from the beginning of the stretch.</param>
internal readonly record struct Chunk(Tensor Values, Tensor Gradients, long Start, long Length)
{
    /// <summary>The same numbers of a buffer that has one per number of the stretch.</summary>
    public Tensor Of(Tensor buffer) => buffer.narrow(0, Start, Length);
}
