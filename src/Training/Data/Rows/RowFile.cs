using System.Text;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Data.Rows;

/// <summary>A file of rows. Its container is decided by what it holds, and by its name where that leaves a choice.</summary>
internal static class RowFile
{
    private static readonly (byte[] Magic, string What)[] Foreign =
    [
        ("PAR1"u8.ToArray(), "a Parquet file"),
        ([0x28, 0xB5, 0x2F, 0xFD], "Zstandard data"),
        ("PK\u0003\u0004"u8.ToArray(), "a zip archive"),
        ("BZh"u8.ToArray(), "bzip2 data"),
        ([0xFD, 0x37, 0x7A, 0x58, 0x5A], "xz data"),
        ("ARROW1"u8.ToArray(), "an Arrow file"),
        ([0xFF, 0xFE], "UTF-16 text"),
        ([0xFE, 0xFF], "UTF-16 text"),
    ];

    /// <summary>The rows, read as they are asked for. A file that cannot be read further ends with a row that says why.</summary>
    /// <param name="param">Spec member that names the file, for errors.</param>
    /// <param name="onContainer">Told the container (<c>jsonl</c>, <c>csv.gz</c>, …) before the first row.</param>
    /// <param name="limits">Where the last row says <see cref="ByteSource.LookIsOver"/>; null: read to the end.</param>
    /// <param name="onPosition">Told before each row how many bytes of the file were read, and how many it has.</param>
    /// <exception cref="TrainingException">There is no such file, or it cannot be opened.</exception>
    public static IEnumerable<Row> Read(
        string path, string param, Action<string> onContainer, ReadingLimits? limits, Action<long, long> onPosition,
        CancellationToken cancellationToken)
    {
        using var file = Open(path, param);
        var length = file.Length;
        var gzip = IsGzip(file);
        using var source = new ByteSource(gzip ? new BoundedGzip(file) : file, limits, cancellationToken);
        using var rows = Rows(source, path, gzip, onContainer).GetEnumerator();
        var number = 0;
        while (true)
        {
            Row? row;
            try
            {
                row = rows.MoveNext() ? rows.Current : null;
            }
            catch (RowException broken)
            {
                // Thrown where nothing behind this place can be read; the enumerator has ended itself.
                row = Row.Broken(broken.Fault.Code == "row_too_large" ? number + 1 : null, broken.Fault);
            }

            if (row is null)
            {
                yield break;
            }

            onPosition(file.Position, length);
            yield return row;
            number = row.Number ?? number;
        }
    }

    private static IEnumerable<Row> Rows(ByteSource source, string path, bool gzip, Action<string> onContainer)
    {
        var (container, skip) = Recognise(source.Head(), path, gzip);
        source.Take(skip);
        onContainer(gzip ? container + ".gz" : container);
        var rows = container switch
        {
            "json" => JsonArray.Read(source),
            "csv" => DelimitedText.Read(source, ','),
            "tsv" => DelimitedText.Read(source, '\t'),
            _ => JsonLines.Read(source),
        };
        foreach (var row in rows)
        {
            yield return row;
        }
    }

    private static (string Container, int Skip) Recognise(ReadOnlySpan<byte> head, string path, bool gzip)
    {
        foreach (var (magic, what) in Foreign)
        {
            if (head.StartsWith(magic))
            {
                throw new RowException(
                    "unknown_container", $"the file is {what}; upload JSONL, a JSON array, CSV or TSV in UTF-8, plain or compressed with gzip");
            }
        }

        var bom = Encoding.UTF8.Preamble;
        var skip = head.StartsWith(bom) ? bom.Length : 0;
        var name = gzip && path.EndsWith(".gz", StringComparison.OrdinalIgnoreCase) ? path[..^3] : path;
        var text = head[skip..].TrimStart(" \t\r\n"u8);
        return Path.GetExtension(name).ToUpperInvariant() switch
        {
            ".CSV" => ("csv", skip),
            ".TSV" => ("tsv", skip),
            ".JSONL" or ".NDJSON" => ("jsonl", skip),
            _ when text.StartsWith("["u8) => ("json", skip),
            _ when text.StartsWith("{"u8) => ("jsonl", skip),
            ".JSON" => ("jsonl", skip),
            ".TXT" => throw new RowException(
                "unknown_container", "plain text has no rows; write one JSON object per line, {\"text\": \"…\"}, or a CSV with column text"),
            _ => (HeaderHasTab(text) ? "tsv" : "csv", skip),
        };
    }

    private static bool HeaderHasTab(ReadOnlySpan<byte> text)
    {
        var end = text.IndexOf((byte)'\n');
        return (end < 0 ? text : text[..end]).Contains((byte)'\t');
    }

    private static bool IsGzip(FileStream file)
    {
        Span<byte> magic = stackalloc byte[2];
        var isGzip = file.ReadAtLeast(magic, 2, throwOnEndOfStream: false) == 2 && magic is [0x1F, 0x8B];
        file.Position = 0;
        return isGzip;
    }

    /// <exception cref="TrainingException">There is no such file, or it cannot be opened.</exception>
    public static FileStream Open(string path, string param)
    {
        PlainFile.LengthOf(path, param);   // refuses what is no file
        try
        {
            return new(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 1, FileOptions.SequentialScan);
        }
        catch (Exception missing) when (missing is FileNotFoundException or DirectoryNotFoundException)
        {
            throw TrainingException.InvalidData($"The file '{Path.GetFileName(path)}' does not exist; check the path.", param, missing);
        }
        catch (Exception denied) when (denied is UnauthorizedAccessException or IOException)
        {
            throw new TrainingException(
                FailureCode.Storage, $"The file '{Path.GetFileName(path)}' cannot be opened: {denied.Message}", param, denied);
        }
    }
}
