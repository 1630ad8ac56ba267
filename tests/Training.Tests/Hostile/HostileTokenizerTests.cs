using System.Diagnostics;
using System.Text;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>Tokenizer files that lie about sizes, or would make much of little.</summary>
public sealed class HostileTokenizerTests : IDisposable
{
    private const string Model = """ "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]} """;

    private readonly FastFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string, string, string> Refused => new()
    {
        { "an id beyond any vocabulary", """{"model": {"type": "BPE", "vocab": {"a": 2147483647}, "merges": []}}""", "2147483647" },
        { "an id beyond 32 bits", """{"model": {"type": "BPE", "vocab": {"a": 4294967296}, "merges": []}}""", "'a'" },
        { "a negative id", """{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}""", "'a'" },
        { "an id that is a text", """{"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}""", "'a'" },
        { "a wild id of an added token", "{\"added_tokens\": [{\"id\": 2000000000, \"content\": \"x\"}]," + Model + "}", "2000000000" },
        { "half of a character", "{\"added_tokens\": [{\"id\": 3, \"content\": \"\\ud800\"}]," + Model + "}", "proper JSON" },
        { "a merge of pieces that are not there", """{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a x"]}}""", "'a x'" },
        { "a million merges of one kind", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [" + string.Join(',', Enumerable.Repeat("\"a a\"", 1_000_000)) + "]}}", "'a a'" },
        { "steps without end", "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [" + string.Join(',', Enumerable.Repeat("{\"type\": \"NFC\"}", 100_000)) + "]}," + Model + "}", "100000 steps" },
        { "a replacement that fills the memory", "{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"" + new string('a', 1_000_000) + "\"}," + Model + "}", "1000000 characters" },
        { "a prefix that fills the memory", "{\"normalizer\": {\"type\": \"Prepend\", \"prepend\": \"" + new string('a', 1_000_000) + "\"}," + Model + "}", "1000000 characters" },
        { "tokens around each text without end", "{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [" + string.Join(',', Enumerable.Repeat("{\"SpecialToken\": {\"id\": \"a\"}}", 1000)) + "], \"special_tokens\": {\"a\": {\"ids\": [0]}}}," + Model + "}", "1000 tokens" },
        { "an unknown token around each text", "{\"post_processor\": {\"type\": \"RobertaProcessing\", \"cls\": [\"a\", 99], \"sep\": [\"a\", 0]}," + Model + "}", "'cls'" },
        { "a long added token", "{\"added_tokens\": [{\"id\": 3, \"content\": \"" + new string('a', 100_000) + "\"}]," + Model + "}", "100000 characters" },
        { "a long pattern", "{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"" + new string('(', 1_000_000) + "\"}}," + Model + "}", "1000000 characters" },
        { "a nested pattern", "{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"" + new string('(', 5000) + new string(')', 4999) + "\"}}," + Model + "}", "not supported here" },
        { "ten million levels", new string('[', 10_000_000), "not valid JSON" },
        { "ten million levels of a step", "{\"normalizer\":" + new string('[', 10_000_000), "not valid JSON" },
        { "a list", "[]", "no JSON object" },
        { "nothing", "", "not valid JSON" },
    };

    [Theory]
    [MemberData(nameof(Refused))]
    public void A_hostile_tokenizer_is_refused(string what, string json, string says)
    {
        Assert.NotEmpty(what);
        File.WriteAllText(_folder.File("tokenizer.json"), json);
        var before = GC.GetAllocatedBytesForCurrentThread();

        var error = Assert.Throws<TrainingException>(() => Tokenizer.Load(_folder.Path));

        Assert.Equal(FailureCode.InvalidData, error.Code);
        Assert.Contains(says, error.Message, StringComparison.Ordinal);
        Assert.NotNull(error.Param);
        Assert.InRange(error.Message.Length, 20, 4001);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 600L << 20);
    }

    /// <summary>Six steps of ten to one would make a million of each character.</summary>
    [Fact]
    public void Replacements_of_replacements_are_stopped()
    {
        var step = "{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"aaaaaaaaaa\"}";
        File.WriteAllText(_folder.File("tokenizer.json"), "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [" + string.Join(',', Enumerable.Repeat(step, 90)) + "]}," + Model + "}");
        var tokenizer = Tokenizer.Load(_folder.Path);

        var error = Assert.Throws<TrainingException>(() => tokenizer.Encode(new string('a', 5000)));

        Assert.Contains("5000 characters", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("(a+)+$")]
    [InlineData("(a|a)*$")]
    public void A_pattern_that_explodes_is_stopped_and_named(string pattern)
    {
        File.WriteAllText(_folder.File("tokenizer.json"), "{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"" + pattern + "\"}}," + Model + "}");
        var tokenizer = Tokenizer.Load(_folder.Path);
        var watch = Stopwatch.StartNew();

        var error = Assert.Throws<TrainingException>(() => tokenizer.Encode(new string('a', 100_000) + "!"));

        Assert.Contains(pattern, error.Message, StringComparison.Ordinal);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 60);   // the limit is two seconds
    }

    [Fact]
    public void Names_of_many_special_tokens_are_looked_up_once_each()
    {
        var vocabulary = string.Join(',', Enumerable.Range(0, 200_000).Select(i => $"\"t{i}\": {i}"));
        var names = string.Join(',', Enumerable.Range(0, 200_000).Select(i => $"\"t{i}\""));
        File.WriteAllText(_folder.File("tokenizer.json"), "{\"model\": {\"type\": \"BPE\", \"vocab\": {" + vocabulary + "}, \"merges\": []}}");
        File.WriteAllText(_folder.File("tokenizer_config.json"), "{\"additional_special_tokens\": [" + names + "]}");
        var watch = Stopwatch.StartNew();

        Assert.Equal([199_999], Tokenizer.Load(_folder.Path).Encode("t199999"));
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 30);   // one on an idle machine; each with each other took minutes
    }

    [Fact]
    public void Files_larger_than_any_tokenizer_are_not_read()
    {
        foreach (var name in new[] { "tokenizer.json", "tokenizer.model", "tokenizer_config.json" })
        {
            using var folder = new TemporaryFolder();
            File.WriteAllText(folder.File("tokenizer.model"), "");
            using (var file = File.Create(folder.File(name)))
            {
                file.SetLength(1L << 40);   // takes no room on the disk
            }

            var error = Assert.Throws<TrainingException>(() => Tokenizer.Load(folder.Path));
            Assert.Contains($"{name} has 1099511627776 bytes", error.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(new byte[] { 0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F })]                                        // a piece longer than the file
    [InlineData(new byte[] { 0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01 })]          // 2^64 - 1 bytes
    [InlineData(new byte[] { 0x0A, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80 })]    // a number without end
    [InlineData(new byte[] { 0x0A, 0x02, 0x18, 0x63 })]                                                    // a piece of an unknown type
    [InlineData(new byte[] { 0x0B })]                                                                      // a field of an unknown kind
    [InlineData(new byte[] { 0x0A, 0x0A, 0x0A, 0x0A })]                                                    // ends within
    [InlineData(new byte[0])]
    public void A_sentencepiece_model_that_lies_is_refused(byte[] bytes)
    {
        File.WriteAllBytes(_folder.File("tokenizer.model"), bytes);

        Assert.Equal("tokenizer.model", Assert.Throws<TrainingException>(() => Tokenizer.Load(_folder.Path)).Param);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void Long_pieces_are_refused(int type)
    {
        var piece = SentencePieceBytes.Field(1, SentencePieceBytes.Field(1, Encoding.UTF8.GetBytes(new string('a', 100_000))));
        File.WriteAllBytes(_folder.File("tokenizer.model"), [.. SentencePieceBytes.Model(type), .. piece]);

        Assert.Contains("100000 characters", Assert.Throws<TrainingException>(() => Tokenizer.Load(_folder.Path)).Message, StringComparison.Ordinal);
    }
}
