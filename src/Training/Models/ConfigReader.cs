using System.Globalization;
using System.Text.Json;

namespace TrainingService.Training.Models;

/// <summary>Members of a <c>config.json</c>, read by name and checked; remembers which were read, so that the rest can be judged.</summary>
internal sealed class ConfigReader
{
    /// <summary>Fragments of names that speak of mathematics: an unread member with such a name is refused unless it is switched off.</summary>
    private static readonly string[] Mathematical =
    [
        "activation", "act_fn", "alibi", "altup", "attention", "attn", "bias", "chunk", "clip", "conv", "dropout", "expert", "factor",
        "head", "hidden", "interleave", "layer_types", "layernorm", "logit", "memory", "mixture", "mla", "moe", "mup", "multiplier",
        "norm", "parallel", "pdrop", "position", "pre_attn", "qk_", "quant", "residual", "rope", "rotary", "router", "scale",
        "scaling", "share", "softcap", "sparse", "ssm", "window",
    ];

    /// <summary>Members whose names look mathematical and that change nothing here: how and where to compute, or values for a pipeline.</summary>
    private static readonly HashSet<string> Harmless = new(StringComparer.Ordinal)
    {
        "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "attn_implementation",
        "chunk_size_feed_forward", "cross_attention_hidden_size", "max_window_layers", "output_attentions", "output_hidden_states",
        "return_dict", "tie_encoder_decoder", "pruned_heads", "use_flash_attn", "use_flash_attention", "use_flash_attention_2",
        "_flash_attn_2_enabled", "classifier_dropout", "num_logits_to_keep", "original_max_position_embeddings",
        "remove_invalid_values", "renormalize_logits", "score_layers",
    };

    private readonly JsonElement _members;
    private readonly string _path;
    private readonly HashSet<string> _read = new(StringComparer.Ordinal);

    public ConfigReader(JsonElement members, string path = "config.json")
    {
        _path = path;
        _members = members.ValueKind == JsonValueKind.Object ? members : throw TrainingException.InvalidData(
            $"{path} must be a JSON object, and is a {members.ValueKind}; take it from the model's own folder again.", path);
    }

    /// <summary>A setting that would be computed wrongly, named with its value.</summary>
    public static TrainingException Refuse(string member, string value, string remedy) =>
        TrainingException.InvalidData(
            $"config.json: {member} = {Shorten(value)} changes what the model computes and is not supported; {remedy}.",
            $"config.json:{member}");

    /// <summary>The class name, from <c>architectures</c>, or from <c>model_type</c> where that is all there is.</summary>
    public string Architecture()
    {
        var modelType = Text("model_type");
        if (Member("architectures") is not { } list)
        {
            return modelType is null
                ? throw Invalid("architectures", "is missing", "name the model's class, such as [\"LlamaForCausalLM\"]")
                : LlamaConfig.ByModelType.GetValueOrDefault(modelType, modelType);
        }

        if (list.ValueKind != JsonValueKind.Array || list.GetArrayLength() != 1 || list[0].ValueKind != JsonValueKind.String)
        {
            throw Invalid("architectures", $"is {Shorten(list.GetRawText())}", "it must name one class, such as [\"LlamaForCausalLM\"]");
        }

        var architecture = list[0].GetString()!;
        var decoder = architecture.Replace("ForSequenceClassification", "ForCausalLM", StringComparison.Ordinal);
        if (modelType is not null
            && LlamaConfig.Architectures.Contains(decoder)
            && LlamaConfig.ByModelType.GetValueOrDefault(modelType) != decoder)
        {
            throw Refuse("model_type", $"\"{modelType}\"", $"it does not belong to {architecture}");
        }

        return architecture;
    }

    /// <summary>A member by name; null when it is absent or JSON null.</summary>
    public JsonElement? Member(string name)
    {
        _read.Add(name);
        return _members.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;
    }

    public bool Has(string name) => _members.TryGetProperty(name, out _);

    /// <summary>A count from 1 to <paramref name="most"/>; <paramref name="fallback"/> when absent, which is an error when that is null.</summary>
    public int Count(string name, int most, int? fallback = null)
    {
        if (Member(name) is not { } value)
        {
            return fallback ?? throw Invalid(name, "is missing", $"give a whole number from 1 to {most}");
        }

        return value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var count) && count >= 1 && count <= most
            ? count
            : throw Invalid(name, $"is {Shorten(value.GetRawText())}", $"it must be a whole number from 1 to {most}");
    }

    /// <summary>A finite number within bounds.</summary>
    public double Number(string name, double least, double most, double? fallback = null)
    {
        if (Member(name) is not { } value)
        {
            return fallback ?? throw Invalid(name, "is missing", string.Create(CultureInfo.InvariantCulture, $"give a number from {least} to {most}"));
        }

        return value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out var number) && number >= least && number <= most
            ? number
            : throw Invalid(name, $"is {Shorten(value.GetRawText())}",
                string.Create(CultureInfo.InvariantCulture, $"it must be a number from {least} to {most}"));
    }

    public bool Flag(string name, bool fallback = false) => Member(name) switch
    {
        null => fallback,
        { ValueKind: JsonValueKind.True } => true,
        { ValueKind: JsonValueKind.False } => false,
        { } other => throw Invalid(name, $"is {Shorten(other.GetRawText())}", "it must be true or false"),
    };

    public string? Text(string name) => Member(name) switch
    {
        null => null,
        { ValueKind: JsonValueKind.String } text => text.GetString(),
        { } other => throw Invalid(name, $"is {Shorten(other.GetRawText())}", "it must be a text"),
    };

    /// <summary>Token ids: one number or a list. Ids outside the vocabulary (-1 for "none" is common) are left out.</summary>
    public IReadOnlyList<int> Ids(string name, int vocabularySize)
    {
        if (Member(name) is not { } value)
        {
            return [];
        }

        var items = value.ValueKind == JsonValueKind.Array ? value.EnumerateArray().ToArray() : [value];
        return
        [
            .. items.Select(item => item.ValueKind == JsonValueKind.Number && item.TryGetInt32(out var id)
                ? id
                : throw Invalid(name, $"is {Shorten(value.GetRawText())}", "it must be a token id or a list of them"))
                .Where(id => id >= 0 && id < vocabularySize),
        ];
    }

    /// <summary>Refuses <paramref name="name"/> unless it is absent, null or <paramref name="neutral"/>.</summary>
    public void Only(string name, string neutral, string remedy)
    {
        if (Member(name) is { } value && !IsSame(value, neutral))
        {
            throw Refuse(name, value.GetRawText(), remedy);
        }
    }

    /// <summary>Refuses members nobody has read whose names speak of mathematics and that are not switched off.</summary>
    public void RefuseUnreadMathematics()
    {
        foreach (var member in Unread().Where(member => !Harmless.Contains(member.Name) && !IsSwitchedOff(member)))
        {
            if (Mathematical.Any(fragment => member.Name.Contains(fragment, StringComparison.OrdinalIgnoreCase)))
            {
                throw Refuse(member.Name, member.Value.GetRawText(), "use a model without this setting");
            }
        }
    }

    /// <summary>Refuses every member nobody has read: for small objects in which each member means something.</summary>
    public void RefuseUnread(string parent)
    {
        if (Unread().Where(member => !IsSwitchedOff(member)).Select(member => (JsonProperty?)member).FirstOrDefault() is { } member)
        {
            throw Refuse($"{parent}.{member.Name}", member.Value.GetRawText(), "use a model without this setting");
        }
    }

    public TrainingException Invalid(string member, string what, string remedy) =>
        TrainingException.InvalidData($"{_path}: {member} {what}; {remedy}.", $"{_path}:{member}");

    private IEnumerable<JsonProperty> Unread() => _members.EnumerateObject().Where(member => !_read.Contains(member.Name));

    /// <summary>Null, false, nothing in it, or the number that leaves a product (1) or a sum (0) as it is.</summary>
    private static bool IsSwitchedOff(JsonProperty member) => member.Value.ValueKind switch
    {
        JsonValueKind.Null or JsonValueKind.False or JsonValueKind.Undefined => true,
        JsonValueKind.Array => member.Value.GetArrayLength() == 0,
        JsonValueKind.Object => !member.Value.EnumerateObject().Any(),
        JsonValueKind.Number => member.Value.TryGetDouble(out var number) && number == (IsFactor(member.Name) ? 1 : 0),
        JsonValueKind.String or JsonValueKind.True => false,
    };

    private static bool IsFactor(string name) =>
        new[] { "multiplier", "scale", "scaling", "factor" }.Any(word => name.Contains(word, StringComparison.OrdinalIgnoreCase));

    private static bool IsSame(JsonElement value, string neutral) => value.ValueKind switch
    {
        JsonValueKind.Number => value.TryGetDouble(out var number)
            && double.TryParse(neutral, CultureInfo.InvariantCulture, out var wanted) && number == wanted,
        JsonValueKind.String => value.GetString() == neutral,
        JsonValueKind.True => neutral == "true",
        JsonValueKind.False => neutral == "false",
        JsonValueKind.Array or JsonValueKind.Object or JsonValueKind.Null or JsonValueKind.Undefined => false,
    };

    private static string Shorten(string value) => value.Length <= 100 ? value : value[..100] + "…";
}
