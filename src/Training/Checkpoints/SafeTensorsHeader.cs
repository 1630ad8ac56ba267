using System.Text.Json;
using System.Text.Unicode;

namespace TrainingService.Training.Checkpoints;

/// <summary>One tensor of a safetensors file.</summary>
/// <param name="Offset">First byte, counted from the start of the file.</param>
/// <param name="Length">Bytes.</param>
public sealed record SafeTensorEntry(string Name, SafeTensorType DType, long[] Shape, long Offset, long Length);

/// <summary>The JSON header of a safetensors file, believed in nothing: every number is checked against the file's real length.</summary>
/// <remarks>
/// Layout: 8 bytes little-endian header length, the header (a JSON object), then the data. The entries must cover the data without
/// gap or overlap, as the format demands: bytes that no tensor owns could hide anything.
/// </remarks>
internal sealed record SafeTensorsHeader(
    IReadOnlyDictionary<string, SafeTensorEntry> Entries, IReadOnlyDictionary<string, string> Metadata)
{
    /// <summary>Bytes of the header's own length.</summary>
    public const int PrefixLength = 8;

    /// <summary>Longest header, the limit of the reference implementation: a header is read into memory as a whole.</summary>
    public const long LongestHeader = 100_000_000;

    private const string Remedy = "copy or download the file again";
    private static readonly JsonDocumentOptions JsonOptions = new() { MaxDepth = 8 };

    /// <summary>Reads a header.</summary>
    /// <param name="header">The JSON bytes.</param>
    /// <param name="fileLength">Bytes of the whole file.</param>
    /// <param name="file">Name for messages.</param>
    /// <exception cref="TrainingException">The header contradicts itself or the file.</exception>
    public static SafeTensorsHeader Parse(ReadOnlyMemory<byte> header, long fileLength, string file)
    {
        if (!Utf8.IsValid(header.Span))
        {
            throw Bad(file, "its header is not UTF-8 text");
        }

        try
        {
            using var document = JsonDocument.Parse(header, JsonOptions);
            return Read(document.RootElement, PrefixLength + (long)header.Length, fileLength, file);
        }
        catch (Exception error) when (HostileJson.IsMalformed(error))
        {
            throw Bad(file, $"its header is not valid JSON ({error.Message.TrimEnd('.')})", inner: error);
        }
    }

    /// <summary>A file that cannot be used, with the tensor at fault and what to do.</summary>
    public static TrainingException Bad(string file, string what, string? tensor = null, Exception? inner = null) =>
        TrainingException.InvalidData(
            tensor is null ? $"{file} is not a usable safetensors file: {what}; {Remedy}."
                : $"{file} is not a usable safetensors file: tensor {Quote(tensor)} {what}; {Remedy}.",
            tensor is null ? file : $"{file}:{Quote(tensor)}", inner);

    /// <summary>A name from a file, made fit for a message: short, and without control characters.</summary>
    public static string Quote(string name)
    {
        var plain = string.Concat(name.Take(120).Select(c => char.IsControl(c) || char.IsSurrogate(c) ? '?' : c));
        return name.Length > 120 ? $"'{plain}…'" : $"'{plain}'";
    }

    private static SafeTensorsHeader Read(JsonElement root, long dataStart, long fileLength, string file)
    {
        if (root.ValueKind != JsonValueKind.Object)
        {
            throw Bad(file, "its header is not a JSON object");
        }

        var entries = new Dictionary<string, SafeTensorEntry>(StringComparer.Ordinal);
        var metadata = new Dictionary<string, string>(StringComparer.Ordinal);
        var sawMetadata = false;
        foreach (var member in root.EnumerateObject())
        {
            var name = member.Name;
            if (name == "__metadata__")
            {
                if (sawMetadata)
                {
                    throw Bad(file, "its header holds __metadata__ twice");
                }

                sawMetadata = true;
                ReadMetadata(member.Value, metadata, file);
                continue;
            }

            if (!entries.TryAdd(name, ReadEntry(name, member.Value, dataStart, fileLength, file)))
            {
                throw Bad(file, "stands in the header twice", name);
            }
        }

        CheckCover(entries.Values, dataStart, fileLength, file);
        return new(entries, metadata);
    }

    private static void ReadMetadata(JsonElement value, Dictionary<string, string> metadata, string file)
    {
        if (value.ValueKind != JsonValueKind.Object)
        {
            throw Bad(file, "its __metadata__ is not an object");
        }

        foreach (var member in value.EnumerateObject())
        {
            var key = member.Name;
            if (member.Value.ValueKind != JsonValueKind.String || !metadata.TryAdd(key, member.Value.GetString()!))
            {
                throw Bad(file, $"its __metadata__ member {Quote(key)} is not a text, or stands there twice");
            }
        }
    }

    private static SafeTensorEntry ReadEntry(string name, JsonElement value, long dataStart, long fileLength, string file)
    {
        if (value.ValueKind != JsonValueKind.Object)
        {
            throw Bad(file, "is not described by an object", name);
        }

        JsonElement? dtype = null, shape = null, offsets = null;
        foreach (var member in value.EnumerateObject())
        {
            var isRepeated = member.Name switch
            {
                "dtype" => Assign(ref dtype, member.Value),
                "shape" => Assign(ref shape, member.Value),
                "data_offsets" => Assign(ref offsets, member.Value),
                var other => throw Bad(file, $"has an unknown member {Quote(other)}", name),
            };
            if (isRepeated)
            {
                throw Bad(file, "names dtype, shape or data_offsets twice", name);
            }
        }

        if (dtype is not { ValueKind: JsonValueKind.String } || shape is null || offsets is null)
        {
            throw Bad(file, "lacks dtype, shape or data_offsets", name);
        }

        var typeName = dtype.Value.GetString()!;
        var type = SafeTensorTypes.Parse(typeName) ?? throw TrainingException.InvalidData(
            $"{file}: tensor {Quote(name)} has the number format {Quote(typeName)}, which is not supported; "
            + "convert the checkpoint to F32, F16 or BF16.", $"{file}:{Quote(name)}");
        var sizes = Numbers(shape.Value, name, "shape", file);
        var range = Numbers(offsets.Value, name, "data_offsets", file);
        if (range.Length != 2 || range[0] > range[1])
        {
            throw Bad(file, "has data_offsets that are not a start and an end", name);
        }

        var available = fileLength - dataStart;
        if (range[1] > available)
        {
            throw Bad(file, $"ends at byte {range[1]} of the data, of which there are {available}: the file is truncated", name);
        }

        var length = range[1] - range[0];
        if (ByteLength(sizes, type) is not { } expected || expected != length)
        {
            throw Bad(file, $"has {length} bytes, which do not fit {typeName} [{string.Join(", ", sizes)}]", name);
        }

        return new(name, type, sizes, dataStart + range[0], length);
    }

    private static bool Assign(ref JsonElement? slot, JsonElement value)
    {
        var isRepeated = slot is not null;
        slot = value;
        return isRepeated;
    }

    /// <summary>Bytes of a tensor; null when the sizes do not even fit 63 bits (with zero sizes left out, so that strides fit too).</summary>
    private static long? ByteLength(long[] shape, SafeTensorType type)
    {
        Int128 bytes = type.Size();
        foreach (var size in shape)
        {
            bytes *= Math.Max(size, 1);
            if (bytes > long.MaxValue)
            {
                return null;
            }
        }

        return shape.Contains(0) ? 0 : (long)bytes;
    }

    private static void CheckCover(IEnumerable<SafeTensorEntry> entries, long dataStart, long fileLength, string file)
    {
        var end = dataStart;
        foreach (var entry in entries.OrderBy(entry => entry.Offset).ThenBy(entry => entry.Length))
        {
            if (entry.Offset != end)
            {
                throw Bad(file, entry.Offset < end ? "overlaps another tensor" : "leaves a gap before it", entry.Name);
            }

            end += entry.Length;
        }

        if (end != fileLength)
        {
            throw Bad(file, $"{fileLength - end} bytes at its end belong to no tensor");
        }
    }

    private static long[] Numbers(JsonElement array, string name, string member, string file)
    {
        const int MostDimensions = 64;   // libtorch's own limit
        if (array.ValueKind != JsonValueKind.Array || array.GetArrayLength() > MostDimensions)
        {
            throw Bad(file, $"has a {member} that is not a list of at most {MostDimensions} numbers", name);
        }

        return
        [
            .. array.EnumerateArray().Select(item =>
                item.ValueKind == JsonValueKind.Number && item.TryGetInt64(out var number) && number >= 0
                    ? number
                    : throw Bad(file, $"has {Quote(item.GetRawText())} in its {member}, where a whole number from 0 is wanted", name)),
        ];
    }
}
