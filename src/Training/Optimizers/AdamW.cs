using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Adam with decoupled weight decay.</summary>
/// <remarks>Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2. The decay applies to every tensor that trains, as in PyTorch.</remarks>
[Method(
    "AdamW",
    "Adam with weight decay that is decoupled from the gradient.",
    "The default: robust to the scale of gradients; keeps two numbers of state per trained weight, in 8 bytes or, on request, in 2.",
    Paper = "Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization",
    Arxiv = "1711.05101")]
public sealed record AdamWConfig : OptimizerConfig, IValidatableObject
{
    [Description("Decay of the first and of the second moment, each from 0 up to, not including, 1."), Length(2, 2), ItemRange(0, 1, MaximumIsExclusive = true)]
    public IReadOnlyList<double> Betas { get; init; } = [0.9, 0.999];

    [Description("Added to the root of the second moment."), Range(1e-16, 1)]
    public double Eps { get; init; } = 1e-8;

    [Description("Bits of each number of state: 32, or 8 for a quarter of the memory (arXiv:2110.02861). Tensors with fewer than 4096 numbers, and embeddings, keep 32."), Range(8, 32)]
    public int StateBits { get; init; } = 32;

    public override long StateBytes(IReadOnlyList<FlatGroup> groups) => groups.Sum(group => IsQuantized(group, StateBits)
        ? 2 * (group.Length + group.Length / FlatLayout.Block * sizeof(float))
        : 2 * group.Length * sizeof(float));

    public override Optimizer Create(FlatParameters parameters) =>
        new AdamW(parameters, Betas[0], Betas[1], Eps, WeightDecay, StateBits, LoraPlusRatio);

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (StateBits is not (8 or 32))
        {
            yield return new($"is {StateBits}; use 32 or 8.", [nameof(StateBits)]);
        }
    }

    /// <summary>Whether the moments of a group are bytes.</summary>
    /// <remarks>
    /// The rule of bitsandbytes (<c>min_8bit_size</c>, per tensor) and of Hugging Face's trainer, which leaves embeddings out: most of their rows
    /// have no gradient in a step, and a second moment that rounds to zero beside a first one that does not would give a huge update.
    /// </remarks>
    internal static bool IsQuantized(FlatGroup group, int stateBits) => stateBits == 8 && group.IsBlocked && group.Role != TensorRole.Embedding;
}

/// <summary>PyTorch's AdamW update over the flat buffer.</summary>
public sealed class AdamW : Optimizer
{
    private readonly AdamWSettings _settings;
    private readonly double _weightDecay;
    private readonly (IMoments First, IMoments Second)[] _moments;

    public AdamW(
        FlatParameters parameters, double beta1, double beta2, double eps, double weightDecay, int stateBits = 32, double? loraPlusRatio = null)
        : base(parameters, loraPlusRatio, group => AdamWConfig.IsQuantized(group, stateBits))
    {
        _settings = new(beta1, beta2, eps);
        _weightDecay = weightDecay;
        _moments = [.. Stretches.Select(stretch => AdamWConfig.IsQuantized(stretch.Groups[0], stateBits)
            ? ((IMoments)new ByteMoments(this, "exp_avg", stretch, signed: true), (IMoments)new ByteMoments(this, "exp_avg_sq", stretch, signed: false))
            : (new FloatMoments(this, "exp_avg", stretch), new FloatMoments(this, "exp_avg_sq", stretch)))];
    }

    internal override void Update(Stretch stretch, double learningRate)
    {
        var (first, second) = _moments[stretch.Index];
        var decay = stretch.Decays ? _weightDecay : 0;
        stretch.ForEachChunk(chunk =>
        {
            var (m, v) = (first.Read(chunk), second.Read(chunk));
            Update(chunk.Values, chunk.Gradients, m, v, Steps, learningRate, _settings, decay);
            first.Write(chunk, m);
            second.Write(chunk, v);
        });
    }

    /// <summary>
    /// w ← w·(1 - η·λ); m ← β₁·m + (1-β₁)·g; v ← β₂·v + (1-β₂)·g²; w ← w - η/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε), in place and in the caller's
    /// dispose scope.
    /// </summary>
    /// <param name="values">Float32, [N], as are the gradients and both moments.</param>
    /// <param name="step">t, one-based.</param>
    internal static void Update(
        Tensor values, Tensor gradients, Tensor firstMoments, Tensor secondMoments, int step, double learningRate, AdamWSettings settings, double weightDecay)
    {
        if (weightDecay != 0)
        {
            values.mul_(1 - learningRate * weightDecay);
        }

        firstMoments.lerp_(gradients, 1 - settings.Beta1);
        secondMoments.mul_(settings.Beta2).addcmul_(gradients, gradients, 1 - settings.Beta2);

        // The corrections go into the numbers around the quotient, which saves a pass over the memory.
        var correction = Math.Sqrt(1 - Math.Pow(settings.Beta2, step));
        var root = secondMoments.sqrt().add_(settings.Eps * correction);
        values.addcdiv_(firstMoments, root, -learningRate * correction / (1 - Math.Pow(settings.Beta1, step)));
    }
}

/// <summary>What AdamW is told apart from rate and decay.</summary>
internal readonly record struct AdamWSettings(double Beta1, double Beta2, double Eps);
