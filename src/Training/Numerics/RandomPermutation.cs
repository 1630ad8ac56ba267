namespace TrainingService.Training.Numerics;

/// <summary>The first entries of the permutation that torch's <c>randperm</c> draws on a CPU for a seed, without the memory of the whole.</summary>
/// <remarks>
/// A shuffle by exchanges from the front, with one 32-bit number of the Mersenne Twister for each place (Matsumoto and Nishimura 1998). Places
/// that no exchange has reached hold their own number, so only the others are kept.
/// </remarks>
internal static class RandomPermutation
{
    /// <summary>From this many items on, torch draws 64 bits for each.</summary>
    public const long TooMany = uint.MaxValue / 20;

    /// <param name="count">At most <paramref name="items"/>.</param>
    /// <param name="items">Below <see cref="TooMany"/>.</param>
    public static long[] First(int count, long items, uint seed)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(items, TooMany);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, items);
        var twister = new Twister(seed);
        var moved = new Dictionary<long, long>();
        var first = new long[count];
        for (var place = 0L; place < count; place++)
        {
            // Nothing is left to exchange the last item with, and torch draws no number for it.
            var other = place == items - 1 ? place : place + twister.Next() % (items - place);
            first[place] = moved.GetValueOrDefault(other, other);
            moved[other] = moved.GetValueOrDefault(place, place);
        }

        return first;
    }

    private sealed class Twister
    {
        private const int Size = 624;
        private const int Shift = 397;

        private readonly uint[] _state = new uint[Size];
        private int _used = Size;

        public Twister(uint seed)
        {
            _state[0] = seed;
            for (var i = 1; i < Size; i++)
            {
                _state[i] = 1812433253 * (_state[i - 1] ^ (_state[i - 1] >> 30)) + (uint)i;
            }
        }

        public uint Next()
        {
            if (_used == Size)
            {
                Refill();
            }

            var y = _state[_used++];
            y ^= y >> 11;
            y ^= (y << 7) & 0x9D2C5680;
            y ^= (y << 15) & 0xEFC60000;
            return y ^ (y >> 18);
        }

        private void Refill()
        {
            for (var i = 0; i < Size; i++)
            {
                var y = (_state[i] & 0x80000000) | (_state[(i + 1) % Size] & 0x7FFFFFFF);
                _state[i] = _state[(i + Shift) % Size] ^ (y >> 1) ^ ((y & 1) * 0x9908B0DF);
            }

            _used = 0;
        }
    }
}
