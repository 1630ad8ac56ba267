using TrainingService.Training.Devices;
using TrainingService.Training.Throughput;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Devices;

/// <summary>What can be known of the GPU path without a GPU.</summary>
public sealed class CudaTests
{
    [Theory]
    [InlineData("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80.00 GiB of which 1.02 GiB is free.", 85_899_345_920)]
    [InlineData("CUDA out of memory. Tried to allocate 64.00 MiB. GPU 3 has a total capacty of 512.00 MiB of which 0 bytes is free.", 536_870_912L)]
    [InlineData("CUDA error: out of memory", null)]
    [InlineData("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", null)]
    public void The_capacity_of_a_GPU_is_read_from_the_message(string message, long? bytes)
    {
        Assert.Equal(bytes, CudaMessages.CapacityIn(message));
        Assert.True(CudaMessages.SpeakOfGpu(message));
        Assert.True(RunFailures.SpeaksOfMemory(message));
    }

    [Fact]
    public void A_full_GPU_is_named_with_its_capacity_and_the_estimate()
    {
        var estimate = Estimate.For(Spec.SpecModels.Spec(""), Spec.SpecModels.Stories260K, onGpu: true);
        var error = new InvalidOperationException(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80.00 GiB of which 1.02 GiB is free.");

        var failure = RunFailures.OutOfMemory(estimate, error);

        Assert.Equal(FailureCode.OutOfMemory, failure.Code);
        Assert.Contains("are needed (estimated) and this GPU has 80.0 GiB", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_peak_is_the_most_that_the_driver_saw_after_a_step()
    {
        var meter = new UsageMeter();
        meter.Start(new Figures(new(90, 100), new(30, 100), new(60, 100)));
        for (var step = 1; step <= 3; step++)
        {
            meter.Observe(new StepReport(step, 3, 1, 1, 1, 1, 1, 1, 1, 1));
        }

        Assert.Equal(70, meter.Read().DeviceMemoryPeakBytes);
    }

    [Fact]
    public void Without_a_GPU_no_figure_is_given()
    {
        var meter = new UsageMeter();
        meter.Start(null);
        meter.Observe(new StepReport(1, 1, 1, 1, 1, 1, 1, 1, 1, 1));

        Assert.Null(meter.Read().DeviceMemoryPeakBytes);
    }

    [Fact]
    public void On_a_CPU_a_batch_is_where_it_is_wanted()
    {
        using var host = zeros(2, 2);

        Assert.Same(host, DeviceCopy.To(host, CPU));
    }

    private sealed class Figures(params DeviceMemoryFigures[] figures) : IDeviceMemory
    {
        private int _read;

        public DeviceMemoryFigures? Read() => figures[_read++];
    }
}
