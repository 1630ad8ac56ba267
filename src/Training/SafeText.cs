using System.Globalization;
using System.Text;

namespace TrainingService.Training;

/// <summary>Text of strangers for places where one line is one statement: logs, terminals, messages.</summary>
public static class SafeText
{
    /// <summary>
    /// The text with <c>\u001B</c> for the escape that steers a terminal, and so for every character that ends a line, steers or turns the
    /// direction of writing.
    /// </summary>
    public static string Escape(string text)
    {
        if (!text.Any(Steers))
        {
            return text;
        }

        var plain = new StringBuilder(text.Length + 16);
        foreach (var letter in text)
        {
            if (Steers(letter))
            {
                plain.Append(CultureInfo.InvariantCulture, $"\\u{(int)letter:X4}");
            }
            else
            {
                plain.Append(letter);
            }
        }

        return plain.ToString();
    }

    private static bool Steers(char letter) =>
        (char.IsControl(letter) && letter != '\t')
        || letter is '\u2028' or '\u2029' or '\u200E' or '\u200F' or '\u061C' or (>= '\u202A' and <= '\u202E') or (>= '\u2066' and <= '\u2069');
}
