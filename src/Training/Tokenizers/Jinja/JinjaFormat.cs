using System.Globalization;
using System.Text;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Writes values as text: as output does, as Python's <c>repr</c>, and as JSON.</summary>
internal sealed class JinjaFormat(JinjaBudget budget)
{
    public string Text(JinjaValue value) => value switch
    {
        JinjaString text => text.Value,
        JinjaUndefined => "",
        _ => Write(builder => Repr(value, builder)),
    };

    /// <summary>JSON as Python's <c>json.dumps</c> spells it, which is what models were trained on.</summary>
    public string Json(JinjaValue value, JsonStyle style) => Write(builder => Json(value, style, 0, builder));

    public static string Number(double value)
    {
        if (double.IsNaN(value))
        {
            return "nan";
        }

        if (double.IsInfinity(value))
        {
            return value > 0 ? "inf" : "-inf";
        }

        // Python writes the same shortest digits, with an exponent from 1e16 and below 1e-4.
        var parts = Math.Abs(value).ToString("R", CultureInfo.InvariantCulture).Split('E');
        var whole = parts[0].Split('.')[0];
        var all = parts[0].Replace(".", "", StringComparison.Ordinal);
        var digits = all.TrimStart('0').TrimEnd('0');
        var exponent = whole.Length - 1 - (all.Length - all.TrimStart('0').Length)
            + (parts.Length > 1 ? int.Parse(parts[1], CultureInfo.InvariantCulture) : 0);
        var sign = double.IsNegative(value) ? "-" : "";
        if (digits.Length == 0)
        {
            return sign + "0.0";
        }

        if (exponent is < -4 or >= 16)
        {
            var mantissa = digits.Length > 1 ? $"{digits[0]}.{digits[1..]}" : digits;
            return string.Create(
                CultureInfo.InvariantCulture, $"{sign}{mantissa}e{(exponent < 0 ? '-' : '+')}{Math.Abs(exponent):00}");
        }

        if (exponent < 0)
        {
            return $"{sign}0.{new string('0', -exponent - 1)}{digits}";
        }

        digits = digits.PadRight(exponent + 2, '0');
        return $"{sign}{digits[..(exponent + 1)]}.{digits[(exponent + 1)..]}";
    }

    private string Write(Action<StringBuilder> write)
    {
        var builder = new StringBuilder();
        write(builder);
        budget.Text(builder.Length);
        return builder.ToString();
    }

    private void Repr(JinjaValue value, StringBuilder builder)
    {
        Room(builder);
        budget.Enter();
        switch (value)
        {
            case JinjaString text:
                budget.Text(text.Value.Length);
                ReprText(text.Value, builder);
                break;
            case JinjaNone: builder.Append("None"); break;
            case JinjaBoolean flag: builder.Append(flag.IsTrue ? "True" : "False"); break;
            case JinjaInteger number: builder.Append(number.Value.ToString(CultureInfo.InvariantCulture)); break;
            case JinjaFloat number: builder.Append(Number(number.Value)); break;
            case JinjaUndefined: builder.Append("Undefined"); break;
            case JinjaList list:
                builder.Append(list.IsTuple ? '(' : '[');
                Join(list.Items, builder, item => Repr(item, builder));
                builder.Append(list is { IsTuple: true, Items.Count: 1 } ? ",)" : list.IsTuple ? ")" : "]");
                break;
            case JinjaDictionary dictionary:
                builder.Append('{');
                Join(dictionary.Entries, builder, entry =>
                {
                    Repr(entry.Key, builder);
                    builder.Append(": ");
                    Repr(entry.Value, builder);
                });
                builder.Append('}');
                break;
            default:
                builder.Append('<').Append(value.TypeName).Append('>');
                break;
        }

        budget.Leave();
    }

    private static void ReprText(string text, StringBuilder builder)
    {
        var quote = text.Contains('\'') && !text.Contains('"') ? '"' : '\'';
        builder.Append(quote);
        foreach (var rune in text.EnumerateRunes())
        {
            switch (rune.Value)
            {
                case '\n': builder.Append("\\n"); break;
                case '\r': builder.Append("\\r"); break;
                case '\t': builder.Append("\\t"); break;
                case '\\': builder.Append(@"\\"); break;
                case var value when value == quote: builder.Append('\\').Append(quote); break;
                case < 0x20 or (>= 0x7F and <= 0xA0) or 0xAD:
                    builder.Append(CultureInfo.InvariantCulture, $"\\x{rune.Value:x2}");
                    break;
                default:
                    if (IsPrintable(rune))
                    {
                        builder.Append(rune);
                    }
                    else
                    {
                        builder.Append(rune.IsBmp ? "\\u" : "\\U")
                            .Append(rune.Value.ToString(rune.IsBmp ? "x4" : "x8", CultureInfo.InvariantCulture));
                    }

                    break;
            }
        }

        builder.Append(quote);
    }

    private static bool IsPrintable(Rune rune) => rune.Value == ' ' || Rune.GetUnicodeCategory(rune) is not (
        UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse
        or UnicodeCategory.OtherNotAssigned or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator
        or UnicodeCategory.SpaceSeparator);

    private void Json(JinjaValue value, JsonStyle style, int level, StringBuilder builder)
    {
        Room(builder);
        budget.Enter();
        switch (value)
        {
            case JinjaString text:
                budget.Text(text.Value.Length);
                JsonText(text.Value, style.Ascii, builder);
                break;
            case JinjaNone: builder.Append("null"); break;
            case JinjaBoolean flag: builder.Append(flag.IsTrue ? "true" : "false"); break;
            case JinjaInteger number: builder.Append(number.Value.ToString(CultureInfo.InvariantCulture)); break;
            case JinjaFloat number: builder.Append(JsonNumber(number.Value)); break;
            case JinjaList list:
                JsonItems('[', ']', list.Items, style, level, builder, item => Json(item, style, level + 1, builder));
                break;
            case JinjaDictionary dictionary:
                var entries = style.SortKeys
                    ? dictionary.Entries.OrderBy(entry => Text(entry.Key), StringComparer.Ordinal).ToList()
                    : dictionary.Entries;
                JsonItems('{', '}', entries, style, level, builder, entry =>
                {
                    JsonText(entry.Key is JinjaString key ? key.Value : Json(entry.Key, style), style.Ascii, builder);
                    builder.Append(style.KeySeparator);
                    Json(entry.Value, style, level + 1, builder);
                });
                break;
            default:
                throw JinjaErrors.Run($"a value of the kind {value.TypeName} cannot be written as JSON");
        }

        budget.Leave();
    }

    private static string JsonNumber(double value) => Number(value) switch
    {
        "nan" => "NaN",
        "inf" => "Infinity",
        "-inf" => "-Infinity",
        var text => text,
    };

    private static void JsonItems<T>(
        char open, char close, IReadOnlyList<T> items, JsonStyle style, int level, StringBuilder builder, Action<T> write)
    {
        builder.Append(open);
        for (var i = 0; i < items.Count; i++)
        {
            builder.Append(i == 0 ? "" : style.ItemSeparator);
            NewLine(style, level + 1, builder);
            write(items[i]);
        }

        if (items.Count > 0)
        {
            NewLine(style, level, builder);
        }

        builder.Append(close);
    }

    private static void NewLine(JsonStyle style, int level, StringBuilder builder)
    {
        if (style.Indent is not null)
        {
            builder.Append('\n').Insert(builder.Length, style.Indent, level);
        }
    }

    private static void JsonText(string text, bool ascii, StringBuilder builder)
    {
        builder.Append('"');
        foreach (var character in text)
        {
            switch (character)
            {
                case '"': builder.Append("\\\""); break;
                case '\\': builder.Append(@"\\"); break;
                case '\n': builder.Append("\\n"); break;
                case '\r': builder.Append("\\r"); break;
                case '\t': builder.Append("\\t"); break;
                case '\b': builder.Append("\\b"); break;
                case '\f': builder.Append("\\f"); break;
                case var other when other < 0x20 || (ascii && other > 0x7E):
                    builder.Append(CultureInfo.InvariantCulture, $"\\u{(int)other:x4}");
                    break;
                default: builder.Append(character); break;
            }
        }

        builder.Append('"');
    }

    private static void Join<T>(IReadOnlyList<T> items, StringBuilder builder, Action<T> write)
    {
        for (var i = 0; i < items.Count; i++)
        {
            builder.Append(i == 0 ? "" : ", ");
            write(items[i]);
        }
    }

    /// <summary>A value may hold another many times, so its text is counted while it grows.</summary>
    private void Room(StringBuilder builder)
    {
        budget.Step();
        if (builder.Length > JinjaBudget.MaxText)
        {
            budget.Text(builder.Length);
        }
    }
}

/// <summary>How JSON is written.</summary>
/// <param name="Indent">One level of indentation; null writes one line.</param>
internal sealed record JsonStyle(string? Indent, string ItemSeparator, string KeySeparator, bool SortKeys, bool Ascii);
