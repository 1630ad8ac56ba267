using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Random numbers as a function of the run's seed and the step, so that a resumed run draws what an unbroken one would.</summary>
public static class Seed
{
    /// <summary>Seeds torch's generators (CPU and CUDA) for one optimizer step.</summary>
    /// <remarks>
    /// Dropout of step s depends on (seed, s) alone. That is all the generator state there is: a checkpoint needs none, an evaluation
    /// between two steps changes nothing, and the rule is the same on every device.
    /// </remarks>
    public static void Torch(int seed, int step)
    {
        // The generator is torch's own; disposing this handle frees the handle only.
        using var generator = manual_seed(unchecked((long)Mix(seed, step)));
    }

    /// <summary>64 well-mixed bits of two numbers.</summary>
    /// <remarks>SplitMix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".</remarks>
    public static ulong Mix(int seed, int stream)
    {
        unchecked
        {
            var z = (((ulong)(uint)seed << 32) | (uint)stream) + 0x9E3779B97F4A7C15;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            return z ^ (z >> 31);
        }
    }
}
