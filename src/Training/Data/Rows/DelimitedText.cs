using System.Text;
using System.Text.Json;

namespace TrainingService.Training.Data.Rows;

/// <summary>Comma- or tab-separated records under one header record.</summary>
/// <remarks>RFC 4180: a field in quotes may hold separators, line breaks and doubled quotes. Beyond it, a bare line feed ends a record, and
/// a quote inside a field that does not start with one is an ordinary character. The number of a row does not count the header.</remarks>
internal sealed class DelimitedText(ByteSource source, byte separator)
{
    private const int End = -1;

    private readonly RowBytes _field = new();
    private readonly RowBytes _record = new();   // all bytes, for the size limit and the place of invalid UTF-8
    private int _line = 1;

    public static IEnumerable<Row> Read(ByteSource source, char separator) => new DelimitedText(source, (byte)separator).Read();

    private IEnumerable<Row> Read()
    {
        if (ReadRecord() is not { } header)
        {
            yield break;
        }

        var names = header.Select(name => name.Trim()).ToArray();
        if (names.GroupBy(name => name).FirstOrDefault(group => group.Count() > 1) is { } twice)
        {
            yield return Row.Broken(null, new("duplicate_column", $"the header names column '{twice.Key}' twice; rename one"));
            yield break;
        }

        if (Array.Find(names, name => name.Length > Row.LongestName) is { } endless)
        {
            yield return Row.Broken(null, JsonRow.LongName(endless).Fault);
            yield break;
        }

        var number = 0;
        while (true)
        {
            var line = _line;
            Row row;
            try
            {
                if (ReadRecord() is not { } cells)
                {
                    yield break;
                }

                if (cells is [""])
                {
                    continue;
                }

                row = ToRow(++number, names, cells, line, _record.Length);
            }
            catch (RowException broken) when (broken.Fault.Code is "invalid_utf8" or "malformed_csv" or "too_many_columns")
            {
                row = Row.Broken(++number, broken.Fault);
            }

            yield return row;
        }
    }

    private static Row ToRow(int number, string[] names, List<string> cells, int line, int bytes)
    {
        if (cells.Count != names.Length)
        {
            return Row.Broken(number, new(
                "wrong_field_count",
                $"the record has {cells.Count} fields and the header {names.Length} (line {line} of the file); "
                + "put quotes around fields that hold separators or line breaks"));
        }

        var columns = new Dictionary<string, JsonElement>(names.Length);
        for (var i = 0; i < names.Length; i++)
        {
            columns.Add(names[i], JsonSerializer.SerializeToElement(cells[i]));
        }

        return Row.Of(number, columns, bytes);
    }

    /// <summary>The fields of the next record; null at the end of the file.</summary>
    private List<string>? ReadRecord()
    {
        _record.Clear();
        var fields = new List<string>();
        var next = Next();
        if (next == End)
        {
            return null;
        }

        RowException? malformed = null;
        var count = 0;
        while (true)
        {
            next = next == '"' ? ReadQuoted(ref malformed) : ReadBare(next);
            if (++count <= Row.MostColumns)
            {
                fields.Add(Encoding.UTF8.GetString(_field.Span));
            }

            if (next != separator)
            {
                break;
            }

            next = Next();
        }

        // The whole record was read before either is said, so the next one starts where it should.
        _record.CheckUtf8();
        malformed ??= count > Row.MostColumns ? JsonRow.TooManyColumns(count) : null;
        return malformed is null ? fields : throw malformed;
    }

    /// <summary>Reads a field without quotes; returns what ended it.</summary>
    private int ReadBare(int next)
    {
        _field.Clear();
        for (; next != End && next != separator && next != '\n'; next = Next())
        {
            _field.Add((byte)next);
        }

        if (next != separator && _field.Length > 0 && _field.Span[^1] == '\r')
        {
            var bare = _field.Span[..^1].ToArray();
            _field.Clear();
            _field.Add(bare);
        }

        return next;
    }

    /// <summary>Reads a field after its opening quote; returns what ended it.</summary>
    private int ReadQuoted(ref RowException? malformed)
    {
        _field.Clear();
        var line = _line;
        while (true)
        {
            var next = Next();
            if (next == End)
            {
                malformed ??= new("malformed_csv", $"the quote that opens on line {line} of the file is never closed");
                return End;
            }

            if (next != '"')
            {
                _field.Add((byte)next);
                continue;
            }

            next = Next();
            if (next == '"')
            {
                _field.Add((byte)'"');
                continue;
            }

            if (next == '\r')
            {
                next = Next();
            }

            if (next == End || next == separator || next == '\n')
            {
                return next;
            }

            malformed ??= new(
                "malformed_csv", $"text follows a closing quote on line {_line} of the file; write a quote inside a quoted field twice");
            while (next != End && next != separator && next != '\n')
            {
                next = Next();
            }

            return next;
        }
    }

    private int Next()
    {
        var next = source.Next();
        if (next >= 0)
        {
            _record.Add((byte)next);
        }

        if (next == '\n')
        {
            _line++;
        }

        return next;
    }
}
