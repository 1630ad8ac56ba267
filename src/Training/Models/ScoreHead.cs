using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>Layers of a <see cref="ScoreHead"/>.</summary>
public enum ScoreLayers
{
    [Method("Linear", "One product with the last hidden state, without bias.", "The default: what Hugging Face's sequence classification has, so that a merged model loads there.")]
    Linear,

    [Method(
        "Two layers", "A layer as wide as the hidden state, SiLU, and a layer to the scores; both with bias.",
        "When the linear head's accuracy is not enough: BaseReward found it better at equal data.",
        Paper = "BaseReward: A Strong Baseline for Multimodal Reward Model, section 4",
        Arxiv = "2509.16127")]
    Mlp,
}

/// <summary>What stands on the last hidden state in place of the scores of the next token, or beside them.</summary>
/// <remarks>Its weights are float32 whatever format the model has: a reward is a difference of small numbers.</remarks>
/// <param name="Outputs">Numbers per sequence.</param>
/// <param name="Branches">Two-layer heads side by side: each has a first layer and an equal part of the outputs of its own. Heads of one layer are
/// apart by nature and count as one.</param>
public sealed record ScoreHead(ScoreLayers Layers = ScoreLayers.Linear, int Outputs = 1, int Branches = 1)
{
    /// <summary>The module that owns the weights, as Hugging Face's sequence classification names it.</summary>
    public const string Module = "score";

    private const string Prefix = Module + ".";
    private const string ConfigMember = "score_layers";
    private const string BranchesMember = "score_branches";

    /// <summary>Whether a new head gives zeros, whatever it reads, until its last layer has been trained.</summary>
    public bool StartsAtZero { get; init; }

    /// <summary>Heads that share nothing but what they read, an output each.</summary>
    public static ScoreHead Ensemble(ScoreLayers layers, int members) => new(layers, members, layers == ScoreLayers.Mlp ? members : 1);

    /// <summary>Whether weights of one serve the other: how new ones begin does not matter.</summary>
    public bool Fits(ScoreHead other) => this with { StartsAtZero = other.StartsAtZero } == other;

    /// <summary>Whether the output head for tokens stays beside this one: the model writes, and scores what it wrote.</summary>
    public bool KeepsTokens { get; init; }

    /// <summary>Whether a weight of a model belongs to such a head.</summary>
    public static bool Owns(string weight) => weight.StartsWith(Prefix, StringComparison.Ordinal);

    /// <summary>The head that a saved adapter brings; null: none.</summary>
    public static ScoreHead? Of(string adapterFolder)
    {
        var path = Path.Combine(adapterFolder, PeftFolder.WeightsFile);
        if (!File.Exists(path))
        {
            return null;   // whoever opens the folder says so
        }

        var keeps = PeftFolder.PredictsTokens(adapterFolder);
        using var file = SafeTensorsFile.Open(path);
        var head = file.Entries.TryGetValue(PeftFolder.KeyPrefix + "score.2.weight", out var second)
            && file.Entries.TryGetValue(PeftFolder.KeyPrefix + "score.0.weight", out var first)
                ? new(ScoreLayers.Mlp, (int)second.Shape[0], (int)(first.Shape[0] / Math.Max(1, second.Shape[^1])))
            : file.Entries.TryGetValue(PeftFolder.KeyPrefix + "score.weight", out var only) ? new(ScoreLayers.Linear, (int)only.Shape[0])
            : (ScoreHead?)null;
        return head is null ? null : head with { KeepsTokens = keeps };
    }

    /// <summary>The head of a model of Hugging Face's sequence classification, or the one that a decoder has beside its own.</summary>
    /// <param name="keepsTokens">Whether the model is a decoder.</param>
    internal static ScoreHead? Read(ConfigReader config, bool keepsTokens)
    {
        if (keepsTokens && config.Text(ConfigMember) is null)
        {
            return null;
        }

        var labels = config.Member("id2label") is { ValueKind: JsonValueKind.Object } names ? names.EnumerateObject().Count() : 2;
        var layers = config.Text(ConfigMember) switch
        {
            null or "linear" => ScoreLayers.Linear,
            "mlp" => ScoreLayers.Mlp,
            var other => throw config.Invalid(ConfigMember, $"is \"{other}\"", "it must be linear or mlp"),
        };
        return new(layers, config.Count("num_labels", 1 << 16, Math.Max(1, labels)), config.Count(BranchesMember, 1 << 10, 1)) { KeepsTokens = keepsTokens };
    }

    /// <summary>Makes a model's <c>config.json</c> that of a sequence classification, or of a decoder with a head beside its own.</summary>
    internal void Write(JsonObject config, string architecture)
    {
        config["architectures"] = new JsonArray(
            KeepsTokens ? architecture : architecture.Replace("ForCausalLM", "ForSequenceClassification", StringComparison.Ordinal));
        var names = Enumerable.Range(0, Outputs).Select(index => index.ToString(CultureInfo.InvariantCulture)).ToList();
        config["id2label"] = new JsonObject(names.Select(name => KeyValuePair.Create(name, (JsonNode?)$"LABEL_{name}")));
        config["label2id"] = new JsonObject(names.Select((name, index) => KeyValuePair.Create($"LABEL_{name}", (JsonNode?)index)));
        if (KeepsTokens)
        {
            config[ConfigMember] = "linear";   // Hugging Face's decoders have no such head and pass over it
        }

        if (Layers == ScoreLayers.Mlp)
        {
            config[ConfigMember] = "mlp";   // Hugging Face's class has one layer; this service reads its own
            if (Branches > 1)
            {
                config[BranchesMember] = Branches;
            }
        }
    }

    /// <summary>Its weights on a model of that width.</summary>
    public IEnumerable<WeightShape> Weights(int hiddenSize) => Layers switch
    {
        ScoreLayers.Linear => [new(Prefix + "weight", [Outputs, hiddenSize], false)],
        ScoreLayers.Mlp =>
        [
            new(Prefix + "0.weight", [Branches * hiddenSize, hiddenSize], false),
            new(Prefix + "0.bias", [Branches * hiddenSize], false),
            new(Prefix + "2.weight", [Outputs, hiddenSize], false),
            new(Prefix + "2.bias", [Outputs], false),
        ],
    };

    /// <summary>First values of one of the weights: biases zero, matrices normal with deviation 1/√(d + 1), or the last one zero.</summary>
    /// <remarks>The deviation is open-instruct's; Hugging Face's own 0.02 fits widths of a few thousand.</remarks>
    public Tensor New(WeightShape weight, long seed)
    {
        if (weight.Shape.Length == 1 || (StartsAtZero && weight.Name is (Prefix + "weight") or (Prefix + "2.weight")))
        {
            return zeros(weight.Shape, ScalarType.Float32);
        }

        using var generator = new Generator((ulong)(seed + weight.Name.Length), CPU);   // each matrix its own numbers
        return randn(weight.Shape, ScalarType.Float32, generator: generator).div_(Math.Sqrt(weight.Shape[1] + 1));
    }

    /// <summary>Scores of hidden states.</summary>
    /// <param name="hidden">[.., D].</param>
    /// <param name="weightOf">Gives a weight by its name.</param>
    /// <returns>[.., <see cref="Outputs"/>], float32, in the caller's dispose scope.</returns>
    internal Tensor Run(Tensor hidden, Func<string, Parameter> weightOf)
    {
        using var scope = NewDisposeScope();
        var input = hidden.to_type(ScalarType.Float32);
        var scores = Layers switch
        {
            ScoreLayers.Linear => nn.functional.linear(input, weightOf(Prefix + "weight")),
            ScoreLayers.Mlp => Last(
                nn.functional.silu(nn.functional.linear(input, weightOf(Prefix + "0.weight"), weightOf(Prefix + "0.bias"))),
                weightOf(Prefix + "2.weight"), weightOf(Prefix + "2.bias")),
        };
        return scores.MoveToOuterDisposeScope();
    }

    /// <summary>The last layer: each branch reads its own part of the first layer's outputs.</summary>
    /// <param name="first">[.., branches·D].</param>
    private Tensor Last(Tensor first, Parameter weight, Parameter bias)
    {
        if (Branches == 1)
        {
            return nn.functional.linear(first, weight, bias);
        }

        var width = weight.shape[1];
        long[] batch = [.. first.shape.SkipLast(1)];
        var products = first.reshape([.. batch, Branches, 1, width]) * weight.reshape(Branches, Outputs / Branches, width);   // [.., n, O/n, D]
        return products.sum(dim: -1).reshape([.. batch, Outputs]) + bias;
    }
}
