using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;

namespace TrainingService.Training.Optimizers;

/// <summary>How gradients become updates.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(AdamWConfig), "adamw")]
[JsonDerivedType(typeof(AdafactorConfig), "adafactor")]
[JsonDerivedType(typeof(LionConfig), "lion")]
[JsonDerivedType(typeof(MuonConfig), "muon")]
[JsonDerivedType(typeof(SgdConfig), "sgd")]
public abstract record OptimizerConfig
{
    [Description("Learning rate at the end of the warm-up."), Range(1e-12, 1e3)]
    public double LearningRate { get; init; } = 2e-4;

    [Description("Weight decay, decoupled from the gradient where the method decouples it."), Range(0, 1e3)]
    public double WeightDecay { get; init; }

    [Description("LoRA+: the learning rate of B, and of biases and norms, is the rate times this, typically 16; null: all rates are alike."), Range(1e-3, 1e6)]
    public double? LoraPlusRatio { get; init; }

    /// <summary>An optimizer with empty moments over these parameters; it does not own them.</summary>
    public abstract Optimizer Create(FlatParameters parameters);

    /// <summary>Bytes that are remembered between steps for weights laid out in <paramref name="groups"/>; nothing is loaded.</summary>
    public abstract long StateBytes(IReadOnlyList<FlatGroup> groups);
}
