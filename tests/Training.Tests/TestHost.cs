using System.Runtime.CompilerServices;
using TrainingService.Training.Native;

namespace TrainingService.Training.Tests;

internal static class TestHost
{
    /// <summary>A test may touch TorchSharp before any type of ours; running our module's initializer first makes the library loadable.</summary>
    [ModuleInitializer]
    internal static void LoadEngine() => RuntimeHelpers.RunModuleConstructor(typeof(NativeLibtorch).Module.ModuleHandle);
}
