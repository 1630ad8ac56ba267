using System.Text;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>A small SentencePiece model, written field by field.</summary>
internal static class SentencePieceBytes
{
    /// <param name="type">1 unigram, 2 BPE.</param>
    public static byte[] Model(int type)
    {
        (string Text, float Score, int Type)[] pieces =
            [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("▁", -1, 1), ("a", -2, 1), ("b", -3, 1), ("ab", -1, 1), ("aba", -0.5f, 5), ("<<", 0, 4)];
        return
        [
            .. pieces.SelectMany(piece => Field(1,
                [.. Field(1, Encoding.UTF8.GetBytes(piece.Text)), (2 << 3) | 5, .. BitConverter.GetBytes(piece.Score), 3 << 3, (byte)piece.Type])),
            .. Field(2, [3 << 3, (byte)type]),
            .. Field(3, [.. Field(2, Map()), 4 << 3, 1]),
        ];
    }

    /// <summary>The rule A → a as a double-array trie: one node below the root.</summary>
    private static byte[] Map()
    {
        var units = new uint[256];
        units[0] = 1u << 10;
        units[1 ^ 'A'] = 'A' | 0x100u | (2u << 10);
        units[1 ^ 'A' ^ 2] = 0x80000000u;
        return [.. BitConverter.GetBytes(units.Length * 4), .. units.SelectMany(BitConverter.GetBytes), .. "a\0"u8];
    }

    public static byte[] Field(int number, byte[] content)
    {
        var length = new List<byte>();
        for (var rest = content.Length; ; rest >>= 7)
        {
            length.Add((byte)((rest & 0x7F) | (rest > 0x7F ? 0x80 : 0)));
            if (rest <= 0x7F)
            {
                return [(byte)((number << 3) | 2), .. length, .. content];
            }
        }
    }
}
