using System.Text.Json.Nodes;

namespace TrainingService.EndToEnd.Tests.BadInput;

/// <summary>When the service can know that an input is bad.</summary>
internal enum Stage
{
    Registration,
    Submission,
    Run,
}

/// <summary>One way to get an input wrong, and what its owner is told over HTTP and by <c>train</c>.</summary>
/// <param name="Name">Name of the test.</param>
/// <param name="Spoil">Makes good inputs bad.</param>
/// <param name="Stage">The first request over HTTP that answers for it.</param>
/// <param name="Code">Failure code of the run.</param>
/// <param name="Param">What is at fault.</param>
/// <param name="Says">Words of the message: the value seen, and the fix.</param>
internal sealed record BadCase(string Name, Action<Inputs> Spoil, Stage Stage, string Code, string Param, params string[] Says)
{
    /// <summary>Code of the refusal over HTTP where it is finer than that of the run.</summary>
    public string? Refusal { get; init; }

    private const string OneNumber = """{"dtype":"F32","shape":[1],"data_offsets":[0,4]}""";

    /// <summary>A row whose only trainable token is behind <c>max_length</c>.</summary>
    private static readonly string NothingWithinTheLimit = new JsonObject
    {
        ["input_ids"] = new JsonArray([.. Enumerable.Repeat(5, 41).Select(id => (JsonNode)id)]),
        ["labels"] = new JsonArray([.. Enumerable.Repeat(-100, 40).Append(5).Select(label => (JsonNode)label)]),
    }.ToJsonString();

    public static readonly IReadOnlyList<BadCase> All =
    [
        Spec("unknown member", ["adapter", "rnak"], 4, "unknown_member", "adapter.rnak", "did you mean rank"),
        Spec("rank 0", ["adapter", "rank"], 0, "out_of_range", "adapter.rank", "is 0", "from 1 to"),
        Spec("rank larger than the matrix", ["adapter", "rank"], 17, "rank_too_large", "adapter.rank", "16"),
        Spec("negative learning rate", ["optimizer", "learning_rate"], -0.1, "out_of_range", "optimizer.learning_rate", "-0.1"),
        Spec("unknown target module",
            ["adapter", "target_modules"], new JsonArray("q_porj"), "unknown_module", "adapter.target_modules[0]", "q_proj", "down_proj"),

        Rows("malformed line", rows => File.AppendAllText(rows, "{\"input_ids\": [1, 2\n"), "data.train:9", "row 9", "column"),
        Rows("row without trainable tokens",
            rows => File.AppendAllText(rows, """{"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}"""),
            "data.train:9", "trainable token", "remove it"),
        Rows("no rows", rows => File.WriteAllText(rows, "\n\n"), "data.train", "no usable row"),
        Rows("no row within max_length", rows => File.WriteAllText(rows, NothingWithinTheLimit), "data.train", "no usable row", "max_length"),
        Rows("token beyond the vocabulary", rows => File.WriteAllText(rows, """{"input_ids": [1, 64]}"""), "data.train:1", "64", "0 to 63"),
        Rows("columns of no layout", rows => File.WriteAllText(rows, """{"colour": "red"}"""), "data.train", "colour", "fit no layout"),

        Model("tokenizer larger than the model",
            inputs => File.WriteAllText(Path.Combine(inputs.Model, "tokenizer.json"), TinyModel.Tokenizer(65)),
            "model", "65", "64", "right tokenizer"),
        Model("truncated weights",
            inputs => Change(inputs.Weights, bytes => bytes[..^100]),
            "model.safetensors:'lm_head.weight'", "truncated", "again"),
        Model("header length beyond the file",
            inputs => Change(inputs.Weights, _ => TinyModel.Header("{}", long.MaxValue)),
            "model.safetensors", "again"),
        Model("offsets beyond the file",
            inputs => Change(inputs.Weights, _ => TinyModel.Header("""{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}""")),
            "model.safetensors:'a'", "4294967296", "again"),
        Model("negative offsets",
            inputs => Change(inputs.Weights, _ => TinyModel.Header("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}""")),
            "model.safetensors:'a'", "-4", "again"),
        Model("overlapping tensors",
            inputs => Change(inputs.Weights, _ => [.. TinyModel.Header($$"""{"a":{{OneNumber}},"b":{{OneNumber}}}"""), 0, 0, 0, 0]),
            "model.safetensors:'b'", "overlaps", "again"),
        Model("one tensor twice",
            inputs => Change(inputs.Weights, _ => [.. TinyModel.Header($$"""{"a":{{OneNumber}},"a":{{OneNumber}}}"""), 0, 0, 0, 0]),
            "model.safetensors:'a'", "twice", "again"),
        Model("pickle checkpoint",
            inputs => File.Move(inputs.Weights, Path.Combine(inputs.Model, "pytorch_model.bin")),
            "pytorch_model.bin", "pickle", "safe_serialization=True"),
        Model("missing key",
            inputs => Change(inputs.Weights, _ => TinyModel.Weights(shapes => shapes.Remove("model.norm.weight"))),
            "model.norm.weight", "1 missing (model.norm.weight)", "from one model"),
        Model("surplus key",
            inputs => Change(inputs.Weights, _ => TinyModel.Weights(shapes => shapes["model.extra.weight"] = [2, 2])),
            "model.extra.weight", "1 surplus (model.extra.weight)", "from one model"),
        Model("wrong shape",
            inputs => Change(inputs.Weights, _ => TinyModel.Weights(shapes => shapes["model.norm.weight"] = [8])),
            "model.norm.weight", "[8]", "[16]", "from one model"),
        Model("no configuration", inputs => File.Delete(Path.Combine(inputs.Model, "config.json")), "config.json", "Hugging Face"),
        Model("pickle adapter as model",
            inputs => File.Move(Path.Combine(MakeAdapter(inputs), "adapter_model.safetensors"), Path.Combine(inputs.Model, "adapter_model.bin")),
            "adapter_model.bin", "pickle", "safe_serialization=True"),
        Model("adapter as model", inputs => MakeAdapter(inputs), "adapter_config.json", "adapter, not a base model", "adapter.from"),

        Spec("unknown model", ["model"], "model-00000000000000000000000000000000", "model_not_available", "model", "There is no", "model-0000"),
    ];

    public override string ToString() => Name;

    private static BadCase Spec(string name, string[] path, JsonNode value, string refusal, string param, params string[] says) =>
        new(name, inputs => Put(inputs.Spec, path, value), Stage.Submission, "invalid_spec", param, says) { Refusal = refusal };

    private static BadCase Rows(string name, Action<string> spoil, string param, params string[] says) =>
        new(name, inputs => spoil(inputs.Rows), Stage.Run, "invalid_data", param, says);

    private static BadCase Model(string name, Action<Inputs> spoil, string param, params string[] says) =>
        new(name, spoil, Stage.Registration, "invalid_data", param, says);

    private static void Put(JsonObject spec, string[] path, JsonNode value)
    {
        var parent = path[..^1].Aggregate(spec, (node, name) => node[name]!.AsObject());
        parent[path[^1]] = value.DeepClone();
    }

    private static void Change(string file, Func<byte[], byte[]> change) => File.WriteAllBytes(file, change(File.ReadAllBytes(file)));

    /// <summary>Puts an adapter where the model was.</summary>
    private static string MakeAdapter(Inputs inputs)
    {
        Directory.Delete(inputs.Model, recursive: true);
        TinyModel.WriteAdapter(inputs.Model, "model.layers.0.self_attn.q_proj", width: 16);
        return inputs.Model;
    }
}
