using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>One remembered number per number of a stretch.</summary>
internal interface IMoments
{
    /// <summary>Float32, [chunk length]; in the dispose scope of the chunk.</summary>
    Tensor Read(Chunk chunk);

    /// <summary>Keeps what <see cref="Read"/> gave, after it was changed in place.</summary>
    void Write(Chunk chunk, Tensor moments);
}

/// <summary>Moments kept in float32.</summary>
internal sealed class FloatMoments(Optimizer owner, string name, Stretch stretch) : IMoments
{
    private readonly Tensor _moments = owner.Remember(name, stretch, [stretch.Length]);

    public Tensor Read(Chunk chunk) => chunk.Of(_moments);

    public void Write(Chunk chunk, Tensor moments)
    {
        // What was read is a view.
    }
}

/// <summary>Moments kept as bytes; float32 is only ever the chunk at hand.</summary>
internal sealed class ByteMoments(Optimizer owner, string name, Stretch stretch, bool signed) : IMoments
{
    private readonly DynamicCode _code = owner.Own(new DynamicCode(signed, stretch.Part.Masters.device));
    private readonly Tensor _codes = owner.Remember(name, stretch, [stretch.Length], ScalarType.Byte);
    private readonly Tensor _largest = owner.Remember(name + "_absmax", stretch, [stretch.Length / FlatLayout.Block]);

    public Tensor Read(Chunk chunk) => _code.Read(chunk.Of(_codes), BlocksOf(chunk));

    public void Write(Chunk chunk, Tensor moments) => _code.Write(moments, chunk.Of(_codes), BlocksOf(chunk));

    private Tensor BlocksOf(Chunk chunk) => _largest.narrow(0, chunk.Start / FlatLayout.Block, chunk.Length / FlatLayout.Block);
}
