using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace TrainingService.Training.Tokenizers;

/// <summary>Reads <c>tokenizer.json</c>. What it cannot do is refused by name.</summary>
internal static class TokenizerJson
{
    public static TokenizerPipeline Read(JsonElement root)
    {
        var model = Member(root, "model") ?? throw Broken("has no \"model\"", "model");
        var vocabulary = BpeFiles.Vocabulary(model, "tokenizer.json: model.vocab");
        var tokens = new List<string?>();
        foreach (var (token, id) in vocabulary)
        {
            Put(tokens, id, token);
        }

        var added = new List<AddedToken>();
        foreach (var entry in Items(root, "added_tokens"))
        {
            var token = new AddedToken(
                Number(entry, "id"), Text(entry, "content") ?? throw Broken("has an entry without content", "added_tokens"),
                Flag(entry, "special"), Flag(entry, "single_word"), Flag(entry, "lstrip"), Flag(entry, "rstrip"),
                Flag(entry, "normalized"));
            added.Add(token);
            Put(tokens, token.Id, token.Content);
        }

        var (before, behind) = Member(root, "post_processor") is { } post ? PostProcessing.Read(post, tokens) : ([], []);
        return new TokenizerPipeline
        {
            Model = BpeFiles.Model(model, vocabulary),
            Tokens = tokens,
            Added = added,
            Normalizer = Member(root, "normalizer") is { } normalizer ? ReadNormalizer(normalizer, "normalizer") : null,
            PreTokenizer = Member(root, "pre_tokenizer") is { } pre ? ReadPreTokenizer(pre, "pre_tokenizer") : null,
            Decoder = Member(root, "decoder") is { } decoder ? ReadDecoder(decoder, "decoder") : null,
            Before = before,
            Behind = behind,
        };
    }

    /// <summary>Member of an object; null when it is absent or <c>null</c>.</summary>
    internal static JsonElement? Member(JsonElement element, string name) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null
            ? value
            : null;

    internal static string? Text(JsonElement element, string name) =>
        Member(element, name) is { ValueKind: JsonValueKind.String } value ? value.GetString() : null;

    internal static bool Flag(JsonElement element, string name, bool otherwise = false) =>
        Member(element, name) is { ValueKind: JsonValueKind.True or JsonValueKind.False } value ? value.GetBoolean() : otherwise;

    internal static int Number(JsonElement element, string name, int? otherwise = null) =>
        Member(element, name) is { ValueKind: JsonValueKind.Number } value && value.TryGetInt32(out var number) && number >= 0
            ? number
            : otherwise ?? throw Broken($"has no number \"{name}\" where one is needed", name);

    internal static IEnumerable<JsonElement> Items(JsonElement element, string name) =>
        Member(element, name) is { ValueKind: JsonValueKind.Array } value ? value.EnumerateArray() : [];

    internal static TrainingException Broken(string what, string path) =>
        TrainingException.InvalidData($"tokenizer.json {what}; export the tokenizer again.", $"tokenizer.json: {path}");

    internal static TrainingException Unsupported(string path, string? name) => TrainingException.InvalidData(
        $"tokenizer.json asks for {path} '{name}', which is not supported; supported are byte-level and SentencePiece-style BPE.",
        $"tokenizer.json: {path}");

    /// <summary>Ids are read from a file, so a wild one must not make the table huge.</summary>
    internal static void Put(List<string?> tokens, int id, string token)
    {
        const int Most = 4_000_000;
        if (id is < 0 or >= Most)
        {
            throw Broken($"gives the token '{token}' the id {id}, which is not between 0 and {Most}", "vocab");
        }

        while (tokens.Count <= id)
        {
            tokens.Add(null);
        }

        tokens[id] = token;
    }

    /// <summary>The steps of a sequence: each walks over every text.</summary>
    private static List<JsonElement> Steps(JsonElement json, string name, string path)
    {
        const int most = 100;
        var steps = Items(json, name).ToList();
        return steps.Count <= most ? steps : throw Broken($"has {steps.Count} steps in {name}, more than {most}", path);
    }

    /// <summary>A text that is put into every text, again and again.</summary>
    private static string? Short(JsonElement json, string name, string path)
    {
        const int longest = 1000;
        var text = Text(json, name);
        return text is not { Length: > longest } ? text : throw Broken($"has a {name} of {text.Length} characters, more than {longest}", path);
    }

    private static Normalizer ReadNormalizer(JsonElement json, string path) => Text(json, "type") switch
    {
        "Sequence" => new SequenceNormalizer([.. Steps(json, "normalizers", path).Select((item, i) => ReadNormalizer(item, $"{path}[{i}]"))]),
        "NFC" => new UnicodeNormalizer(compose: true, compatibility: false),
        "NFD" => new UnicodeNormalizer(compose: false, compatibility: false),
        "NFKC" => new UnicodeNormalizer(compose: true, compatibility: true),
        "NFKD" => new UnicodeNormalizer(compose: false, compatibility: true),
        "Lowercase" => new LowercaseNormalizer(),
        "Strip" => new StripNormalizer(Flag(json, "strip_left", true), Flag(json, "strip_right", true)),
        "Prepend" => new PrependNormalizer(Short(json, "prepend", path) ?? throw Broken("has no text to prepend", path)),
        "Replace" => Pattern(json, path) is var (literal, regex)
            ? new ReplaceNormalizer(literal, regex, Short(json, "content", path) ?? "")
            : throw Broken("has a Replace without pattern", path),
        var other => throw Unsupported(path, other),
    };

    private static PreTokenizer ReadPreTokenizer(JsonElement json, string path) => Text(json, "type") switch
    {
        "Sequence" => new SequencePreTokenizer(
            [.. Steps(json, "pretokenizers", path).Select((item, i) => ReadPreTokenizer(item, $"{path}[{i}]"))]),
        "ByteLevel" => new ByteLevelPreTokenizer(Flag(json, "add_prefix_space", true), Flag(json, "use_regex", true)),
        "Split" => ReadSplit(json, path),
        "Metaspace" => new MetaspacePreTokenizer(Replacement(json, path), Scheme(json, path), Flag(json, "split", true)),
        "Digits" => new SplitPreTokenizer(
            SplitPreTokenizer.Characters(UnicodeClasses.IsNumber),
            Flag(json, "individual_digits") ? SplitBehavior.Isolated : SplitBehavior.Contiguous, invert: false),
        "Punctuation" => new SplitPreTokenizer(
            SplitPreTokenizer.Characters(UnicodeClasses.IsPunctuation), Behavior(json, path, "Isolated"), invert: false),
        "WhitespaceSplit" => new SplitPreTokenizer(
            SplitPreTokenizer.Characters(Rune.IsWhiteSpace), SplitBehavior.Removed, invert: false),
        "Whitespace" => new SplitPreTokenizer(
            SplitPreTokenizer.RegexMatcher(RegexSpans.Create(@"\w+|[^\w\s]+", path)), SplitBehavior.Removed, invert: true),
        var other => throw Unsupported(path, other),
    };

    private static SplitPreTokenizer ReadSplit(JsonElement json, string path)
    {
        var (literal, regex) = Pattern(json, path);
        var matcher = literal is null ? SplitPreTokenizer.RegexMatcher(regex!) : SplitPreTokenizer.Literal(literal);
        return new SplitPreTokenizer(matcher, Behavior(json, path, null), Flag(json, "invert"));
    }

    private static TokenDecoder ReadDecoder(JsonElement json, string path) => Text(json, "type") switch
    {
        "Sequence" => new SequenceDecoder([.. Steps(json, "decoders", path).Select((item, i) => ReadDecoder(item, $"{path}[{i}]"))]),
        "ByteLevel" => new ByteLevelDecoder(),
        "ByteFallback" => new ByteFallbackDecoder(),
        "Fuse" => new FuseDecoder(),
        "Metaspace" => new MetaspaceDecoder(Replacement(json, path), Scheme(json, path) != PrependScheme.Never),
        "Replace" when Pattern(json, path).Literal is { Length: > 0 } literal => new ReplaceDecoder(literal, Text(json, "content") ?? ""),
        "Strip" when Text(json, "content") is { Length: 1 } content =>
            new StripDecoder(content[0], Number(json, "start", 0), Number(json, "stop", 0)),
        var other => throw Unsupported(path, other),
    };

    private static char Replacement(JsonElement json, string path) => (Text(json, "replacement") ?? "▁") is { Length: 1 } text
        ? text[0]
        : throw Broken("has a Metaspace replacement that is not one character", path);

    /// <summary>Older files say <c>add_prefix_space</c> instead of the scheme.</summary>
    private static PrependScheme Scheme(JsonElement json, string path) => Text(json, "prepend_scheme") switch
    {
        null => Flag(json, "add_prefix_space", true) ? PrependScheme.Always : PrependScheme.Never,
        "first" => PrependScheme.First,
        "always" => PrependScheme.Always,
        "never" => PrependScheme.Never,
        var other => throw Unsupported($"{path}.prepend_scheme", other),
    };

    private static SplitBehavior Behavior(JsonElement json, string path, string? otherwise) =>
        (Text(json, "behavior") ?? otherwise)?.ToUpperInvariant().Replace("_", "", StringComparison.Ordinal) switch
        {
            "ISOLATED" => SplitBehavior.Isolated,
            "REMOVED" => SplitBehavior.Removed,
            "MERGEDWITHPREVIOUS" => SplitBehavior.MergedWithPrevious,
            "MERGEDWITHNEXT" => SplitBehavior.MergedWithNext,
            "CONTIGUOUS" => SplitBehavior.Contiguous,
            var other => throw Unsupported($"{path}.behavior", other),
        };

    private static (string? Literal, Regex? Regex) Pattern(JsonElement json, string path)
    {
        var pattern = Member(json, "pattern") ?? throw Broken("lacks a pattern", path);
        if (pattern.ValueKind == JsonValueKind.String || Text(pattern, "String") is not null)
        {
            return (pattern.ValueKind == JsonValueKind.String ? pattern.GetString() : Text(pattern, "String"), null);
        }

        return (null, RegexSpans.Create(Text(pattern, "Regex") ?? throw Broken("lacks a pattern", path), $"tokenizer.json: {path}"));
    }
}
