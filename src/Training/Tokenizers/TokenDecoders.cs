using System.Globalization;
using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>One step from the vocabulary's spelling of tokens back to text.</summary>
internal abstract class TokenDecoder
{
    public abstract List<string> Apply(List<string> tokens);
}

internal sealed class SequenceDecoder(IReadOnlyList<TokenDecoder> steps) : TokenDecoder
{
    public override List<string> Apply(List<string> tokens) => steps.Aggregate(tokens, (current, step) => step.Apply(current));
}

internal sealed class FuseDecoder : TokenDecoder
{
    public override List<string> Apply(List<string> tokens) => [string.Concat(tokens)];
}

internal sealed class ReplaceDecoder(string from, string to) : TokenDecoder
{
    public override List<string> Apply(List<string> tokens) =>
        [.. tokens.Select(token => token.Replace(from, to, StringComparison.Ordinal))];
}

/// <summary>Takes up to so many of a character off both ends of each token.</summary>
internal sealed class StripDecoder(char content, int start, int stop) : TokenDecoder
{
    public override List<string> Apply(List<string> tokens) => [.. tokens.Select(Strip)];

    private string Strip(string token)
    {
        var from = 0;
        while (from < start && from < token.Length && token[from] == content)
        {
            from++;
        }

        var end = token.Length;
        while (token.Length - end < stop && end > from && token[end - 1] == content)
        {
            end--;
        }

        return token[from..end];
    }
}

/// <summary>▁ becomes a space; the one that was put before the text goes.</summary>
internal sealed class MetaspaceDecoder(char replacement, bool prepended) : TokenDecoder
{
    public override List<string> Apply(List<string> tokens) =>
        [.. tokens.Select((token, i) => (i == 0 && prepended && token.StartsWith(replacement) ? token[1..] : token).Replace(replacement, ' '))];
}

/// <summary>Joins tokens and turns each printable stand-in back into its byte.</summary>
internal sealed class ByteLevelDecoder : TokenDecoder
{
    public override List<string> Apply(List<string> tokens)
    {
        var bytes = new List<byte>();
        var own = new List<byte>();
        foreach (var token in tokens)
        {
            own.Clear();
            foreach (var character in token)
            {
                if (!ByteCharacters.TryGetByte(character, out var value))
                {
                    own.Clear();
                    own.AddRange(Encoding.UTF8.GetBytes(token));   // an added token spelled in plain text
                    break;
                }

                own.Add(value);
            }

            bytes.AddRange(own);
        }

        return [Encoding.UTF8.GetString([.. bytes])];
    }
}

/// <summary>Turns runs of <c>&lt;0xE2&gt;</c>-like tokens into the text they spell; a run that is no UTF-8 becomes U+FFFD per byte.</summary>
internal sealed class ByteFallbackDecoder : TokenDecoder
{
    private static readonly UTF8Encoding Strict = new(false, throwOnInvalidBytes: true);

    public override List<string> Apply(List<string> tokens)
    {
        var result = new List<string>(tokens.Count);
        var bytes = new List<byte>();
        foreach (var token in tokens)
        {
            if (TryParse(token, out var value))
            {
                bytes.Add(value);
                continue;
            }

            Flush(bytes, result);
            result.Add(token);
        }

        Flush(bytes, result);
        return result;
    }

    /// <summary>The byte that a token such as <c>&lt;0x0A&gt;</c> stands for.</summary>
    public static bool TryParse(string token, out byte value)
    {
        value = 0;
        return token.Length == 6 && token.StartsWith("<0x", StringComparison.Ordinal) && token[5] == '>'
            && byte.TryParse(token.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value);
    }

    private static void Flush(List<byte> bytes, List<string> result)
    {
        if (bytes.Count == 0)
        {
            return;
        }

        byte[] run = [.. bytes];
        bytes.Clear();
        try
        {
            result.Add(Strict.GetString(run));
        }
        catch (DecoderFallbackException)
        {
            result.Add(new string('\uFFFD', run.Length));
        }
    }
}
