using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Numerics;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>LoRA over codes whose factors start at what the codes lose: W ≈ Q + s·B·A.</summary>
/// <remarks>
/// Li et al. 2023, arXiv:2310.08659, algorithm 1; PEFT 0.20.0, <c>utils/loftq_utils.py</c>. PEFT does not divide the factors by √s, so that with s ≠ 1 its
/// start is not near to W; here it is.
/// </remarks>
[Method(
    "LoftQ",
    "LoRA over quantised weights whose factors start at the largest part of the error that quantisation makes.",
    "QLoRA's tasks: it starts nearer to the base model in full precision, most of all with few bits.",
    Paper = "Li et al. 2023, LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models",
    Arxiv = "2310.08659",
    Parameters = "r·(in + out) per layer")]
public sealed record LoftqConfig : LowRankConfig
{
    public LoftqConfig() => Alpha = Rank;   // s = 1: the factors are parts of W as they are

    [Description("Passes in which codes are made without the factors' part, and factors of what the codes lose; the best are kept. 1: the codes are those of W."), Range(1, 100)]
    public int QuantizationIterations { get; init; } = 1;

    internal override QuantizationConfig? DefaultQuantization => new Nf4Config();

    internal override bool MakesQuantizedBase => QuantizationIterations > 1;

    internal override LayerAdapterConfig Published => Plain(MakesQuantizedBase ? 2 : 1);

    internal override AdaptedLinear Wrap(LayerParts parts) => MakesQuantizedBase
        ? new LoftqResidualLinear(parts, Select(parts.Shape).Scale, Dropout, QuantizationIterations)
        : new LoftqLinear(parts, Select(parts.Shape).Scale, Dropout);

    /// <summary>The factors of a matrix's best approximation of that rank, which share its singular values.</summary>
    /// <returns>[out, R] and [R, in], in the caller's dispose scope.</returns>
    internal static (Tensor Left, Tensor Right) Factors(Tensor matrix, long rank)
    {
        var (left, values, right) = SingularVectors.Largest(matrix, rank);
        var root = values.sqrt();
        return (left * root, root.unsqueeze(1) * right);
    }
}

/// <summary>One pass: the codes are the model's own.</summary>
internal sealed class LoftqLinear(LayerParts parts, double scale, double dropout) : LoraLinear(parts, scale, dropout)
{
    public override void Initialise(AdapterStart start)
    {
        using var scope = NewDisposeScope();
        var (left, right) = LoftqConfig.Factors(OriginalWeight() - FrozenWeight(), A.shape[0]);
        B.copy_(left.div(Math.Sqrt(Scale)));
        A.copy_(right.div(Math.Sqrt(Scale)));
    }
}

/// <summary>More passes: the codes are made without the part of the factors before the last, which are saved for it.</summary>
internal sealed class LoftqResidualLinear(LayerParts parts, double scale, double dropout, int passes) : ResidualLinear(parts, scale, dropout)
{
    protected override ResidualStart Begin(AdapterStart start)
    {
        var (left, right, removed, _) = QuantizedSplit.CodesFirst(
            OriginalWeight(), rest => QuantizedSplit.RoundTrip(Quantization!, rest, Shape.Name), matrix => LoftqConfig.Factors(matrix, A.shape[0]), passes);
        var (root, none) = (Math.Sqrt(Scale), (Left: zeros_like(B), Right: zeros_like(A)));
        var (removedLeft, removedRight) = removed ?? none;
        return new(left / root, right / root, removedLeft / root, removedRight / root);
    }

    protected override (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start) => LoftqConfig.Factors(weight, A.shape[0]);
}
