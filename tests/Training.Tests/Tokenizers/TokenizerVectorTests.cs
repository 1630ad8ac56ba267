using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Tokenizers;

/// <summary>Ids that other implementations gave for the same files; the shared folder's data/README.md says where they are from.</summary>
public sealed class TokenizerVectorTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("gpt2", "tokenizer.json")]
    [InlineData("gpt2", "vocab.json", "merges.txt")]
    [InlineData("llama2", "tokenizer.model")]
    public void Every_known_text_gets_its_known_ids(string name, params string[] files)
    {
        var tokenizer = LoadOnly(Path.Combine("tokenizers", name), files);
        var texts = Texts(name);
        var expected = File.ReadAllText(SharedData.Path("data", "tokenizers", name, "vectors.out")).Split('\n');

        Assert.Equal(47, texts.Length);
        Assert.Equal(47, expected.Length);
        for (var i = 0; i < texts.Length; i++)
        {
            Assert.Equal(expected[i].Trim(), Ids(tokenizer.Encode(texts[i], addSpecialTokens: false)));
        }
    }

    [Theory]
    [InlineData("gpt2", "tokenizer.json")]
    [InlineData("gpt2", "vocab.json", "merges.txt")]
    [InlineData("llama2", "tokenizer.model")]
    public void Decoding_gives_every_text_back(string name, params string[] files)
    {
        var tokenizer = LoadOnly(Path.Combine("tokenizers", name), files);

        foreach (var text in Texts(name))
        {
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
    }

    [Theory]
    [InlineData("gpt2", "tokenizer.json")]
    [InlineData("llama2", "tokenizer.model")]
    public void Offsets_cover_every_text_from_left_to_right(string name, params string[] files)
    {
        var tokenizer = LoadOnly(Path.Combine("tokenizers", name), files);

        foreach (var text in Texts(name))
        {
            var (ids, offsets) = tokenizer.EncodeWithOffsets(text);
            Assert.Equal(tokenizer.Encode(text), ids);
            Assert.Equal(ids.Count, offsets.Count);
            var covered = 0;
            foreach (var (start, length) in offsets)
            {
                Assert.InRange(start, 0, covered);   // no gap
                covered = Math.Max(covered, start + length);
            }

            Assert.Equal(text.Length, covered);
        }
    }

    [Theory]
    [InlineData("tokenizer.json")]
    [InlineData("tokenizer.model")]
    public void The_small_model_encodes_as_its_golden_file_says(string file)
    {
        var tokenizer = LoadOnly(Path.Combine("models", "stories260K"), [file, "tokenizer_config.json", "special_tokens_map.json", "config.json"]);
        using var golden = JsonDocument.Parse(File.ReadAllText(SharedData.Path("data", "models", "stories260K", "golden.json")));

        foreach (var entry in golden.RootElement.GetProperty("encodings_without_bos").EnumerateArray())
        {
            var text = entry[0].GetString()!;
            int[] expected = [.. entry[1].EnumerateArray().Select(id => id.GetInt32())];
            Assert.Equal(expected, tokenizer.Encode(text, addSpecialTokens: false));
            Assert.Equal([1, .. expected], tokenizer.Encode(text));
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }

        Assert.Equal(512, tokenizer.VocabularySize);
        Assert.Equal((1, 2, null), (tokenizer.BosId, tokenizer.EosId, tokenizer.PadId));
    }

    [Fact]
    public void Gpt2_without_further_files_ends_texts_with_its_only_special_token()
    {
        var tokenizer = LoadOnly(Path.Combine("tokenizers", "gpt2"), ["vocab.json", "merges.txt"]);

        Assert.Equal(50257, tokenizer.VocabularySize);
        Assert.Equal((50256, 50256), (tokenizer.BosId, tokenizer.EosId));
        Assert.Equal([15496, 50256], tokenizer.Encode("Hello<|endoftext|>"));
        Assert.Equal("Hello", tokenizer.Decode([15496, 50256]));
        Assert.Equal("Hello<|endoftext|>", tokenizer.Decode([15496, 50256], skipSpecialTokens: false));
    }

    /// <summary>Eight times the text takes eight times as long; with a quadratic merge it would be 64 times, and minutes.</summary>
    [Theory]
    [InlineData("gpt2", "tokenizer.json")]
    [InlineData("llama2", "tokenizer.model")]
    public void A_megabyte_without_a_space_takes_no_more_than_its_share(string name, string file)
    {
        var tokenizer = LoadOnly(Path.Combine("tokenizers", name), [file]);
        var play = File.ReadAllText(SharedData.Path("data", "text", "tinyshakespeare", "input.txt"));
        var text = string.Concat(play.Where(char.IsAsciiLetter));
        text += text[..(1_000_000 - text.Length)];

        // The eighth on both sides of the whole: what else the machine does slows them alike.
        var before = SecondsOf(text[..(text.Length / 8)]);
        var whole = SecondsOf(text);
        var after = SecondsOf(text[..(text.Length / 8)]);

        Assert.InRange(whole / Math.Max(before, after), 0, 32);
        Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text, addSpecialTokens: false)));

        double SecondsOf(string part)
        {
            var watch = Stopwatch.StartNew();
            tokenizer.Encode(part, addSpecialTokens: false);
            return watch.Elapsed.TotalSeconds;
        }
    }

    [Theory]
    [InlineData("gpt2", "tokenizer.json")]
    [InlineData("llama2", "tokenizer.model")]
    public void A_lone_surrogate_counts_as_the_replacement_character(string name, string file)
    {
        var tokenizer = LoadOnly(Path.Combine("tokenizers", name), [file]);

        Assert.Equal(tokenizer.Encode("a\uFFFDb\uFFFD"), tokenizer.Encode("a\ud800b\udc00"));
    }

    private static string Ids(IEnumerable<int> ids) => string.Join(' ', ids.Select(id => id.ToString(CultureInfo.InvariantCulture)));

    private static string[] Texts(string name) =>
        File.ReadAllText(SharedData.Path("data", "tokenizers", name, "vectors.inp")).Split("\n__ggml_vocab_test__\n");

    private Tokenizer LoadOnly(string source, string[] files)
    {
        foreach (var file in files)
        {
            File.Copy(SharedData.Path("data", source, file), Path.Combine(_folder.Path, file));
        }

        return Tokenizer.Load(_folder.Path);
    }
}
