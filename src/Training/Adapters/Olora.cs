using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>LoRA that starts at an orthonormal basis of W's columns: W = Q·R, B = Q_r, A = R_r, and the frozen weight keeps the rest.</summary>
/// <remarks>Büyükakyüz 2024, arXiv:2406.01775, §3; PEFT 0.20.0, <c>tuners/lora/layer.py</c>, <c>olora_init</c>. B and A are not divided by the scale.</remarks>
[Method(
    "OLoRA",
    "LoRA whose factors start as the first columns and rows of a QR decomposition of the frozen weight, which keeps the remainder.",
    "LoRA's tasks when it should learn faster at equal rank; starts in seconds where PiSSA's exact decomposition takes minutes.",
    Paper = "Büyükakyüz 2024, OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models",
    Arxiv = "2406.01775",
    Parameters = "r·(in + out) per layer")]
public sealed record OloraConfig : ResidualConfig
{
    internal override AdaptedLinear Wrap(LayerParts parts) => new OloraLinear(parts, Select(parts.Shape).Scale, Dropout);
}

internal sealed class OloraLinear(LayerParts parts, double scale, double dropout) : ResidualLinear(parts, scale, dropout)
{
    protected override (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start)
    {
        var rank = A.shape[0];
        var (q, r) = linalg.qr(SingularVectors.Widened(weight));
        return (q.narrow(1, 0, rank), r.narrow(0, 0, rank));
    }
}
