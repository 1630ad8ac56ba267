using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Each number of W is multiplied by one plus a low-rank update's: ΔW = W∘(B·A), whose rank is as high as W's.</summary>
/// <remarks>
/// Huang et al. 2025, HiRA, ICLR 2025; PEFT 0.20.0, <c>tuners/hira/layer.py</c>. HUT (Zhang et al. 2024, arXiv:2409.13501) multiplies W in the same
/// way; no code of it is known. B starts at zero, so training starts at the base model.
/// </remarks>
[Method(
    "HiRA",
    "Each frozen weight is multiplied number by number by one plus a trained low-rank matrix (Hadamard updated transformation, HUT).",
    "LoRA's tasks where an update of high rank learns more at LoRA's count of numbers. Use ten to forty times LoRA's learning rate.",
    Paper = "Huang et al. 2025, HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models; Zhang et al. 2024, HUT",
    Arxiv = "2409.13501",
    Parameters = "r·(in + out) per layer")]
[PeftType("HIRA")]
[PeftConstant("fan_in_fan_out", "false")]
[PeftConstant("init_weights", "true")]
[PeftConstant("rank_pattern", "{}")]
public sealed record HiraConfig : LayerAdapterConfig
{
    /// <summary>Key of A, [r, in]; without the ending of a module's weight, as PEFT writes it.</summary>
    internal const string A = "hira_A";

    /// <summary>Key of B, [out, r].</summary>
    internal const string B = "hira_B";

    [Description("Rank r of the matrix that multiplies the weight."), Range(1, 65_536), PeftName("r")]
    public int Rank { get; init; } = 32;

    [Description("Share of the inputs of the update that is dropped in training."), Range(0, 0.99), PeftName("hira_dropout"), TrainingOnly]
    public double Dropout { get; init; }

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
        [new(A, [Rank, layer.In]), new(B, [layer.Out, Rank], TensorRole.OutputFactor)];

    internal override AdaptedLinear Wrap(LayerParts parts) => new HiraLinear(parts, Dropout);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => RankChecks.Of(Rank, layers);

    /// <inheritdoc/>
    /// <remarks>How the factors started is of no matter to a saved adapter.</remarks>
    internal override void FromPeft(JsonObject fields, JsonObject members) => fields.Remove("init_weights");
}

internal sealed class HiraLinear(LayerParts parts, double dropout) : AdaptedLinear(parts)
{
    private Parameter A => Own(HiraConfig.A);

    private Parameter B => Own(HiraConfig.B);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return (FrozenWeight() * B.mm(A)).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start) => A.copy_(LowRankConfig.Kaiming(A.shape, start.Random));

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var input = training && dropout > 0 ? nn.functional.dropout(x, dropout) : x;
        return (BaseLayer.forward(x) + nn.functional.linear(input, Delta().to(x.dtype))).MoveToOuterDisposeScope();
    }
}
