using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Losses of direct preference optimisation.</summary>
public enum DpoLoss
{
    [Method(
        "Sigmoid", "-log σ(β·δ), the loss of the paper; with label_smoothing ε, (1-ε) times it and ε times that of the pair turned round (conservative DPO).",
        "The default.", Paper = "Rafailov et al. 2023, Direct Preference Optimization", Arxiv = "2305.18290")]
    Sigmoid,

    [Method("Hinge", "max(0, 1 - β·δ): pairs that are told apart by 1/β stop counting.", "Clean pairs.", Paper = "Zhao et al. 2023, SLiC-HF", Arxiv = "2305.10425")]
    Hinge,

    [Method(
        "IPO", "(δ - 1/(2β))² with log-ratios per token of the answer: pulls δ to a value instead of to infinity.", "Pairs on which all agree, which the sigmoid overfits.",
        Paper = "Azar et al. 2023, A General Theoretical Paradigm to Understand Learning from Human Preferences", Arxiv = "2310.12036")]
    Ipo,

    [Method(
        "Robust", "The sigmoid loss without bias where a share label_smoothing of the pairs is the wrong way round.", "Noisy pairs whose noise is known.",
        Paper = "Chowdhury et al. 2024, Provably Robust DPO", Arxiv = "2403.00409")]
    Robust,

    [Method("Sigmoid, normalised", "The sigmoid loss with log-ratios per token of the answer.", "Pairs whose chosen answers are longer for no good reason.")]
    SigmoidNorm,

    [Method(
        "SPPO, hard labels", "(Δ_c - 1/(2β))² + (Δ_r + 1/(2β))².", "Pairs that the model itself answered and a judge decided.",
        Paper = "Wu et al. 2024, Self-Play Preference Optimization", Arxiv = "2405.00675")]
    SppoHard,

    [Method(
        "APO zero", "1 - σ(β·Δ_c) + σ(β·Δ_r): the chosen answer becomes likelier and the rejected one less.", "Chosen answers that are better than the model's own.",
        Paper = "D'Oosterlinck et al. 2024, Anchored Preference Optimization", Arxiv = "2408.06266")]
    ApoZero,

    [Method(
        "APO down", "σ(β·Δ_c) + 1 - σ(β·δ): both become less likely, the rejected one more so.", "Chosen answers that are worse than the model's own.",
        Paper = "D'Oosterlinck et al. 2024, Anchored Preference Optimization", Arxiv = "2408.06266")]
    ApoDown,
}

/// <summary>Losses of pairs and verdicts, of the log-probabilities of answers. All tensors are float32; results are in the caller's dispose scope.</summary>
/// <remarks>As TRL computes them; -log σ(x) is softplus(-x).</remarks>
public static class PreferenceLosses
{
    /// <summary>Losses of direct preference optimisation, with δ = Δ_c - Δ_r.</summary>
    /// <param name="chosen">Δ_c, [N]: log π(y|x) - log π_ref(y|x) of the chosen answers, nats.</param>
    /// <param name="rejected">Δ_r, [N], of the rejected ones.</param>
    /// <param name="beta">β, [N] or a scalar.</param>
    /// <param name="labelSmoothing">ε, the share of pairs that are the wrong way round; read by sigmoid and robust.</param>
    /// <param name="chosenLengths">Tokens of the chosen answers, [N], by which the losses per token divide; null: 1.</param>
    /// <param name="rejectedLengths">Those of the rejected ones.</param>
    /// <returns>[N], nats where the loss is a logarithm.</returns>
    public static Tensor Dpo(
        DpoLoss loss, Tensor chosen, Tensor rejected, Tensor beta, double labelSmoothing = 0, Tensor? chosenLengths = null, Tensor? rejectedLengths = null)
    {
        using var scope = NewDisposeScope();
        var lead = beta * (chosen - rejected);
        Tensor PerToken() => (chosenLengths is null ? chosen : chosen / chosenLengths) - (rejectedLengths is null ? rejected : rejected / rejectedLengths);
        Tensor Half() => 0.5 / beta;
        var losses = loss switch
        {
            DpoLoss.Sigmoid when labelSmoothing == 0 => MinusLogSigmoid(lead),
            DpoLoss.Sigmoid => ((1 - labelSmoothing) * MinusLogSigmoid(lead)) + (labelSmoothing * MinusLogSigmoid(-lead)),
            DpoLoss.Hinge => nn.functional.relu(1 - lead),
            DpoLoss.Ipo => (PerToken() - Half()).square(),
            DpoLoss.Robust =>
                (((1 - labelSmoothing) * MinusLogSigmoid(lead)) - (labelSmoothing * MinusLogSigmoid(-lead))) / (1 - (2 * labelSmoothing)),
            DpoLoss.SigmoidNorm => MinusLogSigmoid(beta * PerToken()),
            DpoLoss.SppoHard => (chosen - Half()).square() + (rejected + Half()).square(),
            DpoLoss.ApoZero => 1 - sigmoid(beta * chosen) + sigmoid(beta * rejected),
            DpoLoss.ApoDown => sigmoid(beta * chosen) + 1 - sigmoid(lead),
        };
        return losses.MoveToOuterDisposeScope();
    }

    /// <summary>β(s) = β₀·(1 + w·(1 - e^(-k·s))), kept within β₀ and (1 + w)·β₀: pairs that differ more pull harder.</summary>
    /// <remarks>Zhang et al. 2025, MM-RLHF, arXiv:2502.10391, section 4.2.</remarks>
    /// <param name="margins">s, [N]: by how much each chosen answer is better.</param>
    /// <returns>[N].</returns>
    public static Tensor DynamicBeta(Tensor margins, double beta, double weight, double rate)
    {
        using var scope = NewDisposeScope();
        var share = (1 - (-rate * margins).exp()).clamp(0, 1);
        return (beta * (1 + (weight * share))).MoveToOuterDisposeScope();
    }

    /// <summary>1 - σ(β·(Δ - z)) of good answers and 1 - σ(β·(z - Δ)) of bad ones, each with its weight.</summary>
    /// <remarks>Ethayarajh et al. 2024, arXiv:2402.01306, equation 7.</remarks>
    /// <param name="ratios">Δ, [N]: log π(y|x) - log π_ref(y|x), nats.</param>
    /// <param name="desirable">[N], bool: which answers are good.</param>
    /// <param name="kl">z, a scalar without gradient: the reference point, how far the model is from the reference in general.</param>
    /// <returns>[N].</returns>
    public static Tensor Kto(Tensor ratios, Tensor desirable, Tensor kl, double beta, double desirableWeight, double undesirableWeight)
    {
        using var scope = NewDisposeScope();
        var lead = beta * (ratios - kl);
        return where(desirable, desirableWeight * (1 - sigmoid(lead)), undesirableWeight * (1 - sigmoid(-lead))).MoveToOuterDisposeScope();
    }

    /// <summary>z of <see cref="Kto"/>: the mean of log π - log π_ref over answers that have nothing to do with their prompts, and at least 0.</summary>
    /// <param name="policy">[M], nats.</param>
    /// <param name="reference">[M], nats.</param>
    /// <returns>A scalar without gradient; 0 of no answers.</returns>
    public static Tensor ReferencePoint(Tensor policy, Tensor reference)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        return policy.numel() == 0
            ? zeros([], dtype: ScalarType.Float32, device: policy.device).MoveToOuterDisposeScope()
            : (policy.detach() - reference).mean().clamp(min: 0).MoveToOuterDisposeScope();
    }

    /// <summary>-log σ(log(odds_c / odds_r)), with the odds P/(1 - P) of the geometric mean P of an answer's token probabilities.</summary>
    /// <remarks>Hong et al. 2024, arXiv:2403.07691, equation 7.</remarks>
    /// <param name="chosen">log P of the chosen answers, [N]: log-probabilities per token, nats.</param>
    /// <param name="rejected">Of the rejected ones.</param>
    /// <returns>[N], nats.</returns>
    public static Tensor OddsRatio(Tensor chosen, Tensor rejected)
    {
        using var scope = NewDisposeScope();
        return MinusLogSigmoid(chosen - rejected - (LogOfRest(chosen) - LogOfRest(rejected))).MoveToOuterDisposeScope();
    }

    /// <summary>-log σ(β·(log P_c - log P_r) - γ), with log-probabilities per token of the answer.</summary>
    /// <remarks>Meng et al. 2024, arXiv:2405.14734, equation 6.</remarks>
    /// <inheritdoc cref="OddsRatio"/>
    public static Tensor Simpo(Tensor chosen, Tensor rejected, double beta, double gamma)
    {
        using var scope = NewDisposeScope();
        return MinusLogSigmoid((beta * (chosen - rejected)) - gamma).MoveToOuterDisposeScope();
    }

    /// <summary>log(1 - e^x) of x below 0; where rounding made x 0, as of a number just below it.</summary>
    private static Tensor LogOfRest(Tensor x) => (-x.clamp(max: -1e-7).expm1()).log();

    private static Tensor MinusLogSigmoid(Tensor x) => nn.functional.softplus(-x);
}
