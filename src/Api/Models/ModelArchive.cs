using System.Formats.Tar;
using System.IO.Compression;
using TrainingService.Api.Http;

namespace TrainingService.Api.Models;

/// <summary>
/// Unpacks an uploaded archive into an empty folder. Every entry is hostile until shown otherwise: names must stay inside, links and
/// devices are refused, and count and sum of the files are bounded whatever the headers claim.
/// </summary>
internal sealed class ModelArchive(string folder, long largestBytes, int mostFiles)
{
    private const long FreeBytes = 64L << 20;
    private const long MaxRatio = 200;   // weights hardly shrink, and texts some five times

    /// <summary>Longest entry of a zip archive's directory: its fixed part, and a name, extra fields and a comment of usual lengths.</summary>
    private const long DirectoryEntryBytes = 2048;

    private readonly ArchiveNames _names = new(folder);
    private long _largest;
    private long _bytes;
    private int _entries;

    public async Task UnpackAsync(string fileName, Stream content, CancellationToken cancellationToken)
    {
        _largest = largestBytes;
        try
        {
            if (fileName.EndsWith(".zip", StringComparison.OrdinalIgnoreCase))
            {
                await UnpackZip(content, cancellationToken);
            }
            else if (fileName.EndsWith(".tar", StringComparison.OrdinalIgnoreCase))
            {
                await UnpackTar(content, cancellationToken);
            }
            else if (fileName.EndsWith(".tar.gz", StringComparison.OrdinalIgnoreCase) || fileName.EndsWith(".tgz", StringComparison.OrdinalIgnoreCase))
            {
                var packed = new CountingStream(content);
                await using var plain = new GZipStream(packed, CompressionMode.Decompress, leaveOpen: true);
                await UnpackTar(new RatioStream(plain, packed, FreeBytes, MaxRatio), cancellationToken);
            }
            else
            {
                throw Refuse($"'{fileName}' is not an archive that is known here; send .tar, .tar.gz or .zip");
            }
        }
        catch (Exception broken) when (broken is InvalidDataException or EndOfStreamException or FormatException or NotSupportedException or OverflowException)
        {
            throw Refuse($"'{ArchiveNames.Shown(fileName)}' cannot be unpacked: {broken.Message.TrimEnd('.')}");
        }
    }

    /// <summary>The folder with the model: archives often hold one folder that holds the files.</summary>
    public string ModelFolder()
    {
        var inner = Directory.GetDirectories(folder);
        return !File.Exists(Path.Combine(folder, "config.json")) && inner.Length == 1 ? inner[0] : folder;
    }

    public static RequestException Refuse(string why) => RequestException.Invalid("invalid_archive", why + ".", "file");

    private async Task UnpackTar(Stream content, CancellationToken cancellationToken)
    {
        await using var reader = new TarReader(new TarHeaders(content), leaveOpen: true);
        while (await reader.GetNextEntryAsync(copyData: false, cancellationToken) is { } entry)
        {
            CountEntry();
            switch (entry.EntryType)
            {
                case TarEntryType.Directory or TarEntryType.GlobalExtendedAttributes:
                    break;
                case TarEntryType.RegularFile or TarEntryType.V7RegularFile:
                    await Write(entry.Name, entry.DataStream ?? Stream.Null, cancellationToken);
                    break;
                default:
                    throw Refuse($"The archive's entry '{ArchiveNames.Shown(entry.Name)}' is a {entry.EntryType}; only plain files and folders are accepted");
            }
        }
    }

    private async Task UnpackZip(Stream content, CancellationToken cancellationToken)
    {
        // The directory of a zip file is at its end, so it is kept on disk first.
        var packed = folder + ".zip";
        try
        {
            await using var file = new FileStream(packed, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, 1 << 16, useAsync: true);
            await new LimitedStream(content, largestBytes, "file").CopyToAsync(file, cancellationToken);
            if (await ZipDirectory.LengthAsync(file, cancellationToken) > mostFiles * DirectoryEntryBytes)
            {
                throw Refuse($"The archive holds more than {mostFiles} files, or names and comments without end");
            }

            _largest = Math.Min(largestBytes, Math.Max(FreeBytes, MaxRatio * file.Length));
            file.Position = 0;
            await using var zip = await ZipArchive.CreateAsync(file, ZipArchiveMode.Read, leaveOpen: true, null, cancellationToken);
            foreach (var entry in zip.Entries)
            {
                const int plainFile = 0x8000;
                const int folderEntry = 0x4000;
                CountEntry();
                if (((entry.ExternalAttributes >> 16) & 0xF000) is not (0 or plainFile or folderEntry))
                {
                    throw Refuse($"The archive's entry '{ArchiveNames.Shown(entry.FullName)}' is a link or a device; only plain files and folders are accepted");
                }

                if (!entry.FullName.EndsWith('/'))
                {
                    await using var data = await entry.OpenAsync(cancellationToken);
                    await Write(entry.FullName, data, cancellationToken);
                }
            }
        }
        finally
        {
            File.Delete(packed);
        }
    }

    private async Task Write(string name, Stream data, CancellationToken cancellationToken)
    {
        var target = _names.PlaceOf(name);
        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        var before = _bytes;
        await using var file = new FileStream(target, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 16, useAsync: true);
        await new LimitedStream(data, _largest - before, "file").CopyToAsync(file, cancellationToken);
        _bytes = before + file.Length;
    }

    private void CountEntry()
    {
        if (++_entries > mostFiles)
        {
            throw Refuse($"The archive holds more than {mostFiles} files");
        }
    }
}
