using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace TrainingService.Training.Checkpoints;

/// <summary>A safetensors file, memory-mapped. Opening it checks every bound; reading copies one tensor out of the map, or shares it.</summary>
/// <remarks>
/// A file that is deleted or replaced under its name stays as it was for who has opened it. One that is shortened while it is read ends the
/// process, as with any map: models are replaced by a new file, and not written to.
/// </remarks>
public sealed class SafeTensorsFile : IDisposable
{
    /// <summary>Bytes that are copied at once: a span is limited to 31 bits.</summary>
    private const int ChunkBytes = 1 << 30;

    private readonly MemoryMappedFile _map;
    private readonly MemoryMappedViewAccessor _view;
    private readonly SafeTensorsHeader _header;
    private readonly Dictionary<ScalarType, Tensor> _shared = [];
    private readonly string? _self;
    private readonly long _length;

    private SafeTensorsFile(
        string path, string? self, long length, MemoryMappedFile map, MemoryMappedViewAccessor view, SafeTensorsHeader header)
    {
        Path = path;
        _self = self;
        _length = length;
        _map = map;
        _view = view;
        _header = header;
    }

    public string Path { get; }

    public IReadOnlyDictionary<string, SafeTensorEntry> Entries => _header.Entries;

    public IReadOnlyDictionary<string, string> Metadata => _header.Metadata;

    /// <summary>Maps a file and checks its header against its length. Loads no libtorch.</summary>
    /// <exception cref="TrainingException">The file is missing, truncated, or no safetensors file.</exception>
    public static SafeTensorsFile Open(string path)
    {
        var file = System.IO.Path.GetFileName(path);
        if (!File.Exists(path))
        {
            throw TrainingException.InvalidData($"{file} is missing; upload it with the model.", file);
        }

        PlainFile.LengthOf(path);   // refuses what is no file
        FileStream? stream = null;
        try
        {
            stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
            var header = ReadHeader(stream, file);
            var map = MemoryMappedFile.CreateFromFile(
                stream, mapName: null, capacity: 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: false);

            // The name of this very file, whatever stands under the path by then; it lasts as long as the map holds the file open.
            var length = stream.Length;
            var self = $"/proc/self/fd/{stream.SafeFileHandle.DangerousGetHandle()}";
            stream = null;
            return new(path, File.Exists(self) ? self : null, length, map, map.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read), header);
        }
        finally
        {
            stream?.Dispose();
        }
    }

    /// <summary>Copies one tensor out of the file.</summary>
    /// <param name="dtype">Format of the result; null for the file's own.</param>
    /// <param name="device">Place of the result; null for the CPU.</param>
    /// <returns>A tensor that owns its memory, in the caller's dispose scope.</returns>
    /// <exception cref="TrainingException">The file has no such tensor.</exception>
    public Tensor Read(string name, ScalarType? dtype = null, Device? device = null)
    {
        if (!Entries.TryGetValue(name, out var entry))
        {
            var file = System.IO.Path.GetFileName(Path);
            throw TrainingException.InvalidData(
                $"{file} has no tensor {SafeTensorsHeader.Quote(name)}; it holds {Entries.Count} others.", file);
        }

        using var scope = NewDisposeScope();
        var tensor = empty(entry.Shape, entry.DType.ToScalarType());
        Copy(entry, tensor);
        return tensor.to(dtype ?? tensor.dtype, device ?? CPU).MoveToOuterDisposeScope();
    }

    /// <summary>A tensor over the file's own bytes where they have the wanted form, which costs no memory; else what <see cref="Read"/> gives.</summary>
    /// <remarks>
    /// Processes that share a file share its memory. What is written to the tensor goes to a private copy of the pages and never to the file.
    /// </remarks>
    /// <returns>A tensor that may outlive this object, in the caller's dispose scope.</returns>
    public Tensor Share(string name, ScalarType dtype, Device device)
    {
        if (_self is null || device.type != TorchSharp.DeviceType.CPU || !Entries.TryGetValue(name, out var entry)
            || entry.DType.ToScalarType() != dtype || entry.Length == 0 || entry.Offset % entry.DType.Size() != 0)
        {
            return Read(name, dtype, device);
        }

        using var scope = NewDisposeScope();
        var size = entry.DType.Size();
        return Mapped(dtype, size).narrow(0, entry.Offset / size, entry.Length / size).view(entry.Shape).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        foreach (var tensor in _shared.Values)
        {
            tensor.Dispose();
        }

        _view.Dispose();
        _map.Dispose();
    }

    private static SafeTensorsHeader ReadHeader(FileStream stream, string file)
    {
        Span<byte> prefix = stackalloc byte[SafeTensorsHeader.PrefixLength];
        if (stream.Length < prefix.Length)
        {
            throw SafeTensorsHeader.Bad(file, $"it has {stream.Length} bytes, too few for a header");
        }

        stream.ReadExactly(prefix);
        var length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (length > (ulong)(stream.Length - prefix.Length) || length > SafeTensorsHeader.LongestHeader)
        {
            throw SafeTensorsHeader.Bad(
                file, $"its header claims {length} bytes, of {stream.Length} in the file "
                + $"and at most {SafeTensorsHeader.LongestHeader}");
        }

        var header = new byte[(int)length];
        stream.ReadExactly(header);
        return SafeTensorsHeader.Parse(header, stream.Length, file);
    }

    /// <summary>The whole file as numbers of one format. Nothing is read before it is used.</summary>
    private Tensor Mapped(ScalarType dtype, int size)
    {
        if (!_shared.TryGetValue(dtype, out var whole))
        {
            try
            {
                whole = from_file(_self!, shared: false, size: _length / size, dtype: dtype).DetachFromDisposeScope();
            }
            catch (ExternalException error)
            {
                var file = System.IO.Path.GetFileName(Path);
                throw TrainingException.InvalidData($"{file} cannot be mapped any more: it was changed while it was read; copy or download it again.", file, error);
            }

            _shared[dtype] = whole;
        }

        return whole;
    }

    private unsafe void Copy(SafeTensorEntry entry, Tensor target)
    {
        if (entry.Length == 0)
        {
            return;
        }

        var flat = target.view(-1);
        var size = entry.DType.Size();
        byte* start = null;
        _view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
        try
        {
            for (long done = 0; done < entry.Length; done += ChunkBytes)
            {
                var count = (int)Math.Min(ChunkBytes, entry.Length - done);
                var source = new ReadOnlySpan<byte>(start + _view.PointerOffset + entry.Offset + done, count);
                source.CopyTo(flat.narrow(0, done / size, count / size).bytes);
            }
        }
        finally
        {
            _view.SafeMemoryMappedViewHandle.ReleasePointer();
        }
    }
}
