using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>What the random bases of RandLoRA are drawn from; all are scaled to a standard deviation of one.</summary>
public enum RandLoraBases
{
    /// <summary>Uniform numbers.</summary>
    Dense,

    /// <summary>-1, 0 and 1, of which a third is not 0.</summary>
    Sparse,

    /// <summary>As sparse, with one number in √d not 0, where d is the smaller side of the shared matrices.</summary>
    VerySparse,
}

/// <summary>Sums of as many scaled random products of rank r as make up full rank: ΔW = s·Q·P, with P scaled and Q as drawn.</summary>
/// <remarks>
/// <para>Albert et al. 2025, arXiv:2502.00987, eq. 4; PEFT 0.20.0, <c>tuners/randlora</c>. λ starts at zero, so training starts at the base model.</para>
/// <para>PEFT numbers the rows of P with the rank first and the columns of Q with the basis first, so what meets in the product is not the
/// pair that the paper writes, but another random pair. Adapters of PEFT mean that order, and it is kept.</para>
/// </remarks>
[Method(
    "RandLoRA",
    "An update of full rank from random matrices that all layers share, which trained diagonal matrices scale.",
    "Tasks for which LoRA's rank is the limit: full rank at LoRA's count of trained numbers, for more work in each step.",
    Paper = "Albert et al. 2025, RandLoRA: Full-rank parameter-efficient fine-tuning of large models",
    Arxiv = "2502.00987",
    Parameters = "⌈min(in, out)/r⌉·(r + min(in, out)) per layer")]
[PeftType("RANDLORA")]
[PeftConstant("bias", "\"none\"")]
[PeftConstant("fan_in_fan_out", "false")]
public sealed record RandLoraConfig : LayerAdapterConfig
{
    /// <summary>Key of the narrow bases, [r, 1, D]: D is the smaller of the most inputs and the most outputs.</summary>
    internal const string A = "base_model.randlora_A";

    /// <summary>Key of the wide bases, [larger of the two, ⌈D/r⌉, r].</summary>
    internal const string B = "base_model.randlora_B";

    /// <summary>Key of λ, [r, n] with n = ⌈min(in, out)/r⌉ bases.</summary>
    internal const string Lambda = "randlora_lambda";

    /// <summary>Key of γ, [n, min(in, out)].</summary>
    internal const string Gamma = "randlora_gamma";

    [Description("Rank r of each random basis. Fewer ranks need more bases: a smaller r trains more numbers."), Range(1, 65_536), PeftName("r")]
    public int Rank { get; init; } = 32;

    [Description("Scale α; the update is multiplied by α/r. 20 times the rank is usual."), Range(1e-3, 1e6), PeftName("randlora_alpha")]
    public double Alpha { get; init; } = 640;

    [Description("Share of the inputs of the update that is dropped in training."), Range(0, 0.99), PeftName("randlora_dropout"), TrainingOnly]
    public double Dropout { get; init; }

    [Description("dense (uniform numbers), sparse (a third of them -1 or 1, the others 0) or very_sparse (one in √d)."), PeftName(null), TrainingOnly]
    public RandLoraBases Bases { get; init; } = RandLoraBases.Dense;

    internal override bool PeftExcludes => false;

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer)
    {
        var small = Math.Min(layer.In, layer.Out);
        var count = CountOf(small);
        return [new(Lambda, [Rank, count]), new(Gamma, [count, small])];
    }

    internal override IReadOnlyList<LayerTensor> SharedBy(IReadOnlyList<LinearShape> layers)
    {
        var (inputs, outputs) = (layers.Max(layer => layer.In), layers.Max(layer => layer.Out));
        var small = Math.Min(inputs, outputs);
        return [new(A, [Rank, 1, small], Trains: false), new(B, [Math.Max(inputs, outputs), CountOf(small), Rank], Trains: false)];
    }

    internal override AdaptedLinear Wrap(LayerParts parts) => new RandLoraLinear(parts, Alpha / Rank, Dropout);

    internal override void InitialiseShared(IReadOnlyDictionary<string, Tensor> shared, AdapterStart start)
    {
        var parts = Bases switch   // one number in this many is -1 or 1
        {
            RandLoraBases.Dense => (double?)null,
            RandLoraBases.Sparse => 3,
            RandLoraBases.VerySparse => Math.Sqrt(shared[A].shape[2]),
        };
        foreach (var tensor in (Tensor[])[shared[A], shared[B]])
        {
            var drawn = rand(tensor.shape, dtype: ScalarType.Float32, device: CPU, generator: start.Random);
            var values = parts is { } each
                ? drawn.gt(1 - 1 / (2 * each)).to_type(ScalarType.Float32) - drawn.lt(1 / (2 * each)).to_type(ScalarType.Float32)
                : drawn * 2 - 1;
            tensor.copy_(values / values.std());
        }
    }

    internal override void ToPeft(JsonObject fields)
    {
        SharedProjections.ToPeft(fields);
        fields["sparse"] = Bases == RandLoraBases.Sparse;
        fields["very_sparse"] = Bases == RandLoraBases.VerySparse;
    }

    internal override void FromPeft(JsonObject fields, JsonObject members)
    {
        SharedProjections.FromPeft(fields);
        members["bases"] = IsOn(fields, "very_sparse") ? "very_sparse" : IsOn(fields, "sparse") ? "sparse" : "dense";
        fields.Remove("sparse");
        fields.Remove("very_sparse");
    }

    private static bool IsOn(JsonObject fields, string name) => fields[name]?.GetValue<bool>() ?? false;

    private long CountOf(long small) => (small + Rank - 1) / Rank;
}

/// <summary>y = base(x) + s·(dropout(x)·Pᵀ)·Qᵀ; where there are fewer outputs than inputs, the scaled bases are those of the outputs.</summary>
internal sealed class RandLoraLinear(LayerParts parts, double scale, double dropout) : AdaptedLinear(parts)
{
    private Parameter Lambda => Own(RandLoraConfig.Lambda);

    private Parameter Gamma => Own(RandLoraConfig.Gamma);

    public override void Initialise(AdapterStart start) => Gamma.fill_(1.0 / Gamma.shape.Max());

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var (down, up) = Bases();
        return up.mm(down).mul(scale).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var (down, up) = Bases();
        var input = training && dropout > 0 ? nn.functional.dropout(x, dropout) : x;
        var middle = nn.functional.linear(input, down.to(x.dtype));   // [.., r·n]
        return (BaseLayer.forward(x) + nn.functional.linear(middle, up.to(x.dtype)) * scale).MoveToOuterDisposeScope();
    }

    /// <returns>[r·n, in] and [out, r·n], in the caller's dispose scope.</returns>
    private (Tensor Down, Tensor Up) Bases()
    {
        var (small, large) = (Math.Min(Shape.In, Shape.Out), Math.Max(Shape.In, Shape.Out));
        var narrow = Shared(RandLoraConfig.A).narrow(2, 0, small);                                           // [r, 1, small]
        var scaled = ScaledBases.Of(narrow, Lambda, Gamma).flatten(0, 1);                                    // row rank·n + basis
        var wide = Shared(RandLoraConfig.B).narrow(0, 0, large).narrow(1, 0, Gamma.shape[0]).flatten(1, 2);  // column basis·r + rank
        return Shape.In <= Shape.Out ? (scaled, wide) : (wide.t(), scaled.t());
    }
}

/// <summary>λ[k, b]·A[k, j]·γ[b, j] as one node of the graph, which keeps its arguments alone: what lies between has the size of W.</summary>
internal sealed class ScaledBases : autograd.SingleTensorFunction<ScaledBases>
{
    private const string Call = "call";

    public override string Name => nameof(ScaledBases);

    /// <param name="bases">A, [r, 1, J]; gets no gradient.</param>
    /// <param name="lambda">[r, n].</param>
    /// <param name="gamma">[n, J].</param>
    /// <returns>[r, n, J], in the caller's dispose scope.</returns>
    public static Tensor Of(Tensor bases, Tensor lambda, Tensor gamma)
    {
        using var scope = NewDisposeScope();
        return apply(bases, lambda, gamma).MoveToOuterDisposeScope();
    }

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        using var scope = NewDisposeScope();
        var (bases, lambda, gamma) = ((Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2]);
        ctx.save_for_backward([bases, lambda, gamma]);
        ctx.save_data(Call, BackwardPass.OfThisThread);
        ctx.set_materialize_grads(false);
        return (lambda.unsqueeze(2) * bases).mul_(gamma).MoveToOuterDisposeScope();
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var pass = (BackwardPass)ctx.get_data(Call);
        return pass.Compute([grad_output], count: 3, () =>
        {
            var saved = ctx.get_saved_variables();
            var (bases, lambda, gamma) = (saved[0], saved[1], saved[2]);
            var gradient = grad_output * bases;
            var ofLambda = (gradient * gamma).sum(dim: 2);
            return [null, ofLambda, gradient.mul_(lambda.unsqueeze(2)).sum(dim: 0)];
        });
    }
}
