namespace TrainingService.Training.Data.Rows;

/// <summary>One JSON object per line. The number of a row is that of its line; blank lines are passed over.</summary>
internal static class JsonLines
{
    public static IEnumerable<Row> Read(ByteSource source)
    {
        var bytes = new RowBytes();
        for (var number = 1; ReadLine(source, bytes); number++)
        {
            if (!bytes.Span.Trim(" \t\r"u8).IsEmpty)
            {
                yield return Row.Unparsed(number, bytes.Span);
            }
        }
    }

    private static bool ReadLine(ByteSource source, RowBytes bytes)
    {
        bytes.Clear();
        var any = false;
        for (var available = source.Available; !available.IsEmpty; available = source.Available)
        {
            any = true;
            var end = available.IndexOf((byte)'\n');
            bytes.Add(end < 0 ? available : available[..end]);
            source.Take(end < 0 ? available.Length : end + 1);
            if (end >= 0)
            {
                break;
            }
        }

        return any;
    }
}
