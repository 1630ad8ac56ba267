using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>How the block of a MiSS layer acts.</summary>
public enum MissVariant
{
    /// <summary>The inputs are summed in r strides, and the block maps the sums: ΔW[o, i] = D[i mod r, o].</summary>
    Balanced,

    /// <summary>Each r x r block of W is turned and shifted by the block of its outputs: ΔW = W·D + D.</summary>
    Affine,

    /// <summary>As balanced, with a block of few outputs that is repeated over all.</summary>
    Mini,
}

/// <summary>Matrix shard sharing, also called Bone and DiSHA: one small trained block that all shards of a weight share.</summary>
/// <remarks>Kang and Yin 2024, arXiv:2409.15371; PEFT 0.20.0, <c>tuners/miss/layer.py</c>. D starts at zero, so training starts at the base model.</remarks>
[Method(
    "MiSS",
    "One trained block beside each frozen weight, which all shards of the weight share (also known as Bone and DiSHA).",
    "LoRA's tasks with half of its numbers at equal rank; it has no scale to tune.",
    Paper = "Kang and Yin 2024, MiSS: Balancing LoRA Performance and Efficiency with Simple Shard Sharing",
    Arxiv = "2409.15371",
    Parameters = "r·out per layer; r·mini_rank for mini")]
[PeftType("MISS")]
public sealed record MissConfig : LayerAdapterConfig
{
    internal const string Block = "miss_block";

    [Description("Rows r of the block: inputs are summed in r strides (affine: size of the square blocks)."), Range(1, 65_536), PeftName("r")]
    public int Rank { get; init; } = 64;

    [Description("balanced, affine (W itself is turned: slower, needs r to divide inputs and outputs) or mini."), PeftName(null)]
    public MissVariant Variant { get; init; } = MissVariant.Balanced;

    [Description("Columns of the block of variant mini; it must divide the outputs of each layer."), Range(1, 65_536), PeftName("mini_r")]
    public int MiniRank { get; init; } = 1;

    [Description("Share of the inputs of the block that is dropped in training; not for variant affine."), Range(0, 0.99), PeftName("miss_dropout"), TrainingOnly]
    public double Dropout { get; init; }

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
    [
        new(Block, Variant switch
        {
            MissVariant.Balanced => [Rank, layer.Out],
            MissVariant.Affine => [layer.Out / Rank, Rank, Rank],
            MissVariant.Mini => [Rank, MiniRank],
        }),
    ];

    internal override AdaptedLinear Wrap(LayerParts parts) => Variant == MissVariant.Affine
        ? new AffineMissLinear(parts)
        : new MissLinear(parts, Dropout);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers)
    {
        IEnumerable<SpecError> Divides(string member, int number, Func<LinearShape, bool> holds, string what) => layers
            .Where(layer => !holds(layer))
            .Take(1)
            .Select(layer => LayerChecks.Error(
                member, $"is {number}, which does not divide the {what} of layer '{layer.Name}', whose weight is {layer.Out} x {layer.In}; choose a divisor.",
                SpecErrorCodes.Conflict));

        return Variant switch
        {
            MissVariant.Balanced => RankChecks.Of(Rank, layers),
            MissVariant.Affine => Divides("rank", Rank, layer => layer.Out % Rank == 0 && layer.In % Rank == 0, "inputs and outputs"),
            MissVariant.Mini => RankChecks.Of(Rank, layers).Concat(Divides("mini_rank", MiniRank, layer => layer.Out % MiniRank == 0, "outputs")),
        };
    }

    /// <inheritdoc/>
    /// <remarks>PEFT keeps the variant in <c>init_weights</c>.</remarks>
    internal override void ToPeft(JsonObject fields)
    {
        fields["bias"] = "none";
        fields["init_weights"] = Variant switch
        {
            MissVariant.Balanced => true,
            MissVariant.Affine => "bat",
            MissVariant.Mini => "mini",
        };
    }

    /// <inheritdoc/>
    internal override void FromPeft(JsonObject fields, JsonObject members)
    {
        var start = fields["init_weights"];
        fields.Remove("init_weights");
        members["variant"] = start?.GetValueKind() == JsonValueKind.String
            ? start.GetValue<string>() switch { "bat" => "affine", var name => name }
            : "balanced";
    }
}

/// <summary>y = base(x) + h·D with h the sums of x over strides of r: as a product of thin matrices, B = Dᵀ and a fixed A = [I I … I].</summary>
internal sealed class MissLinear(LayerParts parts, double dropout) : AdaptedLinear(parts)
{
    private Parameter Block => Own(MissConfig.Block);

    /// <summary>D for all outputs, [r, out].</summary>
    private Tensor Wide => Block.shape[1] == Shape.Out ? Block : Block.repeat(1, Shape.Out / Block.shape[1]);

    public override LowRankFactors? Factors
    {
        get
        {
            var rank = Block.shape[0];
            var repeated = eye(rank, device: Block.device).repeat(1, (Shape.In + rank - 1) / rank).narrow(1, 0, Shape.In);
            return new(Wide.t(), repeated, 1);
        }
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var rank = Block.shape[0];
        return Wide.t().repeat(1, (Shape.In + rank - 1) / rank).narrow(1, 0, Shape.In).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var rank = Block.shape[0];
        var input = training && dropout > 0 ? nn.functional.dropout(x, dropout) : x;
        var missing = (rank - Shape.In % rank) % rank;
        var padded = missing == 0 ? input : nn.functional.pad(input, [0, missing]);
        var sums = padded.view([.. x.shape[..^1], -1, rank]).sum(dim: -2);   // [.., r]
        return (BaseLayer.forward(x) + sums.matmul(Wide.to(x.dtype))).MoveToOuterDisposeScope();
    }
}

/// <summary>W' = W + W·D + D for each block of r outputs and r inputs, with one D for all blocks of the same outputs.</summary>
internal sealed class AffineMissLinear(LayerParts parts) : AdaptedLinear(parts)
{
    private Parameter Block => Own(MissConfig.Block);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var rank = Block.shape[1];
        var blocks = FrozenWeight().reshape(Shape.Out / rank, rank, Shape.In / rank, rank).permute(2, 0, 1, 3);   // [in/r, out/r, r, r]
        return (blocks.matmul(Block) + Block).permute(1, 2, 0, 3).reshape(Shape.Out, Shape.In).MoveToOuterDisposeScope();
    }
}
