using System.Text.Json;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Tokenizers;

/// <summary>What the files beside a tokenizer say: special tokens, what stands around a text, further tokens.</summary>
internal sealed class TokenizerSettings : IDisposable
{
    private readonly JsonDocument? _config;
    private readonly JsonDocument? _specialTokens;
    private readonly JsonDocument? _addedTokens;
    private readonly JsonDocument? _modelConfig;
    private readonly string _folder;
    private readonly TimeProvider _clock;

    private TokenizerSettings(string folder, TimeProvider clock)
    {
        _folder = folder;
        _clock = clock;
        _config = ReadJson(folder, "tokenizer_config.json");
        _specialTokens = ReadJson(folder, "special_tokens_map.json");
        _addedTokens = ReadJson(folder, "added_tokens.json");
        _modelConfig = ReadJson(folder, "config.json");
    }

    public string? ClassName => _config is null ? null : TokenizerJson.Text(_config.RootElement, "tokenizer_class");

    public static TokenizerSettings Read(string folder, TimeProvider clock) => new(folder, clock);

    /// <summary>The path of a file of the folder.</summary>
    /// <exception cref="TrainingException">The file is larger than any in use, and would be read into memory as a whole.</exception>
    public static string Bounded(string folder, string name)
    {
        const long largest = 64L << 20;   // the largest published have some 35 MB
        var path = Path.Combine(folder, name);
        var bytes = PlainFile.LengthOf(path);
        return bytes <= largest
            ? path
            : throw TrainingException.InvalidData(
                $"{name} has {bytes} bytes, and at most {largest} are read; fetch the model's own file again.", name);
    }

    /// <summary>A JSON object of the folder; null when the file is absent.</summary>
    public static JsonDocument? ReadJson(string folder, string name)
    {
        var path = Path.Combine(folder, name);
        if (!File.Exists(path))
        {
            return null;
        }

        try
        {
            using var stream = File.OpenRead(Bounded(folder, name));
            var document = JsonDocument.Parse(stream);
            return document.RootElement.ValueKind == JsonValueKind.Object
                ? document
                : throw TrainingException.InvalidData($"{name} is no JSON object; fetch the model's files again.", name);
        }
        catch (JsonException e)
        {
            throw TrainingException.InvalidData($"{name} is not valid JSON: {e.Message}", name, e);
        }
    }

    /// <summary>A flag of <c>tokenizer_config.json</c>; null when it says nothing.</summary>
    public bool? Flag(string name) =>
        _config is not null && TokenizerJson.Member(_config.RootElement, name) is { ValueKind: JsonValueKind.True or JsonValueKind.False } value
            ? value.GetBoolean()
            : null;

    /// <summary>Joins the tokenizer's own file with these settings.</summary>
    /// <param name="bosId">BOS, EOS and padding that the tokenizer's own file names, where no other file says otherwise.</param>
    public PipelineTokenizer Complete(TokenizerPipeline pipeline, int? bosId, int? eosId, int? padId)
    {
        pipeline = WithFurtherTokens(pipeline);
        var bos = Special("bos", pipeline, bosId);
        var eos = Special("eos", pipeline, eosId);
        pipeline = pipeline with
        {
            Before = Around("add_bos_token", "bos_token", bos) ?? pipeline.Before,
            Behind = Around("add_eos_token", "eos_token", eos) ?? pipeline.Behind,
        };
        return new PipelineTokenizer(pipeline, bos, eos, Special("pad", pipeline, padId), Template(pipeline, bos, eos));
    }

    public void Dispose()
    {
        _config?.Dispose();
        _specialTokens?.Dispose();
        _addedTokens?.Dispose();
        _modelConfig?.Dispose();
    }

    private JinjaChatTemplate? Template(TokenizerPipeline pipeline, int? bos, int? eos)
    {
        var (template, withTools) = ChatTemplateFile.Read(_folder, _config?.RootElement);
        if (template is null)
        {
            return null;
        }

        var names = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var source in new[] { _specialTokens, _config }.OfType<JsonDocument>())
        {
            foreach (var member in source.RootElement.EnumerateObject().Where(member => member.Name.EndsWith("_token", StringComparison.Ordinal)))
            {
                if (Content(member.Value) is { } content)
                {
                    names[member.Name] = content;
                }
            }
        }

        foreach (var (name, id) in new[] { ("bos_token", bos), ("eos_token", eos) })
        {
            if (id is { } known && pipeline.Tokens[known] is { } token)
            {
                names.TryAdd(name, token);
            }
        }

        return new JinjaChatTemplate(template, names, _clock, withTools);
    }

    /// <summary>What a flag puts around a text; null when the flag is not set either way.</summary>
    private int[]? Around(string flag, string token, int? id) => Flag(flag) switch
    {
        null => null,
        false => [],
        true => id is { } known
            ? [known]
            : throw TrainingException.InvalidData(
                $"tokenizer_config.json sets {flag} but no file names the {token}; set {token} or {flag} to false.",
                $"tokenizer_config.json: {flag}"),
    };

    private int? Special(string name, TokenizerPipeline pipeline, int? otherwise)
    {
        foreach (var source in new[] { _config, _specialTokens })
        {
            if (source is null || !source.RootElement.TryGetProperty($"{name}_token", out var value))
            {
                continue;
            }

            var content = Content(value);
            if (content is null)
            {
                return null;   // said to have none
            }

            var id = IdOf(pipeline, content);
            return id >= 0 || name == "pad"   // a padding token that was never trained is as good as none
                ? (id >= 0 ? id : null)
                : throw TrainingException.InvalidData(
                    $"The {name}_token '{content}' is not in the tokenizer's vocabulary; add it there or name another.",
                    $"tokenizer_config.json: {name}_token");
        }

        return otherwise ?? FromModelConfig($"{name}_token_id", pipeline.Tokens.Count);
    }

    private int? FromModelConfig(string name, int count)
    {
        if (_modelConfig is null || TokenizerJson.Member(_modelConfig.RootElement, name) is not { } value)
        {
            return null;
        }

        var first = value.ValueKind == JsonValueKind.Array && value.GetArrayLength() > 0 ? value[0] : value;
        return first.ValueKind == JsonValueKind.Number && first.TryGetInt32(out var id) && id >= 0 && id < count ? id : null;
    }

    private static int IdOf(TokenizerPipeline pipeline, string content) =>
        pipeline.Added.FirstOrDefault(token => token.Content == content)?.Id ?? pipeline.Tokens.ToList().IndexOf(content);

    /// <summary>A special token is written as its text or as an object with a content.</summary>
    private static string? Content(JsonElement value) =>
        value.ValueKind == JsonValueKind.String ? value.GetString() : TokenizerJson.Text(value, "content");

    private TokenizerPipeline WithFurtherTokens(TokenizerPipeline pipeline)
    {
        var tokens = pipeline.Tokens.ToList();
        var added = pipeline.Added.ToList();
        var known = added.Select(token => token.Id).ToHashSet();
        void Add(IEnumerable<AddedToken> further)
        {
            foreach (var token in further.Where(token => known.Add(token.Id)))
            {
                added.Add(token);
                TokenizerJson.Put(tokens, token.Id, token.Content);
            }
        }

        Add(FromDecoderTable().Concat(FromAddedTokens()));
        var ids = new Dictionary<string, int>(StringComparer.Ordinal);
        for (var id = 0; id < tokens.Count; id++)
        {
            if (tokens[id] is { } spelling)
            {
                ids.TryAdd(spelling, id);
            }
        }

        Add(FromNames(ids));

        return pipeline with { Tokens = tokens, Added = added };
    }

    private IEnumerable<AddedToken> FromDecoderTable()
    {
        if (_config is null || TokenizerJson.Member(_config.RootElement, "added_tokens_decoder") is not { ValueKind: JsonValueKind.Object } table)
        {
            yield break;
        }

        foreach (var entry in table.EnumerateObject())
        {
            if (int.TryParse(entry.Name, out var id) && TokenizerJson.Text(entry.Value, "content") is { } content)
            {
                yield return new AddedToken(
                    id, content, TokenizerJson.Flag(entry.Value, "special"), TokenizerJson.Flag(entry.Value, "single_word"),
                    TokenizerJson.Flag(entry.Value, "lstrip"), TokenizerJson.Flag(entry.Value, "rstrip"),
                    TokenizerJson.Flag(entry.Value, "normalized"));
            }
        }
    }

    private IEnumerable<AddedToken> FromAddedTokens() =>
        _addedTokens is null
            ? []
            : _addedTokens.RootElement.EnumerateObject()
                .Where(entry => entry.Value.ValueKind == JsonValueKind.Number)
                .Select(entry => new AddedToken(entry.Value.TryGetInt32(out var id) ? id : -1, entry.Name, Special: true));

    /// <summary>Special tokens that are in the vocabulary but marked only by their role.</summary>
    private IEnumerable<AddedToken> FromNames(Dictionary<string, int> ids)
    {
        foreach (var source in new[] { _config, _specialTokens }.OfType<JsonDocument>())
        {
            foreach (var name in new[] { "bos_token", "eos_token", "unk_token", "pad_token" })
            {
                if (source.RootElement.TryGetProperty(name, out var value) && Content(value) is { } content
                    && ids.TryGetValue(content, out var id))
                {
                    yield return new AddedToken(id, content, Special: true);
                }
            }

            foreach (var value in TokenizerJson.Items(source.RootElement, "additional_special_tokens"))
            {
                if (Content(value) is { } content && ids.TryGetValue(content, out var id))
                {
                    yield return new AddedToken(id, content, Special: true);
                }
            }
        }
    }
}
