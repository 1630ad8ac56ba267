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
    private long _bytes;
    private int _files;

    public async Task UnpackAsync(string fileName, Stream content, CancellationToken cancellationToken)
    {
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
                await using var plain = new GZipStream(content, CompressionMode.Decompress, leaveOpen: true);
                await UnpackTar(plain, cancellationToken);
            }
            else
            {
                throw Refuse($"'{fileName}' is not an archive that is known here; send .tar, .tar.gz or .zip");
            }
        }
        catch (Exception broken) when (broken is InvalidDataException or EndOfStreamException or FormatException)
        {
            throw Refuse($"'{fileName}' cannot be unpacked: {broken.Message.TrimEnd('.')}");
        }
    }

    /// <summary>The folder with the model: archives often hold one folder that holds the files.</summary>
    public string ModelFolder()
    {
        var inner = Directory.GetDirectories(folder);
        return !File.Exists(Path.Combine(folder, "config.json")) && inner.Length == 1 ? inner[0] : folder;
    }

    private static RequestException Refuse(string why) => RequestException.Invalid("invalid_archive", why + ".", "file");

    private async Task UnpackTar(Stream content, CancellationToken cancellationToken)
    {
        await using var reader = new TarReader(content, leaveOpen: true);
        while (await reader.GetNextEntryAsync(copyData: false, cancellationToken) is { } entry)
        {
            switch (entry.EntryType)
            {
                case TarEntryType.Directory or TarEntryType.GlobalExtendedAttributes:
                    break;
                case TarEntryType.RegularFile or TarEntryType.V7RegularFile:
                    await Write(entry.Name, entry.DataStream ?? Stream.Null, cancellationToken);
                    break;
                default:
                    throw Refuse($"The archive's entry '{entry.Name}' is a {entry.EntryType}; only plain files and folders are accepted");
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
            file.Position = 0;
            await using var zip = await ZipArchive.CreateAsync(file, ZipArchiveMode.Read, leaveOpen: true, null, cancellationToken);
            foreach (var entry in zip.Entries)
            {
                const int unixLink = 0xA000;
                if (((entry.ExternalAttributes >> 16) & 0xF000) == unixLink)
                {
                    throw Refuse($"The archive's entry '{entry.FullName}' is a link; only plain files and folders are accepted");
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
        var target = PathOf(name);
        if (++_files > mostFiles)
        {
            throw Refuse($"The archive holds more than {mostFiles} files");
        }

        Directory.CreateDirectory(Path.GetDirectoryName(target)!);
        if (File.Exists(target))
        {
            throw Refuse($"The archive holds '{name}' twice");
        }

        var before = _bytes;
        await using var file = new FileStream(target, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 16, useAsync: true);
        await new LimitedStream(data, largestBytes - before, "file").CopyToAsync(file, cancellationToken);
        _bytes = before + file.Length;
    }

    private string PathOf(string name)
    {
        var parts = name.Split('/').Where(part => part is not ("" or ".")).ToArray();
        if (parts.Length == 0 || name.StartsWith('/') || name.Contains('\\') || name.Contains(':') || name.Any(char.IsControl)
            || parts.Contains("..") || name.Length > 500)
        {
            throw Refuse($"The archive's entry '{name}' would leave the model's folder");
        }

        return Path.Combine([folder, .. parts]);
    }
}
