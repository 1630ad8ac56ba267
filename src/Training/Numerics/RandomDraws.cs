using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>A place in torch's stream of random numbers, to which a computation can return.</summary>
internal static class RandomDraws
{
    /// <summary>Marks the present place.</summary>
    /// <remarks>
    /// The state of a GPU's generator cannot be read from here. There, the stream is begun anew from a number of the CPU's generator, which
    /// makes the dropout of a layer that is computed twice another than that of one which is not.
    /// </remarks>
    /// <returns>State of the CPU's generator, uint8, or a seed, int64 scalar; in the caller's dispose scope.</returns>
    public static Tensor Mark(Device device)
    {
        if (device.type != TorchSharp.DeviceType.CUDA)
        {
            return random.get_rng_state();
        }

        var seed = randint(0, long.MaxValue, 1, dtype: ScalarType.Int64, device: CPU);
        cuda.manual_seed(seed.item<long>());
        return seed;
    }

    /// <summary>Draws again what followed on a mark.</summary>
    /// <returns>Disposing it goes back to where the stream was.</returns>
    public static IDisposable From(Tensor mark)
    {
        if (mark.dtype == ScalarType.Int64)
        {
            cuda.manual_seed(mark.item<long>());
            return new Return(null);
        }

        var present = random.get_rng_state();
        random.set_rng_state(mark);
        return new Return(present);
    }

    private sealed class Return(Tensor? present) : IDisposable
    {
        public void Dispose()
        {
            if (present is not null)
            {
                random.set_rng_state(present);
            }
        }
    }
}
