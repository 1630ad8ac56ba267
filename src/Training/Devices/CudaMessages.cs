using System.Globalization;
using System.Text.RegularExpressions;

namespace TrainingService.Training.Devices;

/// <summary>Reads what libtorch says about a GPU; no figure of it reaches .NET otherwise.</summary>
public static partial class CudaMessages
{
    /// <summary>Whether a message is about a GPU.</summary>
    public static bool SpeakOfGpu(string text) =>
        text.Contains("CUDA", StringComparison.Ordinal) || text.Contains("CUBLAS", StringComparison.Ordinal) || text.Contains("CUDNN", StringComparison.Ordinal);

    /// <summary>Bytes of the whole GPU, from a message such as <c>CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of
    /// 79.15 GiB of which 1.02 GiB is free.</c>; null when it does not say.</summary>
    public static long? CapacityIn(string text)
    {
        var match = Capacity().Match(text);
        if (!match.Success)
        {
            return null;
        }

        var unit = match.Groups["unit"].Value switch { "GiB" => 1L << 30, "MiB" => 1L << 20, "KiB" => 1L << 10, _ => 1L };
        return (long)(double.Parse(match.Groups["number"].Value, CultureInfo.InvariantCulture) * unit);
    }

    // Older versions wrote "capacty".
    [GeneratedRegex(@"GPU \d+ has a total capaci?ty of (?<number>\d+(\.\d+)?) (?<unit>GiB|MiB|KiB|bytes)", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Capacity();
}
