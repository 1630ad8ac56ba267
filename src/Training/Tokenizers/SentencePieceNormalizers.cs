using System.Buffers.Binary;
using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>Spaces at both ends go, several become one.</summary>
internal sealed class ExtraSpaceNormalizer : Normalizer
{
    public override MappedText Apply(MappedText text)
    {
        var builder = new MappedText.Builder(text);
        var position = 0;
        while (position < text.Text.Length)
        {
            var end = text.Text.IndexOf(' ', position);
            end = end < 0 ? text.Text.Length : end;
            if (end > position)
            {
                if (builder.Length > 0)
                {
                    builder.Copy(position - 1, 1);
                }

                builder.Copy(position, end - position);
            }

            position = end + 1;
        }

        return builder.Build();
    }
}

/// <summary>SentencePiece's compiled normalisation rules: the longest byte sequence that has a replacement is replaced.</summary>
/// <remarks>The map is a double-array trie (google/sentencepiece, <c>third_party/darts_clone</c>) and the replacements, each ended by a zero.</remarks>
internal sealed class CharactersMapNormalizer : Normalizer
{
    private readonly uint[] _units;
    private readonly byte[] _replacements;

    public CharactersMapNormalizer(byte[] map)
    {
        var size = map.Length >= 4 ? BinaryPrimitives.ReadUInt32LittleEndian(map) : uint.MaxValue;
        if (size > map.Length - 4 || size % 4 != 0 || size == 0)
        {
            throw Broken();
        }

        _units = new uint[size / 4];
        for (var i = 0; i < _units.Length; i++)
        {
            _units[i] = BinaryPrimitives.ReadUInt32LittleEndian(map.AsSpan(4 + (4 * i)));
        }

        _replacements = map[(4 + (int)size)..];
    }

    public override MappedText Apply(MappedText text)
    {
        var bytes = Encoding.UTF8.GetBytes(text.Text);
        var builder = new MappedText.Builder(text);
        var character = 0;
        for (var position = 0; position < bytes.Length;)
        {
            var (value, length) = Longest(bytes.AsSpan(position));
            var characters = 0;
            if (length == 0)
            {
                Rune.DecodeFromUtf8(bytes.AsSpan(position), out var rune, out length);
                characters = rune.Utf16SequenceLength;
                builder.Copy(character, characters);
            }
            else
            {
                characters = Encoding.UTF8.GetCharCount(bytes, position, length);
                var (start, end) = text.Source(character, characters);
                builder.Append(Replacement(value), start, end);
            }

            position += length;
            character += characters;
        }

        return builder.Build();
    }

    private (int Value, int Length) Longest(ReadOnlySpan<byte> bytes)
    {
        var found = (Value: 0, Length: 0);
        var node = Offset(_units[0]);
        for (var i = 0; i < bytes.Length; i++)
        {
            node ^= bytes[i];
            if (node >= _units.Length || (_units[node] & 0x800000FFu) != bytes[i])
            {
                break;
            }

            var unit = _units[node];
            node ^= Offset(unit);
            var endsCharacter = i + 1 == bytes.Length || (bytes[i + 1] & 0xC0) != 0x80;   // a damaged map may cut one in two
            if ((unit & 0x100) != 0 && endsCharacter)
            {
                found = node < _units.Length ? ((int)(_units[node] & 0x7FFFFFFF), i + 1) : throw Broken();
            }
        }

        return found;
    }

    private string Replacement(int start)
    {
        if (start >= _replacements.Length)
        {
            throw Broken();
        }

        var end = Array.IndexOf(_replacements, (byte)0, start);
        return Encoding.UTF8.GetString(_replacements, start, (end < 0 ? _replacements.Length : end) - start);
    }

    private static uint Offset(uint unit) => (unit >> 10) << (int)((unit & 0x200) >> 6);

    private static TrainingException Broken() => TrainingException.InvalidData(
        "The normalisation rules in tokenizer.model are damaged; fetch the file again.", "tokenizer.model");
}
