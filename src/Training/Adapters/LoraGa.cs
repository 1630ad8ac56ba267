using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Which singular vectors of the gradient A and B start at, of the leading 2r.</summary>
public enum LoraGaDirection
{
    /// <summary>A the first r, B the next r.</summary>
    AFirst,

    /// <summary>B the first r, A the next r.</summary>
    BFirst,

    /// <summary>B the first, third, …, A the second, fourth, ….</summary>
    Alternating,
}

/// <summary>LoRA that starts at the leading directions of the gradient of the loss by W, so that its first step is near a step of W itself.</summary>
/// <remarks>
/// Wang et al. 2024, arXiv:2407.05000, §3.2 and §3.3 and the authors' <c>lora_ga_init</c>: with ∇W = U·S·Vᵀ, A = (m^¼/√γ)·V_Aᵀ and B = (m^¼/√γ)·U_B
/// for m outputs. PEFT 0.20.0 multiplies B by the singular values of the gradient and leaves A at length one, which neither the paper nor its code does.
/// </remarks>
[Method(
    "LoRA-GA",
    "LoRA whose factors start at the leading singular vectors of the first gradient; the frozen weight gives up their product.",
    "LoRA's tasks when it should learn as fast as full fine-tuning: the first steps go where those of the whole weight would.",
    Paper = "Wang et al. 2024, LoRA-GA: Low-Rank Adaptation with Gradient Approximation",
    Arxiv = "2407.05000",
    Parameters = "r·(in + out) per layer")]
public sealed record LoraGaConfig : ResidualConfig
{
    [Description("Which of the gradient's leading 2r singular vectors the factors start at: a_first, b_first or alternating.")]
    public LoraGaDirection Direction { get; init; } = LoraGaDirection.AFirst;

    [Description("γ: the factors' rows and columns start at length m^¼/√γ for m outputs; larger starts with a smaller part of W."), Range(1e-3, 1e6)]
    public double StableGamma { get; init; } = 16;

    [Description("Training rows whose mean gradient is taken, at most."), Range(1, 100_000), TrainingOnly]
    public int CalibrationRows { get; init; } = 64;

    internal override bool LooksAtRows => true;

    internal override AdaptedLinear Wrap(LayerParts parts) => new LoraGaLinear(parts, Select(parts.Shape).Scale, Dropout, Direction, StableGamma);

    internal override IReadOnlyDictionary<string, Tensor> Measure(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration? calibration) =>
        Calibration.Of(calibration, this).MeanGradients(model, layers, CalibrationRows);

    /// <inheritdoc/>
    /// <remarks>A and B take other directions, 2r of them.</remarks>
    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers)
    {
        var small = layers.Select(Select).Where(layer => layer.Rank <= Directions(layer) && 2 * layer.Rank > Directions(layer)).MinBy(Directions);
        return small is null
            ? base.CheckLayers(layers)
            : base.CheckLayers(layers).Append(LayerChecks.Error(
                "rank",
                $"is {small.Rank} for layer '{small.Name}', and a gradient of {small.Out} x {small.In} has no {2 * small.Rank} directions; use at most {Directions(small) / 2}.",
                SpecErrorCodes.RankTooLarge));
    }

    private static long Directions(SelectedLinear layer) => Math.Min(layer.In, layer.Out);
}

internal sealed class LoraGaLinear(LayerParts parts, double scale, double dropout, LoraGaDirection direction, double gamma) : ResidualLinear(parts, scale, dropout)
{
    protected override (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start)
    {
        var rank = A.shape[0];
        var (left, _, right) = SingularVectors.Leading(start.Measured[Shape.Name], 2 * rank, start.Random);
        var (b, a) = direction switch
        {
            LoraGaDirection.AFirst => (left.narrow(1, rank, rank), right.narrow(0, 0, rank)),
            LoraGaDirection.BFirst => (left.narrow(1, 0, rank), right.narrow(0, rank, rank)),
            LoraGaDirection.Alternating => (left[.., TensorIndex.Slice(0, null, 2)], right[TensorIndex.Slice(1, null, 2)]),
        };
        var length = Math.Pow(Shape.Out, 0.25) / Math.Sqrt(gamma);
        return (b * length, a * length);
    }
}
