using System.Buffers.Binary;
using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>What a piece of a SentencePiece model is; the numbers are the file's.</summary>
internal enum SentencePieceType
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

internal readonly record struct SentencePiece(string Text, float Score, SentencePieceType Type);

/// <summary>The content of a <c>tokenizer.model</c>.</summary>
/// <remarks>Field numbers from google/sentencepiece, <c>src/sentencepiece_model.proto</c>. Five fields do not need a protobuf library.</remarks>
internal sealed class SentencePieceFile
{
    public List<SentencePiece> Pieces { get; } = [];

    /// <summary>1 unigram, 2 BPE, 3 words, 4 characters.</summary>
    public int ModelType { get; private set; } = 1;

    public bool ByteFallback { get; private set; }

    public bool WhitespaceAsSuffix { get; private set; }

    public int BosId { get; private set; } = 1;

    public int EosId { get; private set; } = 2;

    public int PadId { get; private set; } = -1;

    public byte[] CharactersMap { get; private set; } = [];

    public bool AddDummyPrefix { get; private set; } = true;

    public bool RemoveExtraWhitespaces { get; private set; } = true;

    public bool EscapeWhitespaces { get; private set; } = true;

    public static SentencePieceFile Read(byte[] content)
    {
        var file = new SentencePieceFile();
        foreach (var field in Fields(content))
        {
            switch (field.Number)
            {
                case 1:
                    file.Pieces.Add(ReadPiece(field.Bytes));
                    break;
                case 2:
                    file.ReadTrainer(field.Bytes);
                    break;
                case 3:
                    file.ReadNormalizer(field.Bytes);
                    break;
                default:
                    break;   // self-test data and the denormaliser do not change encoding
            }
        }

        return file.Pieces.Count > 0 ? file : throw Broken("holds no pieces");
    }

    private static SentencePiece ReadPiece(ReadOnlyMemory<byte> bytes)
    {
        var piece = new SentencePiece("", 0, SentencePieceType.Normal);
        foreach (var field in Fields(bytes))
        {
            piece = field.Number switch
            {
                1 => piece with { Text = Encoding.UTF8.GetString(field.Bytes.Span) },
                2 => piece with { Score = BitConverter.Int32BitsToSingle((int)field.Value) },
                3 => piece with { Type = (SentencePieceType)field.Value },
                _ => piece,
            };
        }

        return Enum.IsDefined(piece.Type) ? piece : throw Broken($"gives the piece '{piece.Text}' the unknown type {(int)piece.Type}");
    }

    private void ReadTrainer(ReadOnlyMemory<byte> bytes)
    {
        foreach (var field in Fields(bytes))
        {
            switch (field.Number)
            {
                case 3: ModelType = (int)field.Value; break;
                case 24: WhitespaceAsSuffix = field.Value != 0; break;
                case 35: ByteFallback = field.Value != 0; break;
                case 41: BosId = (int)field.Value; break;
                case 42: EosId = (int)field.Value; break;
                case 43: PadId = (int)field.Value; break;
                default: break;   // how the model was trained
            }
        }
    }

    private void ReadNormalizer(ReadOnlyMemory<byte> bytes)
    {
        foreach (var field in Fields(bytes))
        {
            switch (field.Number)
            {
                case 2: CharactersMap = field.Bytes.ToArray(); break;
                case 3: AddDummyPrefix = field.Value != 0; break;
                case 4: RemoveExtraWhitespaces = field.Value != 0; break;
                case 5: EscapeWhitespaces = field.Value != 0; break;
                default: break;   // the rules' name and source, which the map was compiled from
            }
        }
    }

    private static IEnumerable<(int Number, ulong Value, ReadOnlyMemory<byte> Bytes)> Fields(ReadOnlyMemory<byte> bytes)
    {
        var position = 0;
        while (position < bytes.Length)
        {
            var key = ReadVarint(bytes.Span, ref position);
            var number = (int)(key >> 3);
            switch (key & 7)
            {
                case 0:
                    yield return (number, ReadVarint(bytes.Span, ref position), default);
                    break;
                case 1:
                    yield return (number, BinaryPrimitives.ReadUInt64LittleEndian(Take(bytes, 8, ref position).Span), default);
                    break;
                case 2:
                    var length = ReadVarint(bytes.Span, ref position);
                    yield return (number, 0, Take(bytes, length, ref position));
                    break;
                case 5:
                    yield return (number, BinaryPrimitives.ReadUInt32LittleEndian(Take(bytes, 4, ref position).Span), default);
                    break;
                case var wire:
                    throw Broken($"has a field of the unknown kind {wire}");
            }
        }
    }

    private static ReadOnlyMemory<byte> Take(ReadOnlyMemory<byte> bytes, ulong length, ref int position)
    {
        if (length > (ulong)(bytes.Length - position))
        {
            throw Broken("ends in the middle of a field");
        }

        var part = bytes.Slice(position, (int)length);
        position += (int)length;
        return part;
    }

    private static ulong ReadVarint(ReadOnlySpan<byte> bytes, ref int position)
    {
        var value = 0UL;
        for (var shift = 0; shift < 70; shift += 7)
        {
            if (position >= bytes.Length)
            {
                throw Broken("ends in the middle of a number");
            }

            var part = bytes[position++];
            value |= (ulong)(part & 0x7F) << shift;
            if (part < 0x80)
            {
                return value;
            }
        }

        throw Broken("has a number of more than ten bytes");
    }

    private static TrainingException Broken(string what) => TrainingException.InvalidData(
        $"tokenizer.model {what}; it is no SentencePiece model, or it is damaged: fetch it again.", "tokenizer.model");
}
