using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Orthogonal fine-tuning: the inputs of each layer are turned, block by block: W' = W·Rᵀ with R = diag(R₁, …, R_n).</summary>
/// <remarks>
/// Qiu et al. 2023, arXiv:2306.07280, §3; Qiu et al. 2025, arXiv:2506.19847 for turning inputs instead of weights; PEFT 0.20.0,
/// <c>tuners/oft</c>. R = (I − Q)·(I + Q)⁻¹ with Q skew-symmetric. Q starts at zero, so training starts at the base model.
/// </remarks>
[Method(
    "OFT",
    "Orthogonal fine-tuning: trained rotations of small blocks of each layer's inputs; lengths and angles among weights stay.",
    "Tasks that should keep what the base model knows: the weights turn and never grow.",
    Paper = "Qiu et al. 2023, Controlling Text-to-Image Diffusion by Orthogonal Finetuning",
    Arxiv = "2306.07280",
    Parameters = "in·(b − 1)/2 per layer with blocks of size b; b·(b − 1)/2 when they are shared")]
[PeftType("OFT")]
[PeftConstant("init_weights", "true")]
[PeftConstant("module_dropout", "0.0")]
[PeftConstant("r", "0")]
public sealed record OftConfig : LayerAdapterConfig
{
    /// <summary>Key of the numbers above the diagonals of Q, row by row, [n, b·(b−1)/2].</summary>
    internal const string Upper = "oft_R.weight";

    private const string Terms = "num_cayley_neumann_terms";

    [Description("Size b of the blocks; where it does not divide a layer's inputs, the nearest size that does is taken."), Range(2, 65_536), PeftName("oft_block_size")]
    public int BlockSize { get; init; } = 32;

    [Description("One block for all inputs of a layer, repeated."), PeftName("block_share")]
    public bool ShareBlocks { get; init; }

    [Description("Terms of a series in place of the inverse: no equations to solve, and only nearly orthogonal; null: exact."), Range(3, 64), PeftName(null)]
    public int? NeumannTerms { get; init; }

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer)
    {
        var size = BlockOf(layer.In, BlockSize);
        return [new(Upper, [ShareBlocks ? 1 : layer.In / size, size * (size - 1) / 2])];
    }

    internal override AdaptedLinear Wrap(LayerParts parts) => new OftLinear(parts, BlockOf(parts.Shape.In, BlockSize), NeumannTerms);

    /// <summary>The divisor of the inputs that is nearest to the size that was asked for, of two the smaller; PEFT's rule.</summary>
    internal static long BlockOf(long inputs, long wanted)
    {
        var above = Math.Min(wanted, inputs);
        while (inputs % above != 0)
        {
            above++;
        }

        var below = Math.Min(wanted, inputs);
        while (inputs % below != 0)
        {
            below--;
        }

        return wanted - below <= above - wanted ? below : above;
    }

    /// <inheritdoc/>
    internal override void ToPeft(JsonObject fields)
    {
        fields["bias"] = "none";
        fields["coft"] = false;
        fields["eps"] = 6e-5;
        fields["fan_in_fan_out"] = false;
        fields["use_cayley_neumann"] = NeumannTerms is not null;
        fields[Terms] = NeumannTerms ?? 5;
    }

    /// <inheritdoc/>
    internal override void FromPeft(JsonObject fields, JsonObject members)
    {
        // Before there was the series, there was no field.
        members["neumann_terms"] = fields["use_cayley_neumann"]?.GetValueKind() == JsonValueKind.True ? fields[Terms]?.DeepClone() ?? 5 : null;
        foreach (var read in (string[])["use_cayley_neumann", Terms, "eps"])
        {
            fields.Remove(read);
        }
    }
}

/// <summary>y = base(x·R); the rotation is float32, also over a bfloat16 model.</summary>
internal sealed class OftLinear : AdaptedLinear
{
    private readonly long _size;
    private readonly int? _terms;
    private readonly SkewMatrices _skew;

    public OftLinear(LayerParts parts, long size, int? terms)
        : base(parts) => (_size, _terms, _skew) = (size, terms, new SkewMatrices(size, Upper.device));

    private Parameter Upper => Own(OftConfig.Upper);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var weight = FrozenWeight();
        return (Turned(weight, Rotations().transpose(1, 2)) - weight).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        return BaseLayer.forward(Turned(x.to(ScalarType.Float32), Rotations()).to(x.dtype)).MoveToOuterDisposeScope();
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _skew.Dispose();
        }

        base.Dispose(disposing);
    }

    /// <summary>Each block of the last axis times its matrix.</summary>
    private Tensor Turned(Tensor rows, Tensor matrices) =>
        Orthogonal.Blocks(rows.reshape(-1, Shape.In), matrices.expand(Shape.In / _size, _size, _size)).view(rows.shape);

    /// <summary>[n, b, b], or one for all.</summary>
    private Tensor Rotations()
    {
        var skew = _skew.Of(Upper);
        return _terms is { } terms ? Orthogonal.Neumann(skew, terms) : Orthogonal.Cayley(skew);
    }
}
