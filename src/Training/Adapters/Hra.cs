using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Householder reflection adaptation: W' = W·H₁·…·H_r with H_i = I − 2·u_i·u_iᵀ/‖u_i‖².</summary>
/// <remarks>
/// Yuan et al. 2024, arXiv:2405.17484, §3; PEFT 0.20.0, <c>tuners/hra</c>. Neighbouring reflections start equal and undo each other, so
/// training starts at the base model.
/// </remarks>
[Method(
    "HRA",
    "Householder reflection adaptation: a chain of trained reflections of each layer's inputs, orthogonal and of low rank at once.",
    "OFT's tasks with LoRA's numbers and files: the change of each matrix has rank r at most.",
    Paper = "Yuan et al. 2024, Bridging The Gap between Low-rank and Orthogonal Adaptation via Householder Reflection Adaptation",
    Arxiv = "2405.17484",
    Parameters = "r·in per layer")]
[PeftType("HRA")]
[PeftConstant("init_weights", "true")]
public sealed record HraConfig : LayerAdapterConfig, IValidatableObject
{
    /// <summary>Key of u, [in, r], a reflection to a column.</summary>
    internal const string Directions = "hra_u";

    [Description("Number r of reflections of each layer, even."), Range(2, 65_536), PeftName("r")]
    public int Rank { get; init; } = 8;

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) => [new(Directions, [layer.In, Rank])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new HraLinear(parts);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => RankChecks.Of(Rank, layers);

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (Rank % 2 != 0)
        {
            yield return new($"is {Rank}, and reflections start in pairs that undo each other; use an even number.", [nameof(Rank)]);
        }
    }

    /// <inheritdoc/>
    internal override void ToPeft(JsonObject fields)
    {
        fields["apply_GS"] = false;
        fields["bias"] = "none";
    }
}

/// <summary>y = base(x·(H₁·…·H_r)ᵀ); the reflections are float32, also over a bfloat16 model.</summary>
internal sealed class HraLinear(LayerParts parts) : AdaptedLinear(parts)
{
    private Parameter Directions => Own(HraConfig.Directions);

    /// <summary>ΔW = −(W·U·T)·Uᵀ: a product of thin matrices, though orthogonal.</summary>
    public override LowRankFactors? Factors
    {
        get
        {
            var (units, inner) = Compact();
            return new(FrozenWeight().mm(units).mm(inner).neg(), units.t(), 1);
        }
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var factors = Factors!;
        return factors.Left.mm(factors.Right).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start) =>
        Directions.copy_(LowRankConfig.Kaiming([Directions.shape[0], Directions.shape[1] / 2], start.Random).repeat_interleave(2, 1));

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var (units, inner) = Compact();
        var wide = x.to(ScalarType.Float32);
        return BaseLayer.forward((wide - wide.matmul(units).matmul(inner.t()).matmul(units.t())).to(x.dtype)).MoveToOuterDisposeScope();
    }

    /// <summary>H₁·…·H_r = I − U·T·Uᵀ with U the unit vectors and T the inverse of the upper triangle of UᵀU, its diagonal halved.</summary>
    /// <remarks>Joffrain et al. 2006, Accumulating Householder transformations, revisited, theorem 2.</remarks>
    /// <returns>U [in, r] and T [r, r], in the caller's dispose scope.</returns>
    private (Tensor Units, Tensor Inner) Compact()
    {
        using var scope = NewDisposeScope();
        var units = Directions / Directions.norm(0, true, 2);
        var one = eye(units.shape[1], device: units.device);
        var inner = linalg.solve(units.t().mm(units).triu(1) + 0.5 * one, one);
        return (units.MoveToOuterDisposeScope(), inner.MoveToOuterDisposeScope());
    }
}
