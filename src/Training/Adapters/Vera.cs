using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Vector-based random matrix adaptation: ΔW = diag(b)·B·diag(d)·A, with random B and A that all layers share.</summary>
/// <remarks>
/// Kopiczko et al. 2024, arXiv:2310.11454, eq. 2; PEFT 0.20.0, <c>tuners/vera</c>. b starts at zero, so training starts at the base model. A
/// layer takes the first columns of A and the first rows of B.
/// </remarks>
[Method(
    "VeRA",
    "Two trained vectors per layer, which scale the rows of random matrices that all layers share.",
    "Many small adapters of one base: a layer trains one number per output and one per rank, which may be high.",
    Paper = "Kopiczko et al. 2024, VeRA: Vector-based Random Matrix Adaptation",
    Arxiv = "2310.11454",
    Parameters = "out + r per layer")]
[PeftType("VERA")]
[PeftConstant("bias", "\"none\"")]
[PeftConstant("fan_in_fan_out", "false")]
public sealed record VeraConfig : LayerAdapterConfig
{
    /// <summary>Key of A, [R, most inputs].</summary>
    internal const string A = "base_model.vera_A";

    /// <summary>Key of B, [most outputs, R].</summary>
    internal const string B = "base_model.vera_B";

    /// <summary>Key of b, [out].</summary>
    internal const string OutputScale = "vera_lambda_b";

    /// <summary>Key of d, [R].</summary>
    internal const string RankScale = "vera_lambda_d";

    [Description("Rank r of the shared matrices; far above LoRA's, as a layer trains only one number for each."), Range(1, 65_536), PeftName("r")]
    public int Rank { get; init; } = 256;

    [Description("First value of the numbers d that scale the ranks; 0.1 or less is the paper's advice."), Range(1e-7, 1e3), TrainingOnly]
    public double DInitial { get; init; } = 0.1;

    [Description("Share of the inputs of A that is dropped in training."), Range(0, 0.99), PeftName("vera_dropout"), TrainingOnly]
    public double Dropout { get; init; }

    internal override bool PeftExcludes => false;

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
        [new(OutputScale, [layer.Out], TensorRole.OutputFactor), new(RankScale, [Rank])];

    internal override IReadOnlyList<LayerTensor> SharedBy(IReadOnlyList<LinearShape> layers) =>
    [
        new(A, [Rank, layers.Max(layer => layer.In)], Trains: false),
        new(B, [layers.Max(layer => layer.Out), Rank], Trains: false),
    ];

    internal override AdaptedLinear Wrap(LayerParts parts) => new VeraLinear(parts, DInitial, Dropout);

    /// <inheritdoc/>
    /// <remarks>He's uniform initialisation: U(-√(6/columns), √(6/columns)).</remarks>
    internal override void InitialiseShared(IReadOnlyDictionary<string, Tensor> shared, AdapterStart start)
    {
        foreach (var name in (string[])[A, B])
        {
            shared[name].copy_(LowRankConfig.Kaiming(shared[name].shape, start.Random).mul(Math.Sqrt(6)));
        }
    }

    internal override void ToPeft(JsonObject fields) => SharedProjections.ToPeft(fields);

    internal override void FromPeft(JsonObject fields, JsonObject members) => SharedProjections.FromPeft(fields);
}

/// <summary>y = base(x) + b ⊙ ((d ⊙ (dropout(x)·Aᵀ))·Bᵀ).</summary>
internal sealed class VeraLinear(LayerParts parts, double dInitial, double dropout) : AdaptedLinear(parts)
{
    private Parameter OutputScale => Own(VeraConfig.OutputScale);

    private Parameter RankScale => Own(VeraConfig.RankScale);

    /// <summary>[R, in].</summary>
    private Tensor Down => Shared(VeraConfig.A).narrow(1, 0, Shape.In);

    /// <summary>[out, R].</summary>
    private Tensor Up => Shared(VeraConfig.B).narrow(0, 0, Shape.Out);

    public override LowRankFactors? Factors => RankScale.shape[0] < Math.Min(Shape.In, Shape.Out)
        ? new(OutputScale.unsqueeze(1) * Up, RankScale.unsqueeze(1) * Down, 1)
        : null;

    public override void Initialise(AdapterStart start) => RankScale.fill_(dInitial);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return (OutputScale.unsqueeze(1) * Up).mm(RankScale.unsqueeze(1) * Down).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var input = training && dropout > 0 ? nn.functional.dropout(x, dropout) : x;
        var thin = nn.functional.linear(input, Down.to(x.dtype)) * RankScale.to(x.dtype);   // [.., R]
        return (BaseLayer.forward(x) + nn.functional.linear(thin, Up.to(x.dtype)) * OutputScale.to(x.dtype)).MoveToOuterDisposeScope();
    }
}
