using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Text;
using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Random numbers that follow from a key and their place alone: the same on every device and in every version of torch.</summary>
/// <remarks>SplitMix64 (Steele, Lea and Flood 2014) at place i, of which the upper 24 bits make a number of float32 in [-1, 1).</remarks>
internal static class CounterRandom
{
    private const ulong Step = 0x9E3779B97F4A7C15;
    private const ulong First = 0xBF58476D1CE4E5B9;
    private const ulong Second = 0x94D049BB133111EB;

    /// <summary>FNV-1a, 64 bits, of the text's UTF-8.</summary>
    public static ulong Key(string text) =>
        Encoding.UTF8.GetBytes(text).Aggregate(0xCBF29CE484222325, (hash, letter) => (hash ^ letter) * 0x100000001B3);

    /// <summary>The numbers at places <paramref name="first"/> and following.</summary>
    /// <returns>[count], float32, in the caller's dispose scope.</returns>
    public static Tensor Uniform(ulong key, long first, long count, Device device)
    {
        if (device.type != TorchSharp.DeviceType.CPU)
        {
            return OnDevice(key, first, count, device);
        }

        var values = empty(count, dtype: ScalarType.Float32, device: CPU);
        var numbers = MemoryMarshal.Cast<byte, float>(values.bytes);
        var z = unchecked(key + (ulong)first * Step);
        var done = Vector256.IsHardwareAccelerated ? FillWide(numbers, z) : 0;
        z = unchecked(z + (ulong)done * Step);
        for (var i = done; i < numbers.Length; i++)
        {
            z = unchecked(z + Step);
            numbers[i] = (int)(Mixed(z) >> 40) * (1f / 8_388_608) - 1;
        }

        return values;
    }

    /// <summary>As many numbers as fill whole vectors: the products of 64 bits are what takes the time, and a vector makes four at once.</summary>
    private static int FillWide(Span<float> numbers, ulong start)
    {
        var z = Vector256.Create(start) + Vector256.Create(1UL, 2, 3, 4) * Step;
        var ahead = Vector256.Create(unchecked(4 * Step));
        var done = 0;
        for (; done + 8 <= numbers.Length; done += 8)
        {
            var low = Mixed(z) >>> 40;
            z += ahead;
            var upper = Vector256.Narrow(low, Mixed(z) >>> 40).AsInt32();
            z += ahead;
            (Vector256.ConvertToSingle(upper) * (1f / 8_388_608) - Vector256<float>.One).CopyTo(numbers[done..]);
        }

        return done;
    }

    private static Vector256<ulong> Mixed(Vector256<ulong> z)
    {
        z = (z ^ (z >>> 30)) * First;
        z = (z ^ (z >>> 27)) * Second;
        return z ^ (z >>> 31);
    }

    /// <summary>The same by operations on tensors: nothing is copied to a GPU.</summary>
    internal static Tensor OnDevice(ulong key, long first, long count, Device device)
    {
        using var scope = NewDisposeScope();
        var z = arange(first + 1, first + count + 1, dtype: ScalarType.Int64, device: device);
        z = Spread(z.mul_(Signed(Step)).add_(Signed(key)), 30).mul_(Signed(First));
        z = Spread(Spread(z, 27).mul_(Signed(Second)), 31);
        return Shifted(z, 40).to_type(ScalarType.Float32).mul_(1f / 8_388_608).sub_(1).MoveToOuterDisposeScope();
    }

    private static ulong Mixed(ulong z)
    {
        unchecked
        {
            z = (z ^ (z >> 30)) * First;
            z = (z ^ (z >> 27)) * Second;
            return z ^ (z >> 31);
        }
    }

    private static Tensor Spread(Tensor z, int bits) => z.bitwise_xor(Shifted(z, bits));

    // A shift of signed numbers draws the sign in from the left; the mask takes it away.
    private static Tensor Shifted(Tensor z, int bits) => z
        .bitwise_right_shift(tensor((long)bits, device: z.device))
        .bitwise_and(tensor((1L << (64 - bits)) - 1, device: z.device));

    private static long Signed(ulong value) => unchecked((long)value);
}
