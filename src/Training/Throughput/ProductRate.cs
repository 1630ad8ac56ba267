using System.Diagnostics;
using static TorchSharp.torch;

namespace TrainingService.Training.Throughput;

/// <summary>How fast libtorch multiplies two large matrices on this machine: the ceiling of a training step.</summary>
public static class ProductRate
{
    /// <summary>Width of the matrices: their products are bound by arithmetic, not by memory.</summary>
    public const int Size = 2048;

    /// <summary>Operations per second of one product of two square matrices, the median of as many as fit into <paramref name="budget"/>.</summary>
    /// <remarks>The result is written in place, so that the allocator has no part in it.</remarks>
    /// <param name="size">Rows and columns.</param>
    public static double Measure(ScalarType dtype, Device device, TimeSpan budget, int size = Size)
    {
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        var left = Filled(size, 1).to(dtype, device);
        var right = Filled(size, 2).to(dtype, device);
        var product = zeros(size, size, dtype: dtype, device: device);
        void Multiply()
        {
            product.addmm_(left, right, beta: 0, alpha: 1);
            if (device.type == TorchSharp.DeviceType.CUDA)
            {
                cuda.synchronize();
            }
        }

        Multiply();   // the first one plans, packs and wakes threads
        var seconds = new List<double>();
        for (var clock = Stopwatch.StartNew(); seconds.Count < 3 || clock.Elapsed < budget;)
        {
            var started = Stopwatch.GetTimestamp();
            Multiply();
            seconds.Add(Stopwatch.GetElapsedTime(started).TotalSeconds);
        }

        return 2.0 * size * size * size / Median.Of(seconds);
    }

    /// <summary>Numbers of no pattern, between -1 and 1.</summary>
    private static Tensor Filled(int size, int seed) => (arange((long)size * size, dtype: ScalarType.Float32) * seed).sin_().reshape(size, size);
}
