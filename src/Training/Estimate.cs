using System.ComponentModel;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Quantization;
using TrainingService.Training.Throughput;

namespace TrainingService.Training;

/// <summary>What is known of the training rows before they are read.</summary>
/// <param name="Rows">Rows of the file; null: not counted.</param>
/// <param name="Tokens">Tokens of all rows; null: not counted.</param>
public sealed record DataSize(long? Rows = null, long? Tokens = null);

/// <summary>Memory that a run holds at its peak, bytes; on a GPU, that of the device. Fragmentation comes on top.</summary>
public sealed record MemoryEstimate(
    [property: Description("Weights of the base model.")] long WeightsBytes,
    [property: Description("Tensors that the adapter adds, and float32 copies of base weights that train in another format.")] long TrainedBytes,
    [property: Description("Gradients of everything that trains.")] long GradientsBytes,
    [property: Description("What the optimizer remembers.")] long OptimizerBytes,
    [property: Description("Layer inputs and outputs kept for the backward pass.")] long ActivationsBytes,
    [property: Description("Logits of as many rows as are held at a time, the gradient of the output head's input, and of the head where it trains.")] long LogitsBytes,
    [property: Description("The process itself: the runtime and libtorch, or on a GPU the driver's context.")] long RuntimeBytes)
{
    [Description("Sum of all parts.")]
    public long TotalBytes => BytesWithoutRows() + ActivationsBytes + LogitsBytes;

    /// <summary>What the run holds however short its rows are.</summary>
    public long BytesWithoutRows() => RuntimeBytes + WeightsBytes + TrainedBytes + GradientsBytes + OptimizerBytes;
}

/// <summary>What a job would take. Computed from the spec and <c>config.json</c>; nothing is loaded.</summary>
public sealed record Estimate(
    [property: Description("Numbers that train; exact.")] long TrainableParameters,
    [property: Description("Numbers in the base model, a tied output head counted once, plus those the adapter adds; exact.")] long TotalParameters,
    [property: Description("trainable_parameters / total_parameters.")] double TrainableShare,
    [property: Description("Peak memory in bytes, estimated.")] MemoryEstimate Memory,
    [property: Description("Size of the saved adapter, or of the saved model, in bytes, estimated.")] long ArtifactBytes,
    [property: Description("Optimizer steps; null when neither max_steps nor the size of the data decides.")] long? Steps,
    [property: Description("Whether max_steps decides; otherwise packing, long rows and rows without trainable tokens may change the number.")] bool StepsAreExact,
    [property: Description("Floating-point operations of the mathematics of one optimizer step, estimated.")] double OperationsPerStep)
{
    /// <param name="onGpu">Decides what <c>precision: auto</c> means.</param>
    /// <exception cref="TrainingException">The adapter does not fit the model; <see cref="SpecChecks"/> says why, all at once.</exception>
    public static Estimate For(TrainingSpec spec, ModelConfig model, DataSize? data = null, bool onGpu = false)
    {
        model = spec.Objective.On(model);
        var trained = spec.Adapter.Count(model);
        var weightBytes = WeightBytes(spec.Precision, onGpu);
        var total = model.ParameterCount + trained.Added;
        return new(
            trained.Total,
            total,
            trained.Total / (double)total,
            MemoryOf(spec, model, trained, weightBytes, onGpu ? ContextBytes : ProcessBytes),
            trained.Added * Float32 + trained.InPlace * weightBytes,
            spec.Objective is DmoeRewardConfig ? null : spec.Schedule.MaxSteps ?? StepsOf(spec, data ?? new()),   // the rows tell how many phases there are
            StepsAreExact: spec.Schedule.MaxSteps is not null && spec.Objective is not DmoeRewardConfig,
            OperationsOf(spec, model, data ?? new()));
    }

    /// <summary>The format that <c>auto</c> stands for, or the one that was asked for.</summary>
    public static Precision PrecisionOf(Precision precision, bool onGpu) => precision switch
    {
        Precision.Auto => onGpu ? Precision.Bfloat16 : Precision.Float32,
        Precision.Float32 or Precision.Bfloat16 => precision,
    };

    /// <summary>The same in the words of what a run took; how long it takes is left open.</summary>
    /// <param name="steps">Of the plan; null: not known yet.</param>
    public RunCost CostOf(TrainingSpec spec, bool onGpu, int? steps) => new(
        onGpu ? "cuda" : "cpu", PrecisionOf(spec.Precision, onGpu), Memory.TotalBytes, ArtifactBytes, steps, OperationsPerStep,
        SecondsPerStep: null, Seconds: null);

    private const int Float32 = 4;

    /// <summary>
    /// As runs report it: 190 MiB are resident before a model is loaded, and 110 MiB are what products and the backward pass take for
    /// themselves and the allocator keeps.
    /// </summary>
    private const long ProcessBytes = 300L << 20;

    /// <summary>Taken of a GPU before a model is loaded: context, and the kernels and work space of the product library.</summary>
    private const long ContextBytes = 600L << 20;

    private static int WeightBytes(Precision precision, bool onGpu) =>
        PrecisionOf(precision, onGpu) == Precision.Float32 ? Float32 : Float32 / 2;

    private static MemoryEstimate MemoryOf(TrainingSpec spec, ModelConfig model, TrainedCounts trained, int weightBytes, long runtimeBytes)
    {
        var masters = weightBytes == Float32 ? 0 : trained.InPlace * Float32;
        var given = Math.Min(spec.Data.MaxLength, model.MaxPositions - spec.Adapter.VirtualTokens);
        var length = given + spec.Adapter.VirtualTokensInRow;
        var tokens = (long)spec.Schedule.BatchSize * spec.Objective.Use.Sequences() * length;

        // Kept per token and layer: the outputs of its linear layers, of which the attention keeps its turned queries and keys and the gate
        // its two halves; the product of these; and four times the width for the inputs and outputs of two norms. Layers that read one input
        // keep it once, and a frozen weight keeps none of its output. A layer that is computed again keeps its input alone, and one at a time the rest.
        var linears = LayerPlan.LinearsOf(model);
        var perLayer = linears.Sum(linear => linear.Out) / model.LayerCount + 4L * model.HiddenSize + linears.Max(linear => linear.In);
        var again = Enumerable.Range(0, model.LayerCount).Count(spec.ActivationCheckpointing.Recomputes);
        var perToken = (model.LayerCount - again + (again > 0 ? 1 : 0)) * perLayer + (long)again * model.HiddenSize;

        // Packed rows share one mask, [B, 1, T, T], once as bool and once in the weights' format. The attention keeps no scores.
        var mask = spec.Data.Packing && !spec.Objective.Use.IsJudged() ? (Int128)tokens * (given + spec.Adapter.VirtualTokens) * (weightBytes + 1) : 0;

        // A chunk of logits; beside bfloat16 ones, their float32 exponentials and these in bfloat16 again.
        var perLogit = weightBytes == Float32 ? Float32 : weightBytes + Float32 + weightBytes;
        var logits = !model.PredictsTokens ? 0 : Int128.Min((Int128)tokens * model.VocabularySize, Math.Max(LinearCrossEntropy.MostLogits, model.VocabularySize));
        var head = spec.Adapter is FullConfig ? (long)model.VocabularySize * model.HiddenSize * Float32 : 0;
        return new(
            WeightsBytes: FrozenBytes(spec.HeldBase, model, weightBytes) + (spec.HeldBase is { } held ? spec.Adapter.MoreFrozenBytes(model, held) : 0),
            TrainedBytes: trained.Added * Float32 + masters,
            GradientsBytes: trained.Added * Float32 + trained.InPlace * weightBytes,
            OptimizerBytes: spec.Optimizer.StateBytes(FlatLayout.Of([.. spec.Adapter.Trained(model).Select(tensor => (tensor.Shape, tensor.Role))])),
            ActivationsBytes: Saturated((Int128)tokens * perToken * weightBytes + mask),
            LogitsBytes: Saturated(logits * perLogit + 2 * (Int128)tokens * model.HiddenSize * weightBytes + head),
            RuntimeBytes: runtimeBytes);
    }

    private static long FrozenBytes(QuantizationConfig? quantization, ModelConfig model, int weightBytes) => model.Weights.Sum(weight =>
        quantization is not null && QuantizationConfig.Covers(weight) ? quantization.BytesOf(weight.Count) : weight.Count * weightBytes);

    /// <summary>A number that no machine has stays one when it is added to others.</summary>
    private static long Saturated(Int128 bytes) => (long)Int128.Min(bytes, long.MaxValue / 8);

    /// <summary>Steps of the run. One epoch has as many as there are batches over the accumulation, each rounded up.</summary>
    private static long? StepsOf(TrainingSpec spec, DataSize data) => StepsPerEpoch(spec, data) is { } perEpoch
        ? (long)Math.Max(1, Math.Ceiling(spec.Schedule.Epochs * perEpoch - 1e-9))
        : null;

    /// <summary>Operations of one step: of the tokens that there are, or else of as many as the spec allows.</summary>
    private static double OperationsOf(TrainingSpec spec, ModelConfig model, DataSize data)
    {
        var longest = Math.Min(spec.Data.MaxLength, model.MaxPositions - spec.Adapter.VirtualTokens);
        var tokens = data.Tokens is { } all && StepsPerEpoch(spec, data) is { } steps
            ? all * (1 - spec.Data.ValidationSplit) / steps
            : (double)spec.Schedule.BatchSize * spec.Objective.Use.Sequences() * spec.Schedule.GradientAccumulationSteps * longest;
        var length = !spec.Data.Packing && data is { Tokens: { } count, Rows: > 0 and { } rows } ? (int)Math.Min(count / rows, longest) : longest;
        return tokens * StepOperations.PerToken(spec, model, length);
    }

    private static double? StepsPerEpoch(TrainingSpec spec, DataSize data)
    {
        var share = 1 - spec.Data.ValidationSplit;
        double? sequences = spec.Data.Packing
            ? data.Tokens * share / spec.Data.MaxLength   // packing leaves few gaps
            : data.Rows * share;
        if (sequences is not { } count)
        {
            return null;
        }

        var batches = Math.Ceiling(Math.Max(1, count) / spec.Schedule.BatchSize);
        return Math.Ceiling(batches / spec.Schedule.GradientAccumulationSteps);
    }
}
