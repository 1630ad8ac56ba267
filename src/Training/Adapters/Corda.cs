using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Which part of W the factors of CorDA take.</summary>
public enum CordaMode
{
    /// <summary>The part that matters most for the rows: they are of the task to learn (PEFT's <c>ipm</c>).</summary>
    InstructionPreviewed,

    /// <summary>The part that matters least for the rows: they hold what to keep (PEFT's <c>kpm</c>).</summary>
    KnowledgePreserved,
}

/// <summary>What each row's inputs are divided by before they are correlated.</summary>
public enum CordaInputScale
{
    /// <summary>The size of the largest number, as the authors and PEFT do: negative numbers do not count.</summary>
    Largest,

    /// <summary>The largest size of any number.</summary>
    LargestMagnitude,
}

/// <summary>LoRA that starts at a part of W chosen by the inputs that W sees: W·C = U·S·Vᵀ with C their covariance, and W = U·S·(VᵀC⁻¹).</summary>
/// <remarks>Yang et al. 2024, arXiv:2406.05223, §3.2 to §3.4; PEFT 0.20.0, <c>tuners/lora/corda.py</c>.</remarks>
[Method(
    "CorDA",
    "LoRA whose factors start as the part of the frozen weight that matters most, or least, for the inputs of chosen rows.",
    "LoRA's tasks with a start that fits the task (instruction_previewed), or that leaves alone what the rows show (knowledge_preserved).",
    Paper = "Yang et al. 2024, CorDA: Context-Oriented Decomposition Adaptation of Large Language Models for Task-Aware Parameter-Efficient Fine-tuning",
    Arxiv = "2406.05223",
    Parameters = "r·(in + out) per layer")]
public sealed record CordaConfig : ResidualConfig
{
    [Description("instruction_previewed: train what matters most for the rows; knowledge_preserved: train what matters least for them.")]
    public CordaMode Mode { get; init; } = CordaMode.InstructionPreviewed;

    [Description("Training rows whose inputs are looked at, at most."), Range(1, 100_000), TrainingOnly]
    public int CalibrationRows { get; init; } = 256;

    [Description("Added to the covariance's diagonal, as a share of its mean; doubled until the inverse is good."), Range(1e-6, 1), TrainingOnly]
    public double Damping { get; init; } = 0.01;

    [Description("What a row's inputs are divided by: largest (the largest number, as PEFT does) or largest_magnitude."), TrainingOnly]
    public CordaInputScale InputScale { get; init; } = CordaInputScale.Largest;

    internal override bool LooksAtRows => true;

    internal override AdaptedLinear Wrap(LayerParts parts) => new CordaLinear(parts, Select(parts.Shape).Scale, Dropout, Mode, Damping);

    /// <inheritdoc/>
    /// <returns>The covariance of each layer's inputs, [in, in], float32; layers that read one tensor have one in common.</returns>
    internal override IReadOnlyDictionary<string, Tensor> Measure(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration? calibration)
    {
        using var scope = NewDisposeScope();
        var sums = new Dictionary<string, Tensor>();
        var names = layers.Select(layer => layer.Name).ToHashSet();
        var (rows, sources) = Calibration.Of(calibration, this).DistinctInputs(model, names, CalibrationRows, (name, input) =>
        {
            var product = Corda.Covariance(input, InputScale);
            if (sums.TryGetValue(name, out var sum))
            {
                sum.add_(product);
            }
            else
            {
                sums.Add(name, product.MoveToOtherDisposeScope(scope));
            }
        });
        foreach (var sum in sums.Values)
        {
            sum.div_(rows).MoveToOuterDisposeScope();
        }

        return sources.ToDictionary(source => source.Key, source => sums[source.Value]);
    }
}

/// <summary>CorDA's decomposition.</summary>
internal static class Corda
{
    // PEFT's bound for ‖C·C⁻¹ − I‖, and a number of doublings after which C is nothing but its diagonal.
    private const double LargestInverseError = 0.05;
    private const int MostDoublings = 40;

    /// <summary>XᵀX of one row's inputs.</summary>
    /// <param name="inputs">[N, in].</param>
    /// <returns>[in, in], float32, in the caller's dispose scope.</returns>
    public static Tensor Covariance(Tensor inputs, CordaInputScale inputScale)
    {
        using var scope = NewDisposeScope();
        var wide = inputs.to_type(ScalarType.Float32);
        var largest = inputScale == CordaInputScale.Largest ? wide.max().abs() : wide.abs().max();
        var scaled = wide / largest;
        return scaled.t().mm(scaled).MoveToOuterDisposeScope();
    }

    /// <summary>C + d·mean(diag C)·I with its inverse; d is doubled until the product of the two is the identity up to an error of 0.05.</summary>
    /// <param name="covariance">[in, in].</param>
    /// <returns>In the caller's dispose scope.</returns>
    /// <exception cref="TrainingException">The covariance holds a number that is not finite, or zeros alone.</exception>
    public static (Tensor Damped, Tensor Inverse) Damp(Tensor covariance, double damping)
    {
        using var scope = NewDisposeScope();
        var wide = SingularVectors.Widened(covariance);
        var mean = wide.diagonal().mean();
        if (!wide.isfinite().all().item<bool>() || mean.item<double>() <= 0)
        {
            throw TrainingException.InvalidData("A layer's inputs are all zero, or not finite, so that they have no covariance; use adapter pissa.", "adapter.type");
        }

        var identity = eye(wide.shape[0], dtype: wide.dtype, device: wide.device);
        for (var doublings = 0; doublings < MostDoublings; doublings++)
        {
            var damped = wide + identity * mean * (damping * Math.Pow(2, doublings));
            var inverse = linalg.inv(damped);
            if ((damped.mm(inverse) - identity).norm().to_type(ScalarType.Float64).item<double>() < LargestInverseError)
            {
                return (damped.MoveToOuterDisposeScope(), inverse.MoveToOuterDisposeScope());
            }
        }

        throw TrainingException.InvalidData("The covariance of a layer's inputs cannot be inverted; raise adapter.damping, or use adapter pissa.", "adapter.damping");
    }

    /// <summary>W = left·diag(values)·right, in the order of what matters for inputs of this covariance.</summary>
    /// <param name="weight">[out, in].</param>
    /// <returns>[out, k], [k] descending and [k, in] with k the shorter side of W, in the caller's dispose scope.</returns>
    public static (Tensor Left, Tensor Values, Tensor Right) Split(Tensor weight, Tensor covariance, Tensor inverse)
    {
        using var scope = NewDisposeScope();
        var (left, values, right) = linalg.svd(weight.to_type(covariance.dtype).mm(covariance), fullMatrices: false);
        return (left.MoveToOuterDisposeScope(), values.MoveToOuterDisposeScope(), right.mm(inverse).MoveToOuterDisposeScope());
    }
}

internal sealed class CordaLinear(LayerParts parts, double scale, double dropout, CordaMode mode, double damping) : ResidualLinear(parts, scale, dropout)
{
    protected override (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start)
    {
        var (covariance, inverse) = Corda.Damp(start.Measured[Shape.Name], damping);
        var (left, values, right) = Corda.Split(weight, covariance, inverse);
        var rank = A.shape[0];
        var first = mode == CordaMode.InstructionPreviewed ? 0 : values.shape[0] - rank;
        var root = values.narrow(0, first, rank).div(Scale).sqrt();
        return (left.narrow(1, first, rank) * root, root.unsqueeze(1) * right.narrow(0, first, rank));
    }
}
