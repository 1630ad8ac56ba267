using System.Runtime.InteropServices;
using System.Text;

namespace TrainingService.Worker;

/// <summary>The memory allocator of a process that trains: a library to preload, or settings that calm glibc's own.</summary>
/// <remarks>
/// Every step frees blocks of megabytes and asks for them again. glibc's malloc hands such blocks back to the kernel at once, so that most
/// of a step can go into page faults. Allocators are chosen by the environment that a program starts in; the figures are in docs/experiments.md.
/// </remarks>
/// <param name="Variables">The environment that chooses it. What an operator has set stays.</param>
internal sealed partial record Allocator(IReadOnlyDictionary<string, string> Variables)
{
    /// <summary>The setting by which an operator names a library, as an environment variable: verbs read no configuration.</summary>
    private const string Setting = "Worker__Preload";

    private const string Preload = "LD_PRELOAD";

    /// <summary>Allocators that a process may have been given, by how their files' names begin.</summary>
    private static readonly string[] Known = ["libtcmalloc", "libjemalloc", "libmimalloc"];

    /// <summary>The best first; mimalloc is not among them, since a calm glibc trains faster.</summary>
    private static readonly string[] Libraries = ["libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libjemalloc.so.2"];

    /// <summary>Where the loader of Debian, Red Hat and their kin looks, and beside the program.</summary>
    private static readonly string[] Folders =
    [
        AppContext.BaseDirectory,
        RuntimeInformation.OSArchitecture == Architecture.Arm64 ? "/usr/lib/aarch64-linux-gnu" : "/usr/lib/x86_64-linux-gnu",
        "/usr/lib64", "/usr/lib", "/usr/local/lib64", "/usr/local/lib",
    ];

    /// <summary>The variables of a preloaded library; those that another one does not know do nothing.</summary>
    private static readonly Dictionary<string, string> Preloaded = new()
    {
        ["TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD"] = "0",   // blocks of gigabytes are nothing to report here
        ["MALLOC_CONF"] = "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1",   // jemalloc: keep what was freed
    };

    /// <summary>glibc keeps what was freed, in one arena, and grows in pages of two megabytes where the kernel has them on request.</summary>
    private static readonly Dictionary<string, string> Calmed = new()
    {
        ["MALLOC_MMAP_THRESHOLD_"] = "4294967296",
        ["MALLOC_TRIM_THRESHOLD_"] = "17179869184",
        ["MALLOC_TOP_PAD_"] = "67108864",
        ["MALLOC_ARENA_MAX"] = "1",
        ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1",
    };

    /// <summary>The best allocator of this system.</summary>
    /// <param name="chosen">The operator's library; empty: none; null: the first of those known that is installed.</param>
    /// <param name="exists">Whether there is such a file.</param>
    public static Allocator Choose(string? chosen, Predicate<string> exists)
    {
        if (!OperatingSystem.IsLinux())
        {
            return new Allocator(new Dictionary<string, string>());
        }

        var library = chosen
            ?? Libraries.SelectMany(name => Folders.Select(folder => Path.Combine(folder, name))).FirstOrDefault(path => exists(path)) ?? "";
        var variables = new Dictionary<string, string>(library.Length == 0 ? Calmed : Preloaded) { [Setting] = library };   // its child decides alike
        if (library.Length > 0)
        {
            variables[Preload] = library;
        }

        return new Allocator(variables);
    }

    /// <summary>Starts this program anew, once, in the environment of the best allocator. It stays the same process with the same files and parent.</summary>
    /// <remarks>Call it before threads, signal handlers and the terminal are touched. A supervised process is started in that environment.</remarks>
    public static void Enter()
    {
        if (!OperatingSystem.IsLinux() || Environment.ProcessPath is not { } program)
        {
            return;
        }

        var missing = Choose(Environment.GetEnvironmentVariable(Setting), File.Exists).Variables
            .Where(variable => Environment.GetEnvironmentVariable(variable.Key) is null).ToList();
        if (missing.TrueForAll(variable => variable.Key == Setting) || Environment.GetEnvironmentVariable(Preload) is { Length: > 0 })
        {
            return;   // it is there already, or somebody has chosen another one
        }

        // The runtime keeps its own copy of the environment; what is executed next gets the process's.
        missing.ForEach(variable => _ = SetEnvironment(variable.Key, variable.Value, overwrite: 0));
        string?[] arguments = [.. Encoding.UTF8.GetString(File.ReadAllBytes("/proc/self/cmdline")).Split('\0')[..^1], null];
        _ = Execute(program, arguments);   // it returns only when it failed: then the run is slower, and right
    }

    /// <summary>What this process really allocates with, in words.</summary>
    public static string InUse()
    {
        if (!OperatingSystem.IsLinux())
        {
            return "the system's";
        }

        var library = File.ReadLines("/proc/self/maps")
            .Select(line => line[(line.LastIndexOf(' ') + 1)..])
            .FirstOrDefault(path => Path.GetFileName(path) is var name
                && Known.Any(known => name.StartsWith(known, StringComparison.Ordinal)));
        return library
            ?? (Environment.GetEnvironmentVariable("MALLOC_MMAP_THRESHOLD_") is null ? "the system's" : "the system's, which keeps what is freed")
            + "; tcmalloc (libtcmalloc-minimal4) trains faster";
    }

    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetEnvironment(string name, string value, int overwrite);

    [LibraryImport("libc", EntryPoint = "execv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Execute(string path, string?[] arguments);
}
