using System.Globalization;
using System.Text;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>The functions that a chat template finds besides its variables.</summary>
internal static class JinjaGlobals
{
    private const int LongestRange = 100_000;   // as Jinja's sandbox has it

    public static IReadOnlyDictionary<string, JinjaValue> Create(
        JinjaBudget budget, JinjaOperators operators, JinjaFormat format, TimeProvider clock) => new JinjaFunction[]
        {
            new("raise_exception", arguments => throw JinjaErrors.Raised(format.Text(arguments.Need(0, "message")))),
            new("strftime_now", arguments => new JinjaString(Time(clock.GetLocalNow(), Format(arguments, budget)))),
            new("range", arguments => Range(arguments, budget)),
            new("namespace", arguments => Namespace(arguments, budget, format)),
            new("dict", arguments => Dictionary(arguments, budget, operators)),
        }.ToDictionary(function => function.Name, JinjaValue (function) => function, StringComparer.Ordinal);

    private static JinjaList Range(JinjaArguments arguments, JinjaBudget budget)
    {
        long Argument(int index) => JinjaOperators.Whole(arguments.Need(index, "range"));

        var (start, stop) = arguments.Positional.Count > 1 ? (Argument(0), Argument(1)) : (0, Argument(0));
        var step = arguments.Positional.Count > 2 ? Argument(2) : 1;
        if (step == 0)
        {
            throw JinjaErrors.Run("a range has the step 0");
        }

        var count = Math.Max(0, Math.Ceiling(((double)stop - start) / step));
        if (count > LongestRange)
        {
            throw JinjaErrors.Limit(string.Create(CultureInfo.InvariantCulture, $"it makes a range of more than {LongestRange} numbers"));
        }

        budget.Items((long)count);
        return new JinjaList([.. Enumerable.Range(0, (int)count).Select(i => new JinjaInteger(start + (i * step)))]);
    }

    private static string Format(JinjaArguments arguments, JinjaBudget budget)
    {
        const int longestPart = 16;   // about what the name of a weekday takes, to make and to hold
        var format = arguments.Text(0, "format");
        budget.Text((long)format.Length * longestPart);
        return format;
    }

    private static JinjaNamespace Namespace(JinjaArguments arguments, JinjaBudget budget, JinjaFormat format)
    {
        var space = new JinjaNamespace();
        if (arguments.Get(0, "") is JinjaDictionary from)
        {
            budget.Items(from.Entries.Count);
            foreach (var (key, value) in from.Entries)
            {
                space.Members[format.Text(key)] = value;
            }
        }

        foreach (var (name, value) in arguments.Named)
        {
            space.Members[name] = value;
        }

        return space;
    }

    private static JinjaDictionary Dictionary(JinjaArguments arguments, JinjaBudget budget, JinjaOperators operators)
    {
        var dictionary = new JinjaDictionary();
        switch (arguments.Get(0, ""))
        {
            case null:
                break;
            case JinjaDictionary from:
                budget.Items(from.Entries.Count);
                foreach (var (key, value) in from.Entries)
                {
                    dictionary.Set(key, value);
                }

                break;
            case var pairs:
                foreach (var pair in operators.Iterate(pairs).Select(operators.Iterate))
                {
                    if (pair.Count != 2)
                    {
                        throw JinjaErrors.Run("dict needs pairs");
                    }

                    dictionary.Set(pair[0], pair[1]);
                }

                break;
        }

        foreach (var (name, value) in arguments.Named)
        {
            dictionary.Set(name, value);
        }

        return dictionary;
    }

    private static string Time(DateTimeOffset now, string format)
    {
        var text = new StringBuilder();
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                text.Append(format[i]);
                continue;
            }

            i++;
            var unpadded = format[i] == '-' && i + 1 < format.Length;
            i += unpadded ? 1 : 0;
            var part = TimePart(now, format[i]);
            text.Append(unpadded && part.Length > 1 ? part.TrimStart('0') is { Length: > 0 } trimmed ? trimmed : "0" : part);
        }

        return text.ToString();
    }

    private static string TimePart(DateTimeOffset now, char code)
    {
        string As(string format) => now.ToString(format, CultureInfo.InvariantCulture);

        return code switch
        {
            'd' => As("dd"),
            'm' => As("MM"),
            'b' or 'h' => As("MMM"),
            'B' => As("MMMM"),
            'y' => As("yy"),
            'Y' => As("yyyy"),
            'a' => As("ddd"),
            'A' => As("dddd"),
            'H' => As("HH"),
            'I' => As("hh"),
            'M' => As("mm"),
            'S' => As("ss"),
            'p' => As("tt"),
            'f' => As("ffffff"),
            'j' => now.DayOfYear.ToString("000", CultureInfo.InvariantCulture),
            'w' => ((int)now.DayOfWeek).ToString(CultureInfo.InvariantCulture),
            'F' => As("yyyy-MM-dd"),
            'T' => As("HH:mm:ss"),
            'D' => As("MM/dd/yy"),
            'R' => As("HH:mm"),
            '%' => "%",
            _ => throw JinjaErrors.Run($"strftime_now does not know %{code}"),
        };
    }
}
