using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Quantization;

namespace TrainingService.Training.Models;

/// <summary>Name and shape of one tensor of a checkpoint.</summary>
/// <param name="Name">Checkpoint name, such as <c>model.layers.0.self_attn.q_proj.weight</c>.</param>
/// <param name="Shape">A linear layer's weight is [out, in].</param>
/// <param name="IsLinear">Whether it is the weight of a linear layer, the output head included.</param>
public sealed record WeightShape(string Name, long[] Shape, bool IsLinear)
{
    /// <summary>How many numbers it holds.</summary>
    public long Count => Shape.Aggregate(1L, (product, size) => product * size);
}

/// <summary>A model's <c>config.json</c>: what the network computes. Reading it loads no libtorch.</summary>
/// <remarks>
/// A setting that changes the mathematics and is not implemented is refused by name: a model that runs with a setting dropped in
/// silence gives wrong numbers that look right.
/// </remarks>
public abstract record ModelConfig
{
    /// <summary>Class name under <c>architectures</c>.</summary>
    public required string Architecture { get; init; }

    public required int VocabularySize { get; init; }

    public required int HiddenSize { get; init; }

    public required int LayerCount { get; init; }

    /// <summary>Query heads H.</summary>
    public required int HeadCount { get; init; }

    /// <summary>Key and value heads G; each serves H divided by this many query heads.</summary>
    public required int KeyValueHeadCount { get; init; }

    /// <summary>Width K of one head; need not be hidden size / heads.</summary>
    public required int HeadWidth { get; init; }

    /// <summary>Longest sequence, in tokens.</summary>
    public required int MaxPositions { get; init; }

    /// <summary>Whether the output head multiplies with the embedding's own weight.</summary>
    public required bool TiesHead { get; init; }

    public int? BosId { get; init; }

    public IReadOnlyList<int> EosIds { get; init; } = [];

    public int? PadId { get; init; }

    /// <summary>Standard deviation of new weights.</summary>
    public double InitializerRange { get; init; } = 0.02;

    /// <summary>The document that was parsed, kept whole so that a saved model keeps members that do not concern us.</summary>
    public required string SourceJson { get; init; }

    /// <summary>What scores whole sequences in place of the output head, or beside it; null: the output head alone scores the next token.</summary>
    public ScoreHead? Score { get; init; }

    /// <summary>Whether there is an output head for tokens.</summary>
    public bool PredictsTokens => Score is null or { KeepsTokens: true };

    /// <summary>
    /// Every tensor that the model owns, by checkpoint name; <c>lm_head.weight</c> only when there is an output head and it is not tied.
    /// </summary>
    public abstract IReadOnlyList<WeightShape> Weights { get; }

    /// <summary>How many numbers the model holds.</summary>
    public long ParameterCount => Weights.Sum(weight => weight.Count);

    /// <summary>The network with weights from <paramref name="source"/>.</summary>
    /// <param name="quantization">Turns the weights that it covers into codes, each as soon as it is given; null: none.</param>
    public abstract CausalLm Build(WeightSource source, QuantizationConfig? quantization = null);

    /// <summary>Reads a <c>config.json</c>.</summary>
    /// <exception cref="TrainingException">It is not valid, or asks for something that is not implemented.</exception>
    public static ModelConfig Parse(string configJson)
    {
        try
        {
            using var document = JsonDocument.Parse(configJson, new() { MaxDepth = 32, AllowDuplicateProperties = false });
            var members = new ConfigReader(document.RootElement);
            var architecture = members.Architecture();
            const string Scoring = "ForSequenceClassification";
            var decoder = architecture.EndsWith(Scoring, StringComparison.Ordinal) ? architecture[..^Scoring.Length] + "ForCausalLM" : architecture;
            return LlamaConfig.Architectures.Contains(decoder)
                ? LlamaConfig.Read(decoder, members, configJson) with { Score = ScoreHead.Read(members, keepsTokens: decoder == architecture) }
                : throw ConfigReader.Refuse(
                    "architectures", $"\"{architecture}\"", $"use one of {string.Join(", ", LlamaConfig.Architectures)}");
        }
        catch (Exception error) when (HostileJson.IsMalformed(error))
        {
            throw TrainingException.InvalidData(
                $"config.json is not valid JSON ({error.Message.TrimEnd('.')}); take it from the model's own folder again.",
                "config.json", error);
        }
    }
}
