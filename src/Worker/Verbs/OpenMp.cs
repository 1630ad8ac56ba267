using System.Runtime.InteropServices;

namespace TrainingService.Worker.Verbs;

/// <summary>How libtorch's threads wait for each other.</summary>
internal static partial class OpenMp
{
    /// <summary>Lets waiting threads sleep after a short spin, unless the operator has chosen otherwise. Call it before libtorch loads.</summary>
    /// <remarks>
    /// libgomp spins for milliseconds by default. Where cores are shared (a container's quota, a service beside the run) the spinning takes
    /// the core from the thread that is waited for: 30 small steps took 73 s on two busy cores, and 8 s with this.
    /// </remarks>
    public static void SpinBriefly()
    {
        if (OperatingSystem.IsLinux())
        {
            // The runtime keeps its own copy of the environment; libgomp reads the process's.
            _ = SetEnvironment("GOMP_SPINCOUNT", "1000", overwrite: 0);
        }
    }

    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetEnvironment(string name, string value, int overwrite);
}
