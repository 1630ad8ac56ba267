using System.Text;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Tokenizers;

/// <summary>Small SentencePiece models, written field by field.</summary>
public sealed class SentencePieceTests : IDisposable
{
    private const int Unigram = 1, Bpe = 2, Words = 3;

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>
    /// ▁ab scores -1 + -5 as ▁a|b, -9 as ▁ab, -4 - 3 - 5 as ▁|a|b: the first is best. x is unknown (-9 - 10), twice in a row one token.
    /// </summary>
    [Fact]
    public void Unigram_takes_the_cut_of_highest_score()
    {
        var tokenizer = Load(Unigram, [("▁", -4, 1), ("a", -3, 1), ("b", -5, 1), ("▁a", -1, 1), ("▁ab", -9, 1)]);

        var (ids, offsets) = tokenizer.EncodeWithOffsets("ab xxa", addSpecialTokens: false);

        Assert.Equal([6, 5, 3, 0, 4], ids);
        Assert.Equal([(0, 1), (1, 1), (2, 1), (3, 2), (5, 1)], offsets);
        Assert.Equal("ab a", tokenizer.Decode([6, 5, 3, 4]));
    }

    [Fact]
    public void Equal_scores_merge_leftmost_first() =>
        Assert.Equal([3, 6, 4], Load(Bpe, [("▁", -9, 1), ("a", -9, 1), ("b", -9, 1), ("aa", -1, 1)]).Encode("aaa", addSpecialTokens: false));

    /// <summary>The map replaces A by a: one node of a double-array trie, laid out by hand.</summary>
    [Fact]
    public void Compiled_normalisation_rules_are_applied()
    {
        var units = new uint[256];
        units[0] = 1u << 10;                                // the root's children stand at 1 ^ their byte
        units[1 ^ 'A'] = 'A' | 0x100u | (2u << 10);         // A: ends a key; its value stands at its place ^ 2
        units[1 ^ 'A' ^ 2] = 0x80000000u;                   // the value: replacement at 0
        byte[] map = [.. BitConverter.GetBytes(units.Length * 4), .. units.SelectMany(BitConverter.GetBytes), .. "a\0"u8];
        var tokenizer = Load(Bpe, [("▁", -9, 1), ("a", -9, 1), ("b", -9, 1)], map);

        var (ids, offsets) = tokenizer.EncodeWithOffsets("Ab", addSpecialTokens: false);

        Assert.Equal([3, 4, 5], ids);
        Assert.Equal([(0, 0), (0, 1), (1, 1)], offsets);
    }

    [Fact]
    public void Extra_spaces_go_where_the_model_says()
    {
        var tokenizer = Load(Bpe, [("▁", -9, 1), ("a", -9, 1)], removeSpaces: true);

        Assert.Equal(tokenizer.Encode("a a"), tokenizer.Encode("  a   a "));
    }

    [Fact]
    public void An_unused_piece_falls_into_its_parts() =>
        Assert.Equal([3, 4, 5, 6], Load(Bpe, [("▁", -9, 1), ("a", -9, 1), ("b", -9, 1), ("c", -9, 1), ("ab", -1, 5)]).Encode("abc", addSpecialTokens: false));

    [Fact]
    public void A_piece_merges_from_characters_that_are_no_pieces()
    {
        var tokenizer = Load(Bpe, [("▁", -9, 1), ("ab", -1, 1)]);

        Assert.Equal([3, 4, 0], tokenizer.Encode("aba", addSpecialTokens: false));
    }

    [Theory]
    [InlineData(null, new[] { 1, 3, 4, 2, 3, 4 })]
    [InlineData("""{"legacy": true}""", new[] { 1, 3, 4, 2, 3, 4 })]
    [InlineData("""{"legacy": false}""", new[] { 1, 3, 4, 2, 4 })]
    [InlineData("""{"legacy": false, "add_bos_token": false, "add_eos_token": true, "eos_token": "</s>"}""", new[] { 3, 4, 2, 4, 2 })]
    [InlineData("""{"add_prefix_space": false}""", new[] { 1, 4, 2, 4 })]
    public void Settings_say_where_spaces_and_special_tokens_go(string? settings, int[] expected)
    {
        if (settings is not null)
        {
            _folder.With("tokenizer_config.json", settings);
        }

        Assert.Equal(expected, Load(Bpe, [("▁", -9, 1), ("a", -9, 1)]).Encode("a</s>a"));
    }

    [Fact]
    public void Other_kinds_and_broken_files_are_refused()
    {
        Assert.Contains("model type 3", Assert.Throws<TrainingException>(() => Load(Words, [("a", -1, 1)])).Message, StringComparison.Ordinal);
        var whole = Model(Bpe, [("▁", -9, 1), ("a", -9, 1)], [], removeSpaces: false);
        for (var length = 0; length < whole.Length; length++)
        {
            // Cut anywhere, a file is either refused or still a model; it never fails in another way.
            File.WriteAllBytes(Path.Combine(_folder.Path, "tokenizer.model"), whole[..length]);
            Assert.True(Record.Exception(() => Tokenizer.Load(_folder.Path)) is null or TrainingException);
        }
    }

    private Tokenizer Load(int type, (string Text, float Score, int Type)[] pieces, byte[]? map = null, bool removeSpaces = false)
    {
        File.WriteAllBytes(Path.Combine(_folder.Path, "tokenizer.model"), Model(type, pieces, map ?? [], removeSpaces));
        return Tokenizer.Load(_folder.Path);
    }

    private static byte[] Model(int type, (string Text, float Score, int Type)[] pieces, byte[] map, bool removeSpaces) =>
    [
        .. new[] { ("<unk>", 0f, 2), ("<s>", 0f, 3), ("</s>", 0f, 3) }.Concat(pieces).SelectMany(piece => Field(
            1, [.. Field(1, Encoding.UTF8.GetBytes(piece.Item1)), (2 << 3) | 5, .. BitConverter.GetBytes(piece.Item2), 3 << 3, (byte)piece.Item3])),
        .. Field(2, [3 << 3, (byte)type]),
        .. Field(3, [.. Field(2, map), 4 << 3, (byte)(removeSpaces ? 1 : 0)]),
    ];

    private static byte[] Field(int number, byte[] content)
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
