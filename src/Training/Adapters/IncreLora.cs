using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TorchSharp.Modules;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Incremental low-rank adaptation: every layer starts with little rank, and the layers that matter most get more while it trains.</summary>
/// <remarks>Zhang et al. 2023, arXiv:2308.12043; the authors' <c>loralib/increlora.py</c>. E starts at zero, and at 10⁻⁵ in the reserve.</remarks>
[Method(
    "IncreLoRA",
    "AdaLoRA the other way round: ranks are added where the loss asks for them, until a budget over all layers is spent.",
    "A tight budget over layers of unequal importance; no layer is bound by the rank that it started with.",
    Paper = "Zhang et al. 2023, IncreLoRA: Incremental Parameter Allocation Method for Parameter-Efficient Fine-tuning",
    Arxiv = "2308.12043",
    Parameters = "max_rank·(in + out + 1) per layer held, target_rank·(in + out + 1) on average in use")]
public sealed record IncreLoraConfig : LayerAdapterConfig, IValidatableObject
{
    /// <summary>Key of the pair of ranks in use and in reserve, [2]: the first rows of A, E and B belong to them, and the others wait.</summary>
    internal const string Ranks = "lora_ranks";

    [Description("Rank of every layer at the start."), Range(1, 65_536)]
    public int InitialRank { get; init; } = 1;

    [Description("Average rank of the layers at the end; the budget is this times the number of layers."), Range(1, 65_536)]
    public int TargetRank { get; init; } = 8;

    [Description("Largest rank that a layer can get; its tensors have room for it from the start."), Range(1, 65_536)]
    public int MaxRank { get; init; } = 16;

    [Description("Scale α; the update is multiplied by α over the layer's rank at the time."), Range(1e-3, 1e6)]
    public double Alpha { get; init; } = 32;

    [Description("Share of the inputs that is dropped in training."), Range(0, 0.99), TrainingOnly]
    public double Dropout { get; init; }

    [Description("Optimizer steps at the start without growth."), Range(0, int.MaxValue), TrainingOnly]
    public int WarmupSteps { get; init; }

    [Description("Optimizer steps from one growth to the next; null: so that the first two thirds of the run are used."), Range(1, int.MaxValue), TrainingOnly]
    public int? Interval { get; init; }

    [Description("Layers that grow at a time; more, where the budget would not be reached otherwise."), Range(1, 65_536), TrainingOnly]
    public int TopLayers { get; init; } = 10;

    [Description("Ranks that a layer gets at a time, and has in reserve; null: half of target_rank."), Range(1, 65_536)]
    public int? Increment { get; init; }

    [Description("Decay of the average of importance."), Range(0.001, 0.999), TrainingOnly]
    public double Beta1 { get; init; } = 0.85;

    [Description("Decay of the average of its uncertainty."), Range(0.001, 0.999), TrainingOnly]
    public double Beta2 { get; init; } = 0.85;

    [Description("Weight of the term of the loss that keeps the rows of A and the columns of B at length one."), Range(0, 1000), TrainingOnly]
    public double Orthogonality { get; init; } = 0.1;

    /// <summary>Ranks that a layer gets at a time.</summary>
    internal int Added => Increment ?? Math.Max(1, TargetRank / 2);

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
    [
        new(AdaLoraConfig.A, [MaxRank, layer.In]),
        new(AdaLoraConfig.E, [MaxRank, 1]),
        new(AdaLoraConfig.B, [layer.Out, MaxRank]),
        new(Ranks, [2], Trains: false),
    ];

    internal override AdaptedLinear Wrap(LayerParts parts) => new IncreLoraLinear(parts, this);

    internal override LayerAdapter Build(CausalLm model, LayerPlan plan) => new IncreLoraAdapter(model, this, plan);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => RankChecks.Of(MaxRank, layers, "max_rank");

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (TargetRank < InitialRank)
        {
            yield return new($"is {TargetRank}, below the initial_rank of {InitialRank}; ranks only grow, so choose a larger one.", [nameof(TargetRank)]);
        }

        if (MaxRank < TargetRank)
        {
            yield return new($"is {MaxRank}, below the target_rank of {TargetRank}, so there would be no room for it; choose a larger one.", [nameof(MaxRank)]);
        }
    }
}

/// <summary>y = base(x) + s·((dropout(x)·(E∘A)ᵀ)·Bᵀ) over the ranks in use and in reserve.</summary>
internal sealed class IncreLoraLinear(LayerParts parts, IncreLoraConfig config) : AdaptedLinear(parts)
{
    /// <summary>E of the reserve: it hardly changes the output, and its rows of A and B already learn.</summary>
    internal const double ReserveValue = 1e-5;

    private readonly GradientSink _watched = new();
    private int _used;
    private int _reserve;

    /// <summary>Ranks in use.</summary>
    public int Rank => _used;

    private int Live => _used + _reserve;

    private double Scale => AdaLoraLinear.ScaleOf(config.Alpha, _used);

    private Parameter A => Own(AdaLoraConfig.A);

    private Parameter E => Own(AdaLoraConfig.E);

    private Parameter B => Own(AdaLoraConfig.B);

    public override LowRankFactors? Factors => new(B.narrow(1, 0, Live), Right(), Scale);

    /// <summary>Sum of the gradients of ΔW since the last call, [out, in], float32; null when nobody watches.</summary>
    public Tensor? Gradient => _watched.Sum;

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return B.narrow(1, 0, Live).mm(Right()).mul(Scale).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start)
    {
        foreach (var factor in (Parameter[])[A, B])
        {
            factor.copy_(randn(factor.shape, dtype: ScalarType.Float32, device: CPU, generator: start.Random).mul(0.02));
        }

        Set(config.InitialRank, grows: config.InitialRank < config.TargetRank);
    }

    public override void Settle()
    {
        using var scope = NewDisposeScope();
        var ranks = Own(IncreLoraConfig.Ranks).cpu().data<float>();
        (_used, _reserve) = ((int)ranks[0], (int)ranks[1]);
    }

    /// <summary>Takes ranks out of the reserve into use, and fills the reserve up, or empties it for good.</summary>
    public void Set(int ranks, bool grows)
    {
        using var scope = NewDisposeScope();
        if (ranks > _used && _used > 0)
        {
            E.narrow(0, _used, ranks - _used).fill_(ReserveValue);
        }

        var reserve = grows ? Math.Min(config.Added, config.MaxRank - ranks) : 0;
        Own(IncreLoraConfig.Ranks).copy_(tensor(new float[] { ranks, reserve }));
        (_used, _reserve) = (ranks, reserve);
    }

    /// <summary>Starts or ends collecting the gradients of ΔW.</summary>
    public void Watch(bool watch)
    {
        _watched.Sum?.Dispose();
        _watched.Sum = watch ? zeros(Shape.Out, Shape.In, dtype: ScalarType.Float32, device: A.device).DetachFromDisposeScope() : null;
    }

    /// <summary>Sum of the distances from one of the squared lengths of rows of A and columns of B, and how many there are.</summary>
    public (Tensor Sum, int Count) Lengths()
    {
        using var scope = NewDisposeScope();
        var rows = A.narrow(0, 0, Live).square().sum(dim: 1);
        var columns = B.narrow(1, 0, Live).square().sum(dim: 0);
        return ((cat([rows, columns]) - 1).abs().sum().MoveToOuterDisposeScope(), 2 * Live);
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var input = training && config.Dropout > 0 ? nn.functional.dropout(x, config.Dropout) : x;
        if (_watched.Sum is not null && training)   // not: where gradients are on, or layers that are computed again would have other digits
        {
            var delta = GradientWatch.apply(Delta(), _watched);
            return (BaseLayer.forward(x) + nn.functional.linear(input, delta.to(x.dtype))).MoveToOuterDisposeScope();
        }

        var thin = nn.functional.linear(input, Right().to(x.dtype));
        return (BaseLayer.forward(x) + nn.functional.linear(thin, B.narrow(1, 0, Live).mul(Scale).to(x.dtype))).MoveToOuterDisposeScope();
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            Watch(false);
        }

        base.Dispose(disposing);
    }

    /// <summary>E∘A of the ranks in use and in reserve, [R, in].</summary>
    private Tensor Right()
    {
        using var scope = NewDisposeScope();
        var used = A.narrow(0, 0, _used) * E.narrow(0, 0, _used);
        var right = _reserve == 0 ? used : cat([used, A.narrow(0, _used, _reserve) * ReserveValue]);
        return right.MoveToOuterDisposeScope();
    }
}

/// <summary>Where gradients are added up: a field of a tensor's type would be found by reflection and registered as the layer's.</summary>
internal sealed class GradientSink
{
    public Tensor? Sum { get; set; }
}

/// <summary>The identity, which adds up the gradients that come back through it.</summary>
internal sealed class GradientWatch : autograd.SingleTensorFunction<GradientWatch>
{
    private const string Call = "call";

    public override string Name => nameof(GradientWatch);

    /// <param name="vars">The tensor to watch, and a <see cref="GradientSink"/>.</param>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        ctx.save_data(Call, new CallFacts((GradientSink)vars[1], BackwardPass.OfThisThread));
        ctx.set_materialize_grads(false);
        return ((Tensor)vars[0]).clone();
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var call = (CallFacts)ctx.get_data(Call);
        return call.Pass.Compute([grad_output], count: 2, () =>
        {
            call.Sink.Sum?.add_(grad_output);
            return [grad_output.alias(), null];
        });
    }

    private sealed record CallFacts(GradientSink Sink, BackwardPass Pass);
}
