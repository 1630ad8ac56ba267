using System.Globalization;
using System.Text;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Reads string literals with Python's escapes.</summary>
internal static class JinjaLiterals
{
    /// <summary>The string whose opening quote stands at <paramref name="position"/>, which moves behind it; null when it is broken.</summary>
    public static string? String(string source, ref int position)
    {
        var quote = source[position];
        var text = new StringBuilder();
        for (position++; position < source.Length; position++)
        {
            var character = source[position];
            if (character == quote)
            {
                position++;
                return text.ToString();
            }

            if (character != '\\' || position + 1 >= source.Length)
            {
                text.Append(character);
                continue;
            }

            position++;
            if (!TryAppendEscape(source, ref position, text))
            {
                return null;
            }
        }

        return null;
    }

    private static bool TryAppendEscape(string source, ref int position, StringBuilder text)
    {
        var character = source[position];
        switch (character)
        {
            case '\n': break;   // joins lines
            case 'n': text.Append('\n'); break;
            case 't': text.Append('\t'); break;
            case 'r': text.Append('\r'); break;
            case 'a': text.Append('\a'); break;
            case 'b': text.Append('\b'); break;
            case 'f': text.Append('\f'); break;
            case 'v': text.Append('\v'); break;
            case '\\' or '\'' or '"': text.Append(character); break;
            case 'x': return TryAppendHex(source, ref position, 2, text);
            case 'u': return TryAppendHex(source, ref position, 4, text);
            case 'U': return TryAppendHex(source, ref position, 8, text);
            default: text.Append('\\').Append(character); break;
        }

        return true;
    }

    private static bool TryAppendHex(string source, ref int position, int digits, StringBuilder text)
    {
        if (position + digits >= source.Length
            || !int.TryParse(source.AsSpan(position + 1, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value)
            || !(Rune.IsValid(value) || value is >= 0xD800 and <= 0xDFFF))
        {
            return false;
        }

        text.Append(value <= 0xFFFF ? ((char)value).ToString() : new Rune(value).ToString());
        position += digits;
        return true;
    }
}
