using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>LoRA-XS in the span of the first step of full fine-tuning: ΔW* = −η·sign(∇W) ≈ U_r·S_r·V_rᵀ, B = U_r, R = diag(S_r), A = V_rᵀ.</summary>
/// <remarks>
/// Ponkshe et al. 2024, arXiv:2411.19557, §3; the authors' <c>utils/gradient_utils.py</c> and <c>train_arithmetic.py</c>. B and A are orthonormal, so the
/// gradient of R is Bᵀ·∇W·Aᵀ, the projection of the full one, and no scale is needed. Training starts at the base model plus that first step.
/// </remarks>
[Method(
    "LoRA-SB",
    "A trained r x r matrix between frozen bases of the first step that full fine-tuning would take.",
    "Adapters as small as LoRA-XS's that follow full fine-tuning more closely.",
    Paper = "Ponkshe et al. 2024, Initialization using Update Approximation is a Silver Bullet for Extremely Efficient Low-Rank Fine-Tuning",
    Arxiv = "2411.19557",
    Parameters = "r² per layer")]
public sealed record LoraSbConfig : CoreConfig
{
    [Description("Size η of the first step; the authors take the learning rate divided by the number of warm-up steps."), Range(1e-12, 1), TrainingOnly]
    public double StepSize { get; init; } = 1e-5;

    [Description("Training rows whose mean gradient is taken, at most."), Range(1, 100_000), TrainingOnly]
    public int CalibrationRows { get; init; } = 64;

    internal override string? RefusesQuantization =>
        "its start follows the gradient of the weights in full precision, and quantization holds those in codes; leave quantization out, or use adapter lora_xs.";

    internal override bool LooksAtRows => true;

    internal override AdaptedLinear Wrap(LayerParts parts) => new LoraSbLinear(parts, Dropout, StepSize);

    internal override IReadOnlyDictionary<string, Tensor> Measure(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration? calibration) =>
        Calibration.Of(calibration, this).MeanGradients(model, layers, CalibrationRows);
}

internal sealed class LoraSbLinear(LayerParts parts, double dropout, double stepSize) : CoreLinear(parts, scale: 1, dropout)
{
    public override void Initialise(AdapterStart start)
    {
        using var scope = NewDisposeScope();
        var step = start.Measured[Shape.Name].sign().mul(-stepSize);
        var (left, values, right) = SingularVectors.Leading(step, R.shape[0], start.Random);
        A.copy_(right);
        B.copy_(left);
        R.copy_(values.diag());
    }
}
