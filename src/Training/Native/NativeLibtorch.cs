using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Loader;
using System.Runtime.Versioning;
using System.Security.Cryptography;

namespace TrainingService.Training.Native;

/// <summary>Loads TorchSharp's native library on systems whose libstdc++ is older than GCC 13's.</summary>
/// <remarks>
/// libLibTorchSharp.so needs the version GLIBCXX_3.4.32 for one symbol that it references and never calls
/// (<c>std::ios_base_library_init</c>). Debian 12, Ubuntu 22.04 and RHEL 9 lack that version and refuse the library; TorchSharp
/// then speaks of a missing libtorch package. The handler here runs only after the ordinary load has failed: it makes the
/// version need weak in a copy (the package and the output folder stay as they are) and loads the copy.
/// </remarks>
public static class NativeLibtorch
{
    private const string LibraryName = "LibTorchSharp";
    private static readonly Lock Gate = new();
    private static nint _handle;

    /// <summary>Where the mended copy was loaded from; null when the system loads the library as it is, or not yet.</summary>
    public static string? MendedCopy { get; private set; }

    /// <summary>Registers the handler, once per process. It costs nothing until a load fails.</summary>
    /// <remarks>A module initializer, because TorchSharp loads its library in a static constructor, before any call of ours.</remarks>
#pragma warning disable CA2255 // A library may not use module initializers: this one must run before TorchSharp's static constructor.
    [ModuleInitializer]
    internal static void Register() =>
        AssemblyLoadContext.Default.ResolvingUnmanagedDll += Resolve;
#pragma warning restore CA2255

    private static nint Resolve(Assembly requester, string name)
    {
        if (name != LibraryName || !OperatingSystem.IsLinux())
        {
            return 0;
        }

        lock (Gate)
        {
            if (_handle == 0 && FindLibrary() is { } library)
            {
                _handle = LoadMended(library);
            }

            return _handle;
        }
    }

    [SupportedOSPlatform("linux")]
    private static nint LoadMended(string library)
    {
        var image = File.ReadAllBytes(library);
        if (!ElfVersionNeeds.TryWeaken(image, "GLIBCXX_3.4.32"))
        {
            return 0;   // some other cause: TorchSharp's own message is then the right one
        }

        var copy = WriteCopy(image);

        // The copy no longer stands beside libtorch, so its $ORIGIN search path is empty: its neighbours must be in the process first.
        var folder = Path.GetDirectoryName(library)!;
        foreach (var neighbour in new[] { "libc10.so", "libtorch_cpu.so", "libc10_cuda.so", "libtorch_cuda.so", "libtorch.so" })
        {
            var path = Path.Combine(folder, neighbour);
            if (File.Exists(path))
            {
                NativeLibrary.Load(path);
            }
        }

        if (!NativeLibrary.TryLoad(copy, out var handle))
        {
            return 0;
        }

        MendedCopy = copy;
        Console.Error.WriteLine(
            $"training-service: this system's libstdc++ lacks GLIBCXX_3.4.32; loaded TorchSharp's library from a mended copy, {copy}");
        return handle;
    }

    [SupportedOSPlatform("linux")]
    private static string WriteCopy(byte[] image)
    {
        // Named by content, so that versions never mix, and renamed into place, so that a concurrent process never sees half a file.
        var folder = Path.Combine(Path.GetTempPath(), $"training-service-native-{Environment.UserName}",
            Convert.ToHexStringLower(SHA256.HashData(image))[..16]);
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        var copy = Path.Combine(folder, $"lib{LibraryName}.so");
        if (!File.Exists(copy) || !SHA256.HashData(File.ReadAllBytes(copy)).AsSpan().SequenceEqual(SHA256.HashData(image)))
        {
            var part = $"{copy}.{Environment.ProcessId}";
            File.WriteAllBytes(part, image);
            File.Move(part, copy, overwrite: true);
        }

        return copy;
    }

    private static string? FindLibrary()
    {
        var runtimeFolders = (AppContext.GetData("NATIVE_DLL_SEARCH_DIRECTORIES") as string ?? "")
            .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries);
        var identifier = RuntimeInformation.OSArchitecture == Architecture.Arm64 ? "linux-arm64" : "linux-x64";
        return runtimeFolders
            .Append(AppContext.BaseDirectory)
            .Append(Path.Combine(AppContext.BaseDirectory, "runtimes", identifier, "native"))
            .Select(folder => Path.Combine(folder, $"lib{LibraryName}.so"))
            .FirstOrDefault(File.Exists);
    }
}
