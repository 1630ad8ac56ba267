using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>A text made from part of the input, with the input characters that each of its characters came from.</summary>
/// <remarks>
/// Most texts are a slice of the input behind a short prefix, which two numbers describe; only texts whose characters were replaced by
/// other numbers of characters carry arrays.
/// </remarks>
internal sealed class MappedText
{
    /// <summary>Characters of any text on its way through a tokenizer.</summary>
    private const int Longest = 1 << 26;

    /// <summary>How much longer than its input a text may become: one character has at most 18 in its place in Unicode's own rules.</summary>
    private const int MostGrowth = 64;

    private readonly int _offset;
    private readonly int _prefix;
    private readonly int[]? _starts;
    private readonly int[]? _ends;

    private MappedText(string text, int offset, int prefix, int[]? starts, int[]? ends)
    {
        Text = text;
        _offset = offset;
        _prefix = prefix;
        _starts = starts;
        _ends = ends;
    }

    public string Text { get; }

    /// <summary>Gives <paramref name="to"/> back.</summary>
    /// <exception cref="TrainingException">Rules of the tokenizer made much of little, which they may do again and again.</exception>
    public static MappedText CheckGrowth(MappedText from, MappedText to) =>
        to.Text.Length <= 1024 + ((long)from.Text.Length * MostGrowth) ? to : throw TooLong(to.Text.Length, from.Text.Length);

    private static TrainingException TooLong(int length, int from) => TrainingException.InvalidData(
        $"The tokenizer's rules turn a text of {from} characters into one of {length} or more; export the tokenizer again.", "tokenizer.json");

    public static MappedText Slice(string source, int start, int length) =>
        new(source.Substring(start, length), start, 0, null, null);

    /// <summary>The input characters [start, end) behind a range of this text.</summary>
    public (int Start, int End) Source(int start, int length)
    {
        if (_starts is null || _ends is null)
        {
            return (SourceIndex(start), SourceIndex(start + length));
        }

        return length > 0
            ? (_starts[start], _ends[start + length - 1])
            : start < _starts.Length ? (_starts[start], _starts[start]) : End();
    }

    /// <summary>The same text with one character in place of each other one, equally long.</summary>
    public MappedText WithText(string text) => new(text, _offset, _prefix, _starts, _ends);

    /// <summary>This text behind <paramref name="prefix"/>, which stands for no input.</summary>
    public MappedText Prepend(string prefix)
    {
        if (_starts is null)
        {
            return new(prefix + Text, _offset, _prefix + prefix.Length, null, null);
        }

        var builder = new Builder(this);
        var start = Source(0, 0).Start;
        builder.Append(prefix, start, start);
        builder.Copy(0, Text.Length);
        return builder.Build();
    }

    /// <summary>Part of this text.</summary>
    public MappedText Part(int start, int length)
    {
        if (start == 0 && length == Text.Length)
        {
            return this;
        }

        if (_starts is not null)
        {
            return new(
                Text.Substring(start, length), 0, 0, _starts[start..(start + length)], _ends![start..(start + length)]);
        }

        return new(Text.Substring(start, length), SourceIndex(start), Math.Max(0, _prefix - start), null, null);
    }

    private int SourceIndex(int index) => _offset + Math.Max(0, index - _prefix);

    private (int Start, int End) End() => _ends is { Length: > 0 } ? (_ends[^1], _ends[^1]) : (_offset, _offset);

    /// <summary>Makes a new text from <paramref name="from"/>, piece by piece.</summary>
    internal sealed class Builder(MappedText from)
    {
        private readonly StringBuilder _text = new(from.Text.Length + 16);
        private readonly List<int> _starts = new(from.Text.Length + 16);
        private readonly List<int> _ends = new(from.Text.Length + 16);

        public int Length => _text.Length;

        /// <summary>Appends characters that stand for the given input range, each for all of it.</summary>
        public void Append(ReadOnlySpan<char> text, int sourceStart, int sourceEnd)
        {
            if (_text.Length > Longest - text.Length)
            {
                throw TooLong(_text.Length, from.Text.Length);
            }

            _text.Append(text);
            for (var i = 0; i < text.Length; i++)
            {
                _starts.Add(sourceStart);
                _ends.Add(sourceEnd);
            }
        }

        public void Append(char character, int sourceStart, int sourceEnd)
        {
            _text.Append(character);
            _starts.Add(sourceStart);
            _ends.Add(sourceEnd);
        }

        /// <summary>Appends characters of the text this one is made from, unchanged.</summary>
        public void Copy(int start, int length)
        {
            _text.Append(from.Text, start, length);
            for (var i = start; i < start + length; i++)
            {
                var (first, end) = from.Source(i, 1);
                _starts.Add(first);
                _ends.Add(end);
            }
        }

        public MappedText Build() => new(_text.ToString(), 0, 0, [.. _starts], [.. _ends]);
    }
}
