using System.Runtime.InteropServices;
using TrainingService.Training;
using TrainingService.Worker.Verbs;

namespace TrainingService.EndToEnd.Tests.Verbs;

/// <summary>Which failure code the end of a run gets.</summary>
#pragma warning disable CA2201 // The tests stand in for the runtime and the binding, which alone may throw these types.
public sealed class FailuresTests
{
    [Theory]
    [InlineData("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000000000000 bytes. Error code 12 (Cannot allocate memory)")]
    [InlineData("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate 40000000000000 bytes.")]
    [InlineData("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 13.52 GiB is free.")]
    [InlineData("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call.")]
    [InlineData("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")]
    [InlineData("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")]
    [InlineData("std::bad_alloc")]
    public void What_libtorch_says_without_memory_is_recognised(string message)
    {
        // TorchSharp hands on the text of every native exception in this type.
        var native = new ExternalException(message);

        Assert.All(new Exception[] { native, new AggregateException(native) }, error =>
        {
            var failure = Failures.Describe(error);
            Assert.Equal((FailureCode.OutOfMemory, "schedule.batch_size"), (failure.Code, failure.Param));
            Assert.Contains("schedule.gradient_accumulation_steps", failure.Message, StringComparison.Ordinal);
        });
    }

    [Fact]
    public void The_runtimes_own_exception_is_recognised() =>
        Assert.Equal(FailureCode.OutOfMemory, Failures.Describe(new OutOfMemoryException()).Code);

    [Theory]
    [InlineData("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1")]
    [InlineData("CUDA error: device-side assert triggered")]
    [InlineData("CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`")]
    public void Other_native_errors_are_defects_of_ours(string message) =>
        Assert.Equal(FailureCode.Internal, Failures.Describe(new ExternalException(message)).Code);

    [Fact]
    public void A_full_disk_and_a_wrong_spec_keep_their_own_codes()
    {
        Assert.Equal(FailureCode.Storage, Failures.Describe(new IOException("No space left on device : '/data/adapter'")).Code);
        var spec = Failures.Describe(TrainingException.InvalidSpec("rank 0 is too small; give 1 or more.", "adapter.rank"));
        Assert.Equal((FailureCode.InvalidSpec, "adapter.rank"), (spec.Code, spec.Param));
    }
}
