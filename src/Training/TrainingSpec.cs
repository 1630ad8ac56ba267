using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Quantization;
using TrainingService.Training.Rewards;

namespace TrainingService.Training;

/// <summary>What to train, on what, and how. The same document goes over HTTP, to <c>train</c> and into the artifact.</summary>
public sealed record TrainingSpec : IValidatableObject
{
    [Description("Base model: an id (mdl_…) of a registered model, or a local folder for the command line.")]
    [Required(AllowEmptyStrings = false)]
    public required string Model { get; init; }

    [Description("Training and validation rows, and how rows become token sequences.")]
    public required DataConfig Data { get; init; }

    [Description("What is optimised.")]
    public ObjectiveConfig Objective { get; init; } = new SftConfig();

    [Description("Which weights move.")]
    public AdapterConfig Adapter { get; init; } = new LoraConfig();

    [Description("How gradients become updates.")]
    public OptimizerConfig Optimizer { get; init; } = new AdamWConfig();

    [Description("How long, in which batches, at which rate.")]
    public ScheduleConfig Schedule { get; init; } = new();

    [Description("Number format of the frozen weights and of the arithmetic. auto: bfloat16 on a GPU, float32 on a CPU.")]
    public Precision Precision { get; init; } = Precision.Auto;

    [Description("Few bits for the frozen weights of the linear layers; null: they keep the number format of precision.")]
    public QuantizationConfig? Quantization { get; init; }

    [Description("Layers that keep their input alone and are computed again for their gradients, which are the same: less memory for about a third more time. off, full (every layer), or n for every n-th layer.")]
    public ActivationCheckpointing ActivationCheckpointing { get; init; } = ActivationCheckpointing.Off;

    [Description("When and how the model is measured on the validation rows.")]
    public EvaluationConfig Evaluation { get; init; } = new();

    [Description("When the state is saved, and how many saves are kept.")]
    public CheckpointConfig Checkpoints { get; init; } = new();

    [Description("Singular values of the adapted weights, their updates and their sums.")]
    public SpectraConfig Spectra { get; init; } = new();

    [Description("Seed of initialisation, dropout and shuffling. The same seed gives the same run."), Range(0, int.MaxValue)]
    public int Seed { get; init; } = 42;

    /// <summary>How the base is held: as asked for, or as the adapter needs it.</summary>
    internal QuantizationConfig? HeldBase => Quantization ?? Adapter.DefaultQuantization;

    /// <summary>How rows are read: as the spec says, with what the adapter asks of each of them.</summary>
    public DataConfig DataForAdapter() => Data with { Classes = Adapter.RowClasses };

    /// <summary>What the objective makes of a row.</summary>
    public RowUse RowUse() => Objective.Use;

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (Quantization is not null && Adapter.RefusesQuantization is { } refusal)
        {
            yield return new($"cannot be used with this adapter: {refusal}", [nameof(Quantization), nameof(Adapter)]);
        }

        if (Objective is DmoeRewardConfig && Adapter is not LoraConfig)
        {
            yield return new("needs adapter lora, which its experts are; use it, or another objective.", [nameof(Objective), nameof(Adapter)]);
        }

        if (Evaluation.EarlyStoppingPatience is not null && Data.Validation is null && Data.ValidationSplit == 0)
        {
            yield return new(
                "needs validation rows: give data.validation or data.validation_split, or set it to null.",
                [$"{nameof(Evaluation)}.{nameof(Evaluation.EarlyStoppingPatience)}", $"{nameof(Data)}.{nameof(Data.Validation)}", $"{nameof(Data)}.{nameof(Data.ValidationSplit)}"]);
        }

        if (Evaluation.Sections is not null && Objective is not { Use: Training.Data.RowUse.Pairs or Training.Data.RowUse.Critiques, Score: not null })
        {
            yield return new(
                "is for reward models; leave it out, or set objective.type to reward.",
                [$"{nameof(Evaluation)}.{nameof(Evaluation.Sections)}", nameof(Objective)]);
        }

        if (Data.Calibration is not null && !Adapter.LooksAtRows)
        {
            yield return new(
                "is for adapters that look at rows before they start, such as corda and eva; leave it out.",
                [$"{nameof(Data)}.{nameof(Data.Calibration)}", nameof(Adapter)]);
        }

        if (Optimizer.LoraPlusRatio is not null && Adapter is FullConfig or VirtualTokensConfig)
        {
            yield return new(
                "needs an adapter with factors, such as lora; this one has none, so set it to null.",
                [$"{nameof(Optimizer)}.{nameof(Optimizer.LoraPlusRatio)}", nameof(Adapter)]);
        }
    }
}

/// <summary>Number format of a run.</summary>
public enum Precision
{
    Auto,
    Float32,
    Bfloat16,
}

/// <summary>Shape of the learning rate after the warm-up.</summary>
public enum LrScheduler
{
    [Method("Constant", "The learning rate stays where the warm-up leaves it.", "Short runs, comparisons, and runs whose length is open.")]
    Constant,

    [Method("Linear decay", "The learning rate falls in a straight line from the end of the warm-up to zero at the last step.", "Fine-tuning with few steps; the rate is low for longer than with cosine.")]
    Linear,

    [Method(
        "Cosine decay",
        "The learning rate falls along half a cosine from the end of the warm-up to zero at the last step.",
        "The default for most runs: a long high plateau, then a smooth end.",
        Paper = "Loshchilov and Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts, equation 5 without restarts",
        Arxiv = "1608.03983")]
    Cosine,
}

/// <summary>How long a run lasts, how its batches are formed, and how the learning rate moves.</summary>
public sealed record ScheduleConfig : IValidatableObject
{
    [Description("Passes over the training rows. Ignored when max_steps is set."), Range(0.01, 1000)]
    public double Epochs { get; init; } = 3;

    [Description("Optimizer steps in all; null: epochs decide."), Range(1, 100_000_000)]
    public int? MaxSteps { get; init; }

    [Description("Sequences in one forward pass."), Range(1, 4096)]
    public int BatchSize { get; init; } = 8;

    [Description("Forward passes whose gradients are summed before one optimizer step."), Range(1, 4096)]
    public int GradientAccumulationSteps { get; init; } = 1;

    [Description("Share of the steps over which the learning rate rises from zero."), Range(0, 1)]
    public double WarmupRatio { get; init; } = 0.03;

    [Description("Steps over which the learning rate rises from zero; null: warmup_ratio decides."), Range(0, 100_000_000)]
    public int? WarmupSteps { get; init; }

    [Description("Learning rate after the warm-up: constant, linear to zero, or half a cosine to zero.")]
    public LrScheduler LrScheduler { get; init; } = LrScheduler.Cosine;

    [Description("Gradients are scaled so that their global L2 norm is at most this; null: never."), Range(1e-6, 1e6)]
    public double? MaxGradNorm { get; init; } = 1.0;

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (WarmupSteps > MaxSteps)
        {
            yield return new($"is {WarmupSteps}, more than max_steps, {MaxSteps}; lower it.", [nameof(WarmupSteps), nameof(MaxSteps)]);
        }
    }
}

/// <summary>When and how a model is measured on rows that it does not train on.</summary>
public sealed record EvaluationConfig
{
    [Description("Steps between evaluations; null: after each epoch and at the end."), Range(1, 100_000_000)]
    public int? EverySteps { get; init; }

    [Description("What is measured: loss (mean over tokens, nats), token_accuracy."), AllowedItems("loss", "token_accuracy")]
    public IReadOnlyList<string> Metrics { get; init; } = ["loss", "token_accuracy"];

    [Description("Of a reward model: names of sections and the categories of the validation rows that each is made of, as RewardBench weights its subsets; null: categories stand alone.")]
    public IReadOnlyDictionary<string, RewardSection>? Sections { get; init; }

    [Description("Evaluations without a lower loss after which the run ends early; null: never."), Range(1, 10_000)]
    public int? EarlyStoppingPatience { get; init; }
}

/// <summary>When the state of a run is saved.</summary>
public sealed record CheckpointConfig
{
    [Description("Steps between checkpoints; null: after each epoch."), Range(1, 100_000_000)]
    public int? EverySteps { get; init; }

    [Description("Newest checkpoints that are kept; the best one is kept besides."), Range(1, 1000)]
    public int Keep { get; init; } = 2;
}

/// <summary>Whether spectra are computed.</summary>
public sealed record SpectraConfig
{
    [Description("Whether spectra are computed when the run ends.")]
    public bool Enabled { get; init; } = true;

    [Description("Steps between spectra during the run; null: only at the end."), Range(1, 100_000_000)]
    public int? EverySteps { get; init; }
}
