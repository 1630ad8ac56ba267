using Microsoft.Extensions.Options;
using TrainingService.Worker;
using TrainingService.Worker.Supervision;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

public sealed class DeviceSlotsTests
{
    [Fact]
    public void Each_process_gets_the_GPU_with_the_fewest_runs()
    {
        var slots = Of(" 0, GPU-8f2 ");
        using var first = slots.Take();
        var second = slots.Take();
        using var third = slots.Take();
        second.Dispose();
        second.Dispose();
        using var fourth = slots.Take();
        using var fifth = slots.Take();

        Assert.Equal(["0", "GPU-8f2", "0", "GPU-8f2", "GPU-8f2"], new[] { first, second, third, fourth, fifth }.Select(slot => slot.Device));
    }

    [Fact]
    public void Without_a_choice_processes_see_what_the_worker_sees()
    {
        using var slot = Of(null).Take();

        Assert.Null(slot.Device);
    }

    private static DeviceSlots Of(string? devices) => new(Options.Create(new WorkerOptions { CudaDevices = devices }));
}
