namespace TrainingService.Training.Data;

/// <summary>Generator of every order in the data: small, documented, and the same on all platforms and versions of .NET.</summary>
/// <remarks>Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"; the constants are those of its Java version.</remarks>
internal struct SplitMix64(ulong state)
{
    private const ulong Golden = 0x9E3779B97F4A7C15;
    private ulong _state = state;

    /// <summary>The generator of one purpose: equal (seed, stream) give equal numbers, and streams of one seed are unrelated.</summary>
    public static SplitMix64 For(int seed, int stream)
    {
        var mixer = new SplitMix64((ulong)(uint)seed << 32 | (uint)stream);
        return new(mixer.Next());
    }

    public ulong Next()
    {
        _state += Golden;
        var z = _state;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }

    /// <summary>A number from 0 to <paramref name="bound"/> - 1. Its bias, below bound / 2^64, is not worth a rejection loop.</summary>
    public int Below(int bound) => (int)Math.BigMul(Next(), (ulong)bound, out _);

    /// <summary>0 … <paramref name="count"/> - 1 in random order (Fisher and Yates, from the end).</summary>
    public int[] Permutation(int count)
    {
        var order = new int[count];
        for (var i = 0; i < count; i++)
        {
            order[i] = i;
        }

        for (var i = count - 1; i > 0; i--)
        {
            var j = Below(i + 1);
            (order[i], order[j]) = (order[j], order[i]);
        }

        return order;
    }
}
