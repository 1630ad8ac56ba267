namespace TrainingService.Training.Data.Rows;

/// <summary>The elements of one JSON array, one at a time. An element that is not valid JSON does not hide those after it.</summary>
internal sealed class JsonArray(ByteSource source)
{
    private readonly RowBytes _element = new();
    private int _line = 1;
    private int _column;   // one-based, of the byte read last

    public static IEnumerable<Row> Read(ByteSource source) => new JsonArray(source).Read();

    private IEnumerable<Row> Read()
    {
        while (Next() != '[')
        {
            // Only white space stands before the bracket: the container was recognised by it.
        }

        for (var number = 1; ; number++)
        {
            var first = NextVisible();
            if (first == ']' && number == 1)
            {
                break;
            }

            var (line, column) = (_line, _column);
            var end = ReadElement(first);
            if (end < 0 && _element.Span.Trim(" \t\r\n"u8).IsEmpty)
            {
                yield return Row.Broken(number, new("malformed_json", $"the array does not end: ] is missing (line {_line} of the file)"));
                yield break;
            }

            var row = Parse(number, line, column);
            yield return row;
            if (end == ']')
            {
                break;
            }

            if (end < 0)
            {
                if (row.Fault is not null)
                {
                    yield break;   // the row that never ends was just reported
                }

                yield return Row.Broken(null, new("malformed_json", $"the array does not end: ] is missing (line {_line} of the file)"));
                yield break;
            }
        }

        if (NextVisible() >= 0)
        {
            yield return Row.Broken(null, new("malformed_json", $"text stands after the end of the array (line {_line} of the file)"));
        }
    }

    /// <summary>Collects an element, from its first byte to the comma or bracket after it, which is returned; -1 at the end of the file.</summary>
    private int ReadElement(int current)
    {
        _element.Clear();
        var depth = 0;
        var inString = false;
        var escaped = false;
        for (; current >= 0; current = Next())
        {
            if (inString)
            {
                inString = escaped || current != '"';
                escaped = !escaped && current == '\\';
            }
            else if (depth == 0 && (current is ',' or ']'))
            {
                return current;
            }
            else
            {
                inString = current == '"';
                depth += current is '{' or '[' ? 1 : current is '}' or ']' ? -1 : 0;
            }

            _element.Add((byte)current);
        }

        return -1;
    }

    private Row Parse(int number, int line, int column)
    {
        try
        {
            return Row.Of(number, JsonRow.Parse(_element.Span, line, column), _element.Length);
        }
        catch (RowException broken)
        {
            return Row.Broken(number, broken.Fault);
        }
    }

    private int NextVisible()
    {
        int current;
        do
        {
            current = Next();
        }
        while (current is ' ' or '\t' or '\r' or '\n');

        return current;
    }

    private int Next()
    {
        var next = source.Next();
        if (next == '\n')
        {
            _line++;
            _column = 0;
        }
        else if (next is >= 0 and not (>= 0x80 and < 0xC0))   // bytes that continue a character do not count
        {
            _column++;
        }

        return next;
    }
}
