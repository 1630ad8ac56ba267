namespace TrainingService.Training.Adapters;

/// <summary>Low-rank adaptation: y = W·x + (α/r)·B·A·x, with W frozen.</summary>
/// <remarks>Hu et al. 2021, arXiv:2106.09685, §4.1. B starts at zero, so training starts at the base model.</remarks>
[Method(
    "LoRA",
    "Low-rank adaptation: frozen weights plus a trained product of two thin matrices per layer.",
    "Most fine-tuning: a small fraction of the memory of full fine-tuning, files of megabytes, and one base model that serves many adapters.",
    Paper = "Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models",
    Arxiv = "2106.09685",
    Parameters = "r·(in + out) per layer")]
public sealed record LoraConfig : LowRankConfig
{
    internal override AdaptedLinear Wrap(LayerParts parts) => new LoraLinear(parts, Select(parts.Shape).Scale, Dropout);
}
