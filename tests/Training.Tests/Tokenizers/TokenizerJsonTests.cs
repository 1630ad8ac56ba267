using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Tokenizers;

public sealed class TokenizerJsonTests : IDisposable
{
    // Every word of unknown characters is one token, so that offsets show the words.
    private const string WordsOnly = """{"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "vocab": {"<unk>": 0}, "merges": []}""";

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>The example in the documentation of Hugging Face's tokenizers (SplitDelimiterBehavior).</summary>
    [Theory]
    [InlineData("Removed", "the|final|countdown")]
    [InlineData("Isolated", "the|-|final|-|-|countdown")]
    [InlineData("MergedWithPrevious", "the-|final-|-|countdown")]
    [InlineData("MergedWithNext", "the|-final|-|-countdown")]
    [InlineData("Contiguous", "the|-|final|--|countdown")]
    public void Separators_go_where_the_behaviour_says(string behavior, string expected)
    {
        var split = $$"""{"type": "Split", "pattern": {"String": "-"}, "behavior": "{{behavior}}", "invert": false}""";

        Assert.Equal(expected, Words(split, "the-final--countdown"));
    }

    [Theory]
    [InlineData("""{"type": "Digits", "individual_digits": true}""", "a12b½", "a|1|2|b|½")]
    [InlineData("""{"type": "Digits", "individual_digits": false}""", "a12b", "a|12|b")]
    [InlineData("""{"type": "Punctuation", "behavior": "Isolated"}""", "a+b…c", "a|+|b|…|c")]
    [InlineData("""{"type": "Whitespace"}""", "Hi, you!! ok", "Hi|,|you|!!|ok")]
    [InlineData("""{"type": "WhitespaceSplit"}""", " Hi,  you ", "Hi,|you")]
    [InlineData("""{"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Removed", "invert": true}""", "ab1cd", "ab|cd")]
    [InlineData("""{"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": true}]}""", "a1 b", "a|1|b")]
    public void Words_are_cut_as_the_pre_tokenizer_says(string preTokenizer, string text, string expected) =>
        Assert.Equal(expected, Words(preTokenizer, text));

    /// <summary>Llama 3's pattern takes at most three digits, and letters beyond the basic plane as letters.</summary>
    [Fact]
    public void A_pattern_sees_characters_not_utf16_units()
    {
        const string Llama3 = """
            {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}}
            """;

        Assert.Equal("I|'LL| 𐐀𐐁x| |123|4|🦙🦙|  | y", Words(Llama3, "I'LL 𐐀𐐁x 1234🦙🦙   y"));
    }

    [Theory]
    [InlineData("first", "▁a|▁b", "▁a|<s>|b|▁c")]
    [InlineData("always", "▁a|▁b", "▁a|<s>|▁b|▁c")]
    [InlineData("never", "a|▁b", "a|<s>|b|▁c")]
    public void Metaspace_marks_the_parts_its_scheme_names(string scheme, string simple, string withSpecial)
    {
        var tokenizer = Load(
            """{"type": "BPE", "unk_token": "<unk>", "ignore_merges": true, "vocab": {"<unk>": 0, "<s>": 1, "a": 2, "b": 3, "▁a": 4, "▁b": 5, "▁c": 6}, "merges": []}""",
            $$"""{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "{{scheme}}", "split": true}""",
            more: """ "added_tokens": [{"id": 1, "content": "<s>", "special": true}]""");

        Assert.Equal(simple, Spelled(tokenizer, "a b"));
        Assert.Equal(withSpecial, Spelled(tokenizer, "a<s>b c"));
        Assert.Equal("▁a|<s>|▁b", Spelled(tokenizer, " a<s> b"));
    }

    [Theory]
    [InlineData("lstrip", "x  <t> y", 1, 5)]
    [InlineData("rstrip", "x <t>  y", 2, 5)]
    public void A_stripping_token_takes_the_white_space_beside_it(string flag, string text, int start, int length)
    {
        var tokenizer = Load(WordsOnly, null, more: $$""" "added_tokens": [{"id": 1, "content": "<t>", "{{flag}}": true, "special": true}]""");

        var (ids, offsets) = tokenizer.EncodeWithOffsets(text);

        Assert.Equal((start, length), offsets[ids.ToList().IndexOf(1)]);
    }

    [Fact]
    public void A_single_word_token_needs_room_on_both_sides()
    {
        var tokenizer = Load(WordsOnly, null, more: """ "added_tokens": [{"id": 1, "content": "tok", "single_word": true}]""");

        Assert.Equal([0], tokenizer.Encode("atok tok_ tokens"));
        Assert.Equal([0, 1, 0], tokenizer.Encode("a tok."));
    }

    [Fact]
    public void The_longest_added_token_wins_and_normalised_ones_are_found_in_normalised_text()
    {
        var tokenizer = Load(
            WordsOnly, null, """{"type": "Lowercase"}""",
            """
            "added_tokens": [{"id": 1, "content": "<a>"}, {"id": 2, "content": "<a><b>"}, {"id": 3, "content": "Yes", "normalized": true},
            {"id": 4, "content": "No", "normalized": false}]
            """);

        Assert.Equal([2, 1], tokenizer.Encode("<a><b><a>"));
        Assert.Equal([3, 0, 4, 3, 0], tokenizer.Encode("YES NoyesNO"));
    }

    [Theory]
    [InlineData("""["a b", "ab c"]""")]
    [InlineData("""[["a", "b"], ["ab", "c"]]""")]
    public void Merges_are_strings_or_pairs(string merges)
    {
        var tokenizer = Load($$"""{"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, "merges": {{merges}}}""", null);

        Assert.Equal([4, 3], tokenizer.Encode("abcabx"));   // x has no piece, and there is no unknown token: it goes
    }

    [Theory]
    [InlineData(true, new[] { 4 })]
    [InlineData(false, new[] { 0, 3 })]
    public void Ignoring_merges_takes_whole_words(bool ignore, int[] expected) => Assert.Equal(
        expected,
        Load($$"""{"type": "BPE", "ignore_merges": {{(ignore ? "true" : "false")}}, "vocab": {"a": 0, "b": 1, "c": 2, "bc": 3, "abc": 4}, "merges": ["b c"]}""", null)
            .Encode("abc"));

    [Fact]
    public void Special_tokens_stand_around_a_text_as_files_say()
    {
        const string Template = """
            "added_tokens": [{"id": 1, "content": "<s>", "special": true}, {"id": 2, "content": "</s>", "special": true}],
            "post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
              "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
              "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}]}
            """;

        Assert.Equal([1, 0, 2], Load(WordsOnly, null, more: Template).Encode("x"));
        Assert.Equal([0], Load(WordsOnly, null, more: Template).Encode("x", addSpecialTokens: false));
        _folder.With("tokenizer_config.json", """{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null, "add_eos_token": false}""");
        var tokenizer = Load(WordsOnly, null, more: Template);
        Assert.Equal([1, 0], tokenizer.Encode("x"));
        Assert.Equal((1, 2, null), (tokenizer.BosId, tokenizer.EosId, tokenizer.PadId));
        Assert.Equal([(0, 0), (0, 1)], tokenizer.EncodeWithOffsets("x").Offsets);
    }

    [Fact]
    public void Ids_come_from_the_models_config_where_the_tokenizers_files_are_silent()
    {
        _folder.With("config.json", """{"bos_token_id": 0, "eos_token_id": [1, 0], "pad_token_id": 77}""");
        var tokenizer = Load(WordsOnly, null, more: """ "added_tokens": [{"id": 1, "content": "<end>", "special": true}]""");

        Assert.Equal((0, 1, null), (tokenizer.BosId, tokenizer.EosId, tokenizer.PadId));
    }

    [Fact]
    public void Offsets_lead_through_normalisation_to_the_input()
    {
        var tokenizer = Load(
            """{"type": "BPE", "vocab": {"é": 0, "f": 1, "i": 2, "▁": 3}, "merges": []}""", null,
            """{"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}""");

        var (ids, offsets) = tokenizer.EncodeWithOffsets("e\u0301 ﬁe\u0301");

        Assert.Equal([3, 0, 3, 1, 2, 0], ids);
        Assert.Equal([(0, 0), (0, 2), (2, 1), (3, 1), (3, 1), (4, 2)], offsets);
    }

    /// <summary>SHA-256 of the forms of U+0020…U+2FFFF in order, by Python's unicodedata 14.0.0.</summary>
    [Theory]
    [InlineData("NFC", "54d92972e743d9a78cf4bf318b4099bcb2fd99c18dd971428e6f477b1e3e2bbe", "b9f87ee0c85f40d2d19651ab7501dc08ae408ff1d4bf2e203d3c4ed4477982d5")]
    [InlineData("NFD", "aff527006db289df818ef5293365909b6d9675ed941e552d41e8e65f14c9d9a7", "3b43d79e9fac400dc17397738544212bfd344577c48d144eeb0d31bd6b271057")]
    [InlineData("NFKC", "3ac3744c461f027ac31dcef303f044dbbf1068822bf729f870a28d806dc9149e", "d9530309fa08dedc7963355a010d668afa7169125ff6b9ed177ca9730e800625")]
    [InlineData("NFKD", "f32af5a39cfdd35009d0dcf6a1b7a74d93ced4d914113e573ea992762d425428", "fa0dc410a685051012878cfe26d8ab4534f0355c4fddd5ffa1e939a51ca702bd")]
    public void Normalisation_forms_are_those_of_unicode(string form, string everything, string mixtures)
    {
        var tokenizer = Load(ByteLevelModel(), """{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}""",
            $$"""{"type": "{{form}}"}""", """ "decoder": {"type": "ByteLevel"} """);
        var all = string.Concat(Enumerable.Range(0x20, 0x30000 - 0x20).Where(Rune.IsValid).Select(value => new Rune(value).ToString()));

        Assert.Equal(everything, Hash(tokenizer.Decode(tokenizer.Encode(all))));
        Assert.Equal(mixtures, Hash(tokenizer.Decode(tokenizer.Encode(Mixture()))));
    }

    [Theory]
    [InlineData("model", """{"type": "WordPiece", "vocab": {}}""", "WordPiece")]
    [InlineData("model", """{"type": "Unigram", "vocab": [["a", 0.0]]}""", "Unigram")]
    [InlineData("model", """{"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a": 0}, "merges": []}""", "end_of_word_suffix")]
    [InlineData("model", """{"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}""", "a b")]
    [InlineData("model", """{"type": "BPE", "vocab": {"a": -1}, "merges": []}""", "'a'")]
    [InlineData("model", """{"type": "BPE", "vocab": {"a": 2000000000}, "merges": []}""", "2000000000")]
    [InlineData("normalizer", """{"type": "BertNormalizer"}""", "BertNormalizer")]
    [InlineData("pre_tokenizer", """{"type": "UnicodeScripts"}""", "UnicodeScripts")]
    [InlineData("pre_tokenizer", """{"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "\\p{Han}+"}}""", "Han")]
    [InlineData("post_processor", """{"type": "Other"}""", "Other")]
    [InlineData("decoder", """{"type": "WordPiece"}""", "WordPiece")]
    public void What_is_not_supported_is_refused_by_name(string member, string json, string name)
    {
        var root = new JsonObject { ["model"] = JsonNode.Parse(WordsOnly) };
        root[member] = JsonNode.Parse(json);
        _folder.With("tokenizer.json", root.ToJsonString());

        var refused = Assert.Throws<TrainingException>(() => Tokenizer.Load(_folder.Path));

        Assert.Contains(name, refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_broken_file_or_an_empty_folder_is_refused()
    {
        Assert.Contains("tokenizer.json, tokenizer.model", Assert.Throws<TrainingException>(() => Tokenizer.Load(_folder.Path)).Message, StringComparison.Ordinal);
        _folder.With("tokenizer.json", """{"model": {"vocab": """);
        Assert.Contains("not valid JSON", Assert.Throws<TrainingException>(() => Tokenizer.Load(_folder.Path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Templates_come_from_a_file_of_their_own_or_from_the_settings()
    {
        ChatMessage[] chat = [new("user", "x")];
        using var tools = JsonDocument.Parse("[1]");
        Assert.Null(Load(WordsOnly, null).ChatTemplate);

        _folder.With("tokenizer_config.json", """
            {"bos_token": "<unk>", "chat_template": [{"name": "default", "template": "{{ bos_token }}plain"}, {"name": "tool_use", "template": "tools {{ tools[0] }}"}]}
            """);
        var template = Load(WordsOnly, null).ChatTemplate!;
        Assert.Equal("<unk>plain", template.Render(chat, addGenerationPrompt: false));
        Assert.Equal("tools 1", template.Render(chat, addGenerationPrompt: false, tools.RootElement));

        _folder.With("chat_template.jinja", "file {{ strftime_now('%Y') }}\n");
        Assert.Equal(
            "file 1970", Tokenizer.Load(_folder.Path, new FixedClock(DateTimeOffset.UnixEpoch)).ChatTemplate!.Render(chat, addGenerationPrompt: false));
    }

    private static string Hash(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)));

    /// <summary>Letters, marks and syllables that compose and block each other, in an order that a short formula makes.</summary>
    private static string Mixture()
    {
        int[] pool =
        [
            0x41, 0x61, 0x301, 0x323, 0x327, 0x345, 0x3b1, 0x1100, 0x1161, 0x11a8, 0xac00, 0xfb01, 0xe9, 0x1e69, 0x212b, 0x0f73, 0x0f71, 0x1d15e,
            0x0958, 0x20, 0x3099, 0x304b, 0x9c7, 0x9be, 0x9d7, 0xdd9, 0xdca, 0xdcf,
        ];
        var text = new StringBuilder();
        var state = 12345L;
        for (var i = 0; i < 20_000; i++)
        {
            state = ((state * 1103515245) + 12345) % 2147483648;
            text.Append(new Rune(pool[(state >> 8) % pool.Length]));
        }

        return text.ToString();
    }

    private static string ByteLevelModel()
    {
        var vocabulary = new JsonObject();
        for (var i = 0; i < 0x200; i++)
        {
            vocabulary[((char)i).ToString()] = i;
        }

        return new JsonObject { ["type"] = "BPE", ["vocab"] = vocabulary, ["merges"] = new JsonArray() }.ToJsonString();
    }

    private static string Spelled(Tokenizer tokenizer, string text) => string.Join(
        '|', tokenizer.Encode(text).Select(id => tokenizer.Decode([id], skipSpecialTokens: false)));

    private string Words(string preTokenizer, string text) => string.Join(
        '|', Load(WordsOnly, preTokenizer).EncodeWithOffsets(text).Offsets.Select(range => text.Substring(range.Start, range.Length)));

    private Tokenizer Load(string model, string? preTokenizer, string? normalizer = null, string? more = null)
    {
        _folder.With("tokenizer.json", string.Create(
            CultureInfo.InvariantCulture,
            $$"""{"model": {{model}}, "pre_tokenizer": {{preTokenizer ?? "null"}}, "normalizer": {{normalizer ?? "null"}}{{(more is null ? "" : ", " + more)}}}"""));
        return Tokenizer.Load(_folder.Path);
    }
}
