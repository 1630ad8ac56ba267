using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Components of each weight that all classes share (learngenes), and components of each class's own (tailors), behind a gate.</summary>
/// <remarks>
/// Xie et al. 2024, arXiv:2408.07337, where diffusion models are trained in this form from the start. Here all components start as the largest of W,
/// and their start is subtracted: ΔW_c = Σ_G u·σ·vᵀ + Σ_{T(c)} u·σ·vᵀ − the same at the start. The tailors of all classes start as the same
/// components, those behind the learngenes, for no two classes ever run together.
/// </remarks>
[Method(
    "KIND",
    "Singular components of each weight train: some for all rows, and some for the rows of one class, which each row names.",
    "Several kinds of rows in one training, such as styles or domains: what they share is learned from all, and each has a part that is switched on or left out.",
    Paper = "Xie et al. 2024, KIND: Knowledge Integration and Diversion for Training Decomposable Models",
    Arxiv = "2408.07337",
    Parameters = "(n + C·t)·(in + out + 1) per layer, n = learngenes, C = classes, t = tailors of each")]
public sealed record KindConfig : LayerAdapterConfig, IValidatableObject
{
    /// <summary>Key of the left vectors, [out, n + C·t]: those of the learngenes, then those of each class.</summary>
    internal const string Left = "kind_u";

    /// <summary>Key of the numbers σ, [n + C·t].</summary>
    internal const string Values = "kind_s";

    /// <summary>Key of the right vectors, [n + C·t, in].</summary>
    internal const string Right = "kind_v";

    /// <summary>Key of u·σ at the start, [out, n + t].</summary>
    internal const string StartLeft = "kind_start_us";

    /// <summary>Key of v at the start, [n + t, in].</summary>
    internal const string StartRight = "kind_start_v";

    private const int LongestName = 200;

    [Description("Classes of the rows; every row names one of them in its column class. Needed, also beside from, where they are those of the saved adapter."),
        Length(0, 1000)]
    public IReadOnlyList<string> Classes { get; init; } = [];

    [Description("Components of each weight that train for all rows, the largest ones; 0: only the classes' own train."), Range(0, 65_536)]
    public int Learngenes { get; init; } = 16;

    [Description("Components of each weight that each class has for itself."), Range(1, 65_536)]
    public int Tailors { get; init; } = 8;

    [Description("Class whose own part is in use where no row says which: in exports, spectra and use; null: what all classes share alone."), TrainingOnly]
    public string? ActiveClass { get; init; }

    /// <summary>Components that train in each layer.</summary>
    internal int Components => Learngenes + (Classes.Count * Tailors);

    /// <summary>Components of W at the start.</summary>
    internal int StartComponents => Learngenes + Tailors;

    /// <summary>Number of <see cref="ActiveClass"/>; null: none.</summary>
    internal int? ActiveNumber => Classes.Index().Where(known => known.Item == ActiveClass).Select(known => (int?)known.Index).FirstOrDefault();

    internal override IReadOnlyList<string> RowClasses => Classes;

    internal override AdapterConfig WithClass(string name) => this with { ActiveClass = name };

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
    [
        new(Left, [layer.Out, Components]),
        new(Values, [Components]),
        new(Right, [Components, layer.In]),
        new(StartLeft, [layer.Out, StartComponents], Trains: false),
        new(StartRight, [StartComponents, layer.In], Trains: false),
    ];

    internal override AdaptedLinear Wrap(LayerParts parts) => new KindLinear(parts, this);

    internal override LayerAdapter Build(CausalLm model, LayerPlan plan) => new KindAdapter(model, this, plan);

    internal override IEnumerable<SpecError> Faults => Classes.Count > 0 && ActiveClass is not null && ActiveNumber is null
        ? [LayerChecks.Error("active_class", UnknownClass(), SpecErrorCodes.InvalidValue)]
        : [];

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers)
    {
        if (layers.MinBy(layer => Math.Min(layer.In, layer.Out)) is { } small && Math.Min(small.In, small.Out) is var most && StartComponents > most)
        {
            yield return LayerChecks.Error(
                "learngenes",
                $"and adapter.tailors are {Learngenes} and {Tailors}, together more components than layer '{small.Name}' has, whose weight is {small.Out} x {small.In}; "
                + $"use at most {most} for both.",
                SpecErrorCodes.RankTooLarge);
        }
    }

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (Classes.Count == 0)
        {
            yield return new($"is empty; name the classes that rows have in their column {DataConfig.ClassColumn}.", [nameof(Classes)]);
        }

        if (Classes.FirstOrDefault(name => name.Length > LongestName) is { } name)
        {
            yield return new($"holds a name of {name.Length} characters; use at most {LongestName}.", [nameof(Classes)]);
        }

        if (Classes.GroupBy(name => name).FirstOrDefault(group => group.Count() > 1) is { } twice)
        {
            yield return new($"names '{SpecPath.Shorten(twice.Key)}' {twice.Count()} times; name each class once.", [nameof(Classes)]);
        }

        if (Classes.Count > 0 && ActiveClass is not null && ActiveNumber is null)
        {
            yield return new(UnknownClass(), [nameof(ActiveClass), nameof(Classes)]);
        }
    }

    private string UnknownClass()
    {
        var known = string.Join(", ", Classes.Take(12).Select(name => $"'{SpecPath.Shorten(name)}'"));
        return $"is '{SpecPath.Shorten(ActiveClass!)}', which is none of the adapter's classes; use one of {known}, or null.";
    }
}

/// <summary>y = base(x) + (gate∘(x·Vᵀ))·(U·diag(σ))ᵀ − the same of the start, as one product of thin matrices.</summary>
/// <remarks>
/// The components stand side by side: those that train, then those of the start with a minus. What starts equal is subtracted within one sum in float32,
/// so it cancels also where inputs and results are bfloat16. For a batch with classes a gate of zeros and ones, by token, lets each token through its
/// own class's components; otherwise those of the active class are taken out, and the others cost nothing.
/// </remarks>
internal sealed class KindLinear(LayerParts parts, KindConfig config) : AdaptedLinear(parts)
{
    private readonly KindGate _gate = new();

    public override LowRankFactors? Factors
    {
        get
        {
            if (config is { Learngenes: 0, ActiveNumber: null })
            {
                return null;   // nothing is in use
            }

            var places = KindGate.InUse(config);
            var (left, right) = Sides();
            var chosen = tensor(places, device: left.device);
            return new(left.index_select(1, chosen), right.index_select(0, chosen), 1);
        }
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var delta = Factors is { } factors
            ? factors.Left.mm(factors.Right)
            : zeros(Shape.Out, Shape.In, dtype: ScalarType.Float32, device: Own(KindConfig.Left).device);
        return delta.MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start)
    {
        using var scope = NewDisposeScope();
        var (left, values, right) = SingularVectors.Leading(FrozenWeight(), config.StartComponents, start.Random);
        var places = tensor(KindGate.Starts(config), device: left.device);
        Own(KindConfig.Left).copy_(left.index_select(1, places));
        Own(KindConfig.Values).copy_(values.index_select(0, places));
        Own(KindConfig.Right).copy_(right.index_select(0, places));
        Own(KindConfig.StartLeft).copy_(left * values);
        Own(KindConfig.StartRight).copy_(right);
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        if (_gate.Open is { } open)
        {
            var (left, right) = Sides();
            var gated = nn.functional.linear(x, right.to(x.dtype)) * open.to(x.dtype);   // [B, T, components]
            return (BaseLayer.forward(x) + nn.functional.linear(gated, left.to(x.dtype))).MoveToOuterDisposeScope();
        }

        if (Factors is not { } factors)
        {
            return BaseLayer.forward(x).MoveToOuterDisposeScope();
        }

        var thin = nn.functional.linear(x, factors.Right.to(x.dtype));
        return (BaseLayer.forward(x) + nn.functional.linear(thin, factors.Left.to(x.dtype))).MoveToOuterDisposeScope();
    }

    /// <summary>Lets the tokens of a batch through their own components.</summary>
    /// <param name="open">[B, T, components], zeros and ones; null: the active class's, for all.</param>
    public void SetGate(Tensor? open) => _gate.Open = open;

    /// <summary>All components, [out, N] and [N, in].</summary>
    private (Tensor Left, Tensor Right) Sides() => (
        cat([Own(KindConfig.Left) * Own(KindConfig.Values), Own(KindConfig.StartLeft).neg()], 1),
        cat([Own(KindConfig.Right), Own(KindConfig.StartRight)], 0));
}

/// <summary>Which components a class uses. The order is: learngenes, tailors class by class, and behind them the start's learngenes and tailors.</summary>
internal sealed class KindGate
{
    private const int Everybody = -1;
    private const int AnyClass = -2;

    /// <summary>What is let through, [B, T, components]; null: the choice is the same for all tokens.</summary>
    /// <remarks>Here, and not in a field of the layer: a field of a tensor's type would be found by reflection and disposed with it.</remarks>
    public Tensor? Open { get; set; }

    /// <summary>Of each component that trains: the component of W that it starts as.</summary>
    public static long[] Starts(KindConfig config) =>
    [
        .. Enumerable.Range(0, config.Components).Select(place => place < config.Learngenes
            ? (long)place
            : config.Learngenes + ((place - config.Learngenes) % config.Tailors)),
    ];

    /// <summary>The components of the active class.</summary>
    public static long[] InUse(KindConfig config) =>
        [.. Owners(config).Index().Where(place => Passes(place.Item, config.ActiveNumber ?? Batch.NoClass)).Select(place => (long)place.Index)];

    /// <summary>The gate of a batch.</summary>
    /// <param name="classes">[B, T], int64: class of each token, <see cref="Batch.NoClass"/> for none.</param>
    /// <returns>[B, T, components], float32, in the caller's dispose scope.</returns>
    public static Tensor Of(KindConfig config, Tensor classes)
    {
        using var scope = NewDisposeScope();
        var owners = tensor(Owners(config), device: classes.device);
        var own = owners.eq(classes.unsqueeze(-1));
        var any = owners.eq(AnyClass).logical_and(classes.ne(Batch.NoClass).unsqueeze(-1));
        return own.logical_or(any).logical_or(owners.eq(Everybody)).to_type(ScalarType.Float32).MoveToOuterDisposeScope();
    }

    private static bool Passes(long owner, int rowClass) => owner switch
    {
        Everybody => true,
        AnyClass => rowClass != Batch.NoClass,
        _ => owner == rowClass,
    };

    /// <summary>Of each component: the class that uses it.</summary>
    private static long[] Owners(KindConfig config) =>
    [
        .. Enumerable.Repeat((long)Everybody, config.Learngenes),
        .. Enumerable.Range(0, config.Classes.Count * config.Tailors).Select(place => (long)(place / config.Tailors)),
        .. Enumerable.Repeat((long)Everybody, config.Learngenes),
        .. Enumerable.Repeat((long)AnyClass, config.Tailors),
    ];
}

/// <summary>Shows its layers the classes of each batch.</summary>
internal sealed class KindAdapter(CausalLm model, KindConfig config, LayerPlan plan) : LayerAdapter(model, config, plan)
{
    private readonly Device _device = model.Device;
    private Tensor? _shown;

    public override IDisposable? BeginBatch(Batch batch)
    {
        if (batch.Classes is not { } classes)
        {
            return null;
        }

        using var scope = NewDisposeScope();
        var numbers = tensor(Array.ConvertAll(classes, number => (long)number), [batch.Size, batch.Length]);
        var before = _shown;
        Set(KindGate.Of(config, DeviceCopy.To(numbers, _device)).MoveToOuterDisposeScope());
        return new Shown(this, before);
    }

    private void Set(Tensor? gate)
    {
        _shown = gate;
        foreach (var layer in Layers.Cast<KindLinear>())
        {
            layer.SetGate(gate);
        }
    }

    /// <param name="before">The gate of the batch around this one: an objective may look at other rows meanwhile.</param>
    private sealed class Shown(KindAdapter adapter, Tensor? before) : IDisposable
    {
        public void Dispose() => adapter.Set(before);
    }
}
