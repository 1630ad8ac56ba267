using System.Formats.Tar;
using System.IO.Compression;
using System.Text;

namespace TrainingService.Api.Tests.Hostile;

/// <summary>Archives that reach out of their folder, or make much of little. Nothing of them stays.</summary>
public sealed class HostileArchiveTests(EmbeddedApi service) : ApiTests(service), IClassFixture<EmbeddedApi>
{
    private static readonly Dictionary<string, Func<byte[]>> Archives = new()
    {
        ["parent.tar"] = () => Tar(Plain("../evil.json")),
        ["deep-parent.tar"] = () => Tar(Plain("a/b/../../../../evil.json")),
        ["absolute.tar"] = () => Tar(Plain("/tmp/hostile-evil.json")),
        ["backslash.tar"] = () => Tar(Plain("..\\evil.json")),
        ["drive.tar"] = () => Tar(Plain("c:evil.json")),
        ["newline.tar"] = () => Tar(Plain("a\r\nb.json")),
        ["long.tar"] = () => Tar(Plain(new string('n', 300))),
        ["longer.tar"] = () => Tar(Plain(string.Join('/', Enumerable.Repeat("dir", 500)))),
        ["symlink.tar"] = () => Tar(Link(TarEntryType.SymbolicLink, "config.json", "/etc/passwd")),
        ["hardlink.tar"] = () => Tar(Link(TarEntryType.HardLink, "config.json", "/etc/passwd")),
        ["device.tar"] = () => Tar(new PaxTarEntry(TarEntryType.CharacterDevice, "config.json") { DeviceMajor = 1, DeviceMinor = 5 }),
        ["block.tar"] = () => Tar(new PaxTarEntry(TarEntryType.BlockDevice, "config.json") { DeviceMajor = 8, DeviceMinor = 0 }),
        ["pipe.tar"] = () => Tar(new PaxTarEntry(TarEntryType.Fifo, "config.json")),
        ["twice.tar"] = () => Tar(Plain("config.json"), Plain("./config.json")),
        ["case.tar"] = () => Tar(Plain("config.json"), Plain("Config.JSON")),
        ["file-then-folder.tar"] = () => Tar(Plain("a"), Plain("a/b")),
        ["folder-then-file.tar"] = () => Tar(Plain("a/b"), Plain("a")),
        ["folders.tgz"] = () => Gzip(Tar([.. Enumerable.Range(0, 10_050).Select(i => new PaxTarEntry(TarEntryType.Directory, $"d{i}/"))])),
        ["claims-a-terabyte.tar"] = () => Header("config.json", '0', 1L << 40),
        ["claims-a-header-of-gigabytes.tar"] = () => Header("x", 'x', 2L << 30),
        ["claims-a-name-of-gigabytes.tar"] = () => Header("x", 'L', 2L << 30),
        ["negative.tar"] = () => Header("x", '0', -1),
        ["sparse.tar"] = () => Header("config.json", 'S', 512),
        ["hidden-header.tar"] = () => [.. Extended("size=0"), .. Header("a", '0', 1 << 20, whole: false), .. Header("x", 'x', 2L << 30)],
        ["no-number.tar"] = () => Header("config.json", '0', 0, size: "99999999999\0"u8.ToArray()),
        ["bomb.tgz"] = () => Gzip(Tar(Plain("model.safetensors", 200 << 20))),
        ["extended-bomb.tgz"] = () => Gzip([.. Header("x", 'x', 100 << 20, whole: false), .. new byte[100 << 20]]),
        ["twice-packed.tgz"] = () => Gzip(Gzip(Tar(Plain("config.json")))),
        ["cut.tgz"] = () => Gzip(Tar(Plain("config.json", 5000)))[..60],
        ["text.tar"] = () => Encoding.UTF8.GetBytes(new string('a', 3000)),
        ["empty.tar"] = () => [],
        ["parent.zip"] = () => Zip(("../evil.json", 10, 0)),
        ["absolute.zip"] = () => Zip(("/tmp/hostile-evil.json", 10, 0)),
        ["symlink.zip"] = () => Zip(("config.json", 10, unchecked((int)0xA1FF0000))),
        ["device.zip"] = () => Zip(("config.json", 10, 0x21FF0000)),
        ["case.zip"] = () => Zip(("config.json", 10, 0), ("CONFIG.json", 10, 0)),
        ["bomb.zip"] = () => Zip(("model.safetensors", 200 << 20, 0)),
        ["entries.zip"] = () => Zip([.. Enumerable.Range(0, 10_050).Select(i => ($"f{i}", 0, 0))]),
        ["directory-outside.zip"] = () => Patch(Zip(("config.json", 10, 0)), [0xF0, 0xFF, 0xFF, 0x7F]),
        ["cut.zip"] = () => Zip(("config.json", 5000, 0))[..40],
        ["unknown.rar"] = () => [0x52, 0x61, 0x72, 0x21],
    };

    public static TheoryData<string> Names => [.. Archives.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public async Task An_archive_that_is_no_model_is_refused_and_leaves_nothing(string name)
    {
        var before = Directory.GetFileSystemEntries(Service.Folder, "*evil*", SearchOption.AllDirectories).Length;

        var (status, body) = await Upload("/v1/models", name, Archives[name](), ("name", "hostile"));

        Assert.True(status is 400 or 413, $"{status}: {body.ToJsonString()}");
        Assert.Equal("invalid_request_error", (string?)body["error"]!["type"]);
        Assert.InRange(((string)body["error"]!["message"]!).Length, 10, 700);
        Assert.Equal(before, Directory.GetFileSystemEntries(Service.Folder, "*evil*", SearchOption.AllDirectories).Length);
        Assert.False(File.Exists("/tmp/hostile-evil.json"));
        Assert.Empty(Directory.GetFileSystemEntries(Path.Combine(Service.Folder, "incoming"), "model-*"));
    }

    /// <summary>Long names and sizes beyond eight gigabytes need extended headers; small ones are no crime.</summary>
    [Fact]
    public async Task A_good_archive_with_extended_headers_is_read()
    {
        var folder = TinyModel.Write(Path.Combine(Service.Folder, $"model-{Guid.NewGuid():N}"));
        var entries = Directory.GetFiles(folder).Select(file => new PaxTarEntry(
            TarEntryType.RegularFile, Path.GetFileName(file),
            new Dictionary<string, string> { ["comment"] = new string('c', 2000), ["size"] = $"{new FileInfo(file).Length}" })
        {
            DataStream = File.OpenRead(file),
        }).ToArray();

        var (status, body) = await Upload("/v1/models", "good.tar.gz", Gzip(Tar(entries)), ("name", $"good-{Guid.NewGuid():N}"));

        Assert.True(status == 200, body.ToJsonString());
    }

    private static PaxTarEntry Plain(string name, int bytes = 10) => new(TarEntryType.RegularFile, name) { DataStream = new MemoryStream(new byte[bytes]) };

    private static PaxTarEntry Link(TarEntryType type, string name, string target) => new(type, name) { LinkName = target };

    private static byte[] Tar(params TarEntry[] entries)
    {
        using var stream = new MemoryStream();
        using (var writer = new TarWriter(stream, leaveOpen: true))
        {
            foreach (var entry in entries)
            {
                writer.WriteEntry(entry);
                entry.DataStream?.Dispose();
            }
        }

        return stream.ToArray();
    }

    private static byte[] Gzip(byte[] bytes)
    {
        using var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest))
        {
            gzip.Write(bytes);
        }

        return packed.ToArray();
    }

    private static byte[] Zip(params (string Name, int Bytes, int Attributes)[] entries)
    {
        using var stream = new MemoryStream();
        using (var zip = new ZipArchive(stream, ZipArchiveMode.Create, leaveOpen: true))
        {
            foreach (var (name, bytes, attributes) in entries)
            {
                var entry = zip.CreateEntry(name, CompressionLevel.Fastest);
                entry.ExternalAttributes = attributes;
                using var data = entry.Open();
                data.Write(new byte[bytes]);
            }
        }

        return stream.ToArray();
    }

    /// <summary>An extended header with one record.</summary>
    private static byte[] Extended(string record)
    {
        var text = Encoding.UTF8.GetBytes($"{record.Length + 4} {record}\n");
        return [.. Header("x", 'x', text.Length, whole: false), .. text, .. new byte[512 - text.Length]];
    }

    /// <summary>A header by hand, with two blocks of zeros behind it unless more follows.</summary>
    private static byte[] Header(string name, char type, long claimed, bool whole = true, byte[]? size = null)
    {
        var header = new byte[512];
        Encoding.ASCII.GetBytes(name).CopyTo(header, 0);
        "0000644\0"u8.CopyTo(header.AsSpan(100));
        if (size is not null)
        {
            size.CopyTo(header, 124);
        }
        else if (claimed is >= 0 and < 1L << 33)
        {
            Encoding.ASCII.GetBytes(Convert.ToString(claimed, 8).PadLeft(11, '0')).CopyTo(header, 124);
        }
        else
        {
            header[124] = claimed < 0 ? (byte)0xFF : (byte)0x80;
            System.Buffers.Binary.BinaryPrimitives.WriteInt64BigEndian(header.AsSpan(128), claimed);
        }

        header[156] = (byte)type;
        "ustar\0"u8.CopyTo(header.AsSpan(257));
        "00"u8.CopyTo(header.AsSpan(263));
        header.AsSpan(148, 8).Fill((byte)' ');
        Encoding.ASCII.GetBytes(Convert.ToString(header.Sum(value => value), 8).PadLeft(6, '0') + "\0 ").CopyTo(header, 148);
        return whole ? [.. header, .. new byte[1024]] : header;
    }

    /// <summary>A zip file whose end record says that its directory begins elsewhere.</summary>
    private static byte[] Patch(byte[] zip, byte[] start)
    {
        start.CopyTo(zip, zip.Length - 6);
        return zip;
    }
}
