using System.Buffers.Binary;
using System.Text.Json;
using static TorchSharp.torch;

namespace TrainingService.Training.Checkpoints;

/// <summary>Writes safetensors files.</summary>
public static class SafeTensorsWriter
{
    private const int ChunkBytes = 1 << 26;

    /// <summary>Writes a file that is either whole or absent: a part file is flushed to the disk and then renamed.</summary>
    /// <param name="path">Target; an existing file is replaced.</param>
    /// <param name="tensors">In any order, on any device; formats are kept. The same content gives the same bytes.</param>
    /// <param name="metadata">Texts for the header; null for <c>format = pt</c>, which Hugging Face libraries ask for.</param>
    /// <exception cref="ArgumentException">A name that occurs twice, or a format that safetensors does not know.</exception>
    public static void Write(
        string path, IReadOnlyList<(string Name, Tensor Tensor)> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        // Widest numbers first, as the reference implementation writes: every tensor is then aligned to its own numbers.
        var ordered = tensors
            .Select(item => (item.Name, item.Tensor, Type: SafeTensorTypes.FromScalarType(item.Tensor.dtype)))
            .OrderByDescending(item => item.Type.Size()).ThenBy(item => item.Name, StringComparer.Ordinal).ToArray();
        if (ordered.Select(item => item.Name).Append("__metadata__").GroupBy(name => name).FirstOrDefault(group => group.Count() > 1) is { } twice)
        {
            throw new ArgumentException($"The name {twice.Key} occurs twice.", nameof(tensors));
        }

        var header = Header(ordered, metadata ?? new Dictionary<string, string> { ["format"] = "pt" });
        var part = $"{path}.{Path.GetRandomFileName()}.part";
        try
        {
            using (var stream = new FileStream(part, FileMode.CreateNew, FileAccess.Write))
            {
                Span<byte> prefix = stackalloc byte[SafeTensorsHeader.PrefixLength];
                BinaryPrimitives.WriteUInt64LittleEndian(prefix, (ulong)header.Length);
                stream.Write(prefix);
                stream.Write(header);
                foreach (var (_, tensor, type) in ordered)
                {
                    WriteNumbers(stream, tensor, type.Size());
                }

                stream.Flush(flushToDisk: true);
            }

            File.Move(part, path, overwrite: true);
        }
        finally
        {
            File.Delete(part);   // after a failure; after the move there is nothing to delete
        }
    }

    private static byte[] Header(
        IEnumerable<(string Name, Tensor Tensor, SafeTensorType Type)> tensors, IReadOnlyDictionary<string, string> metadata)
    {
        using var buffer = new MemoryStream();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            json.WriteStartObject("__metadata__");
            foreach (var (key, value) in metadata.OrderBy(pair => pair.Key, StringComparer.Ordinal))
            {
                json.WriteString(key, value);
            }

            json.WriteEndObject();
            var offset = 0L;
            foreach (var (name, tensor, type) in tensors)
            {
                var length = checked(tensor.numel() * type.Size());
                json.WriteStartObject(name);
                json.WriteString("dtype", type.WireName());
                WriteNumbers(json, "shape", tensor.shape);
                WriteNumbers(json, "data_offsets", [offset, offset + length]);
                json.WriteEndObject();
                offset += length;
            }

            json.WriteEndObject();
        }

        const int Alignment = 8;
        while (buffer.Length % Alignment != 0)
        {
            buffer.WriteByte((byte)' ');
        }

        return buffer.ToArray();
    }

    private static void WriteNumbers(Utf8JsonWriter json, string name, long[] numbers)
    {
        json.WriteStartArray(name);
        foreach (var number in numbers)
        {
            json.WriteNumberValue(number);
        }

        json.WriteEndArray();
    }

    private static void WriteNumbers(FileStream stream, Tensor tensor, int size)
    {
        using var scope = NewDisposeScope();
        var flat = tensor.detach().cpu().contiguous().view(-1);
        var total = flat.numel();
        var count = ChunkBytes / size;
        for (long done = 0; done < total; done += count)
        {
            using var piece = flat.narrow(0, done, Math.Min(count, total - done));
            stream.Write(piece.bytes);
        }
    }
}
