using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>A trained mixture of what other trainings changed: ΔW = Σ c[t]·ΔW_t, with coefficients of its own for each layer.</summary>
/// <remarks>
/// Zhang et al. 2024, arXiv:2407.02880, eq. 3 and §5.3; the authors' <c>src/composition.py</c>. Their groups of a matrix are alike in all layers
/// of one shape and not stored; here they follow from a seed and the layer's name. The task vectors are saved with the coefficients: as
/// factors where every layer's change is a product of thin matrices, else as they are.
/// </remarks>
[Method(
    "aTLAS",
    "Learned anisotropic scaling: the changes that other fine-tuned models made, mixed with trained coefficients per layer.",
    "A new task near to some that were trained before: a few numbers per layer learn from little data which part of each to use.",
    Paper = "Zhang et al. 2024, Knowledge Composition using Task Vectors with Learned Anisotropic Scaling",
    Arxiv = "2407.02880",
    Parameters = "T·K per layer, T = task vectors, K = groups")]
public sealed record AtlasConfig : LayerAdapterConfig, IValidatableObject
{
    /// <summary>Key of the coefficients, [T, K].</summary>
    internal const string Coefficients = "atlas_coef";

    [Description("Fine-tuned models of the same base to mix: ids of fine-tuned models, or local folders for the command line, of adapters or of whole models; "
        + "empty: those of the adapter in from.")]
    public IReadOnlyList<string> TaskVectors { get; init; } = [];

    [Description("Coefficient of every task vector in every layer at the start; 0: training starts at the base model."), Range(-10.0, 10), TrainingOnly]
    public double Start { get; init; }

    [Description("Groups K into which each matrix is divided at random, each with a coefficient of its own (aTLAS x K)."), Range(1, 256)]
    public int Groups { get; init; } = 1;

    [Description("Seed of the groups; saved with the adapter."), Range(0, int.MaxValue)]
    public int GroupSeed { get; init; }

    [Description("Rank in which each task vector is saved, 0 for whole matrices; it follows from the task vectors and is not set."), ItemRange(0, 65_536)]
    public IReadOnlyList<int> VectorRanks { get; init; } = [];

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
    [
        new(Coefficients, [TaskVectors.Count, Groups]),
        .. Enumerable.Range(0, TaskVectors.Count).SelectMany(vector => RankOf(vector) is > 0 and var rank
            ? (LayerTensor[])[new(LeftOf(vector), [layer.Out, rank], Trains: false), new(RightOf(vector), [rank, layer.In], Trains: false)]
            : [new(DeltaOf(vector), [layer.Out, layer.In], Trains: false)]),
    ];

    internal override AdaptedLinear Wrap(LayerParts parts) => new AtlasLinear(parts, this);

    internal override IReadOnlyDictionary<string, Tensor> Measure(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration? calibration) =>
        TaskVector.ReadAll(model, layers, TaskVectors);

    /// <inheritdoc/>
    /// <remarks>Layers that no task vector changes are left alone. Paths of this machine do not belong into what is saved.</remarks>
    internal override LayerAdapterConfig Completed(IReadOnlyList<LinearShape> layers, IReadOnlyDictionary<string, Tensor> measured)
    {
        var changed = layers.Where(layer => Enumerable.Range(0, TaskVectors.Count).Any(vector => measured.ContainsKey(TaskVector.Key(layer.Name, DeltaOf(vector)))
            || measured.ContainsKey(TaskVector.Key(layer.Name, LeftOf(vector))))).ToList();
        if (changed.Count == 0)
        {
            throw TrainingException.InvalidSpec(
                "None of adapter.task_vectors changes a layer that is adapted; name other fine-tuned models, or other layers in adapter.target_modules.",
                "adapter.task_vectors");
        }

        return this with
        {
            TargetModules = changed.Count == layers.Count ? TargetModules : ModuleSelector.OfNames(changed.ConvertAll(layer => layer.Name)),
            ExcludeModules = changed.Count == layers.Count ? ExcludeModules : null,
            TaskVectors = [.. TaskVectors.Select(folder => Path.GetFileName(Path.TrimEndingDirectorySeparator(folder)))],
            VectorRanks = [.. Enumerable.Range(0, TaskVectors.Count).Select(vector => TaskVector.RankOf(layers, measured, vector))],
        };
    }

    /// <inheritdoc/>
    internal override LayerAdapterConfig Restored(string folder) => Checkpoints.PeftFolder.Open(folder).Config;

    public override IReadOnlyList<string> Sources() => [.. base.Sources(), .. TaskVectors];

    public override AdapterConfig WithSources(Func<string, string> place) =>
        (AtlasConfig)base.WithSources(place) with { TaskVectors = [.. TaskVectors.Select(place)] };

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (TaskVectors.Count == 0 && From is null)
        {
            yield return new("is empty, and there is nothing to mix; name at least one fine-tuned model of the same base.", [nameof(TaskVectors)]);
        }

        if (TaskVectors.Count > 0 && From is not null)
        {
            yield return new("is set beside adapter.from, whose task vectors count; leave one of them out.", [nameof(TaskVectors)]);
        }
    }

    /// <summary>Rank of a task vector's factors; 0 where it is kept whole.</summary>
    internal int RankOf(int vector) => vector < VectorRanks.Count ? VectorRanks[vector] : 0;

    /// <summary>Key of the left factor of a task vector, [out, R].</summary>
    internal static string LeftOf(int vector) => $"atlas_left.{vector}";

    /// <summary>Key of its right factor, [R, in].</summary>
    internal static string RightOf(int vector) => $"atlas_right.{vector}";

    /// <summary>Key of a whole task vector, [out, in].</summary>
    internal static string DeltaOf(int vector) => $"atlas_delta.{vector}";
}

/// <summary>y = base(x) + x·(Σ c[t]∘ΔW_t)ᵀ: one coefficient for each ΔW_t, or one for each group of its numbers.</summary>
internal sealed class AtlasLinear(LayerParts parts, AtlasConfig config) : AdaptedLinear(parts)
{
    /// <summary>[T, K].</summary>
    private Tensor Coefficients => Own(AtlasConfig.Coefficients);

    private bool IsThin => config.Groups == 1 && Enumerable.Range(0, config.TaskVectors.Count).All(vector => config.RankOf(vector) > 0);

    public override LowRankFactors? Factors => IsThin
        ? new(
            cat(Each(vector => Own(AtlasConfig.LeftOf(vector)) * Coefficients[vector]), 1),
            cat(Each(vector => Own(AtlasConfig.RightOf(vector))), 0),
            1)
        : null;

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        if (Factors is { } factors)
        {
            return factors.Left.mm(factors.Right).MoveToOuterDisposeScope();
        }

        var groups = config.Groups == 1 ? null : Groups();
        var sum = zeros(Shape.Out, Shape.In, dtype: ScalarType.Float32, device: Coefficients.device);
        for (var vector = 0; vector < config.TaskVectors.Count; vector++)
        {
            var change = config.RankOf(vector) > 0
                ? Own(AtlasConfig.LeftOf(vector)).mm(Own(AtlasConfig.RightOf(vector)))
                : Own(AtlasConfig.DeltaOf(vector));
            var coefficient = groups is null ? Coefficients[vector] : Coefficients[vector].index_select(0, groups).view(Shape.Out, Shape.In);
            sum = addcmul(sum, change, coefficient.expand_as(change), 1);
        }

        return sum.MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start)
    {
        Coefficients.fill_(config.Start);
        for (var vector = 0; vector < config.TaskVectors.Count; vector++)
        {
            if (config.RankOf(vector) > 0)
            {
                // Layers of a lower rank than the largest have zeros behind it.
                Copy(start, AtlasConfig.LeftOf(vector), (own, read) => own.narrow(1, 0, read.shape[1]));
                Copy(start, AtlasConfig.RightOf(vector), (own, read) => own.narrow(0, 0, read.shape[0]));
            }
            else if (!Copy(start, AtlasConfig.DeltaOf(vector), (own, _) => own)
                && start.Measured.TryGetValue(TaskVector.Key(Shape.Name, AtlasConfig.LeftOf(vector)), out var left))
            {
                Own(AtlasConfig.DeltaOf(vector)).copy_(left.mm(start.Measured[TaskVector.Key(Shape.Name, AtlasConfig.RightOf(vector))]));
            }
        }
    }

    public override Tensor forward(Tensor x)
    {
        if (!IsThin)
        {
            return base.forward(x);
        }

        using var scope = NewDisposeScope();
        var factors = Factors!;
        var thin = nn.functional.linear(x, factors.Right.to(x.dtype));
        return (BaseLayer.forward(x) + nn.functional.linear(thin, factors.Left.to(x.dtype))).MoveToOuterDisposeScope();
    }

    /// <summary>The group of each number of the matrix, row by row, [out·in], int64, in the caller's dispose scope.</summary>
    private Tensor Groups()
    {
        using var scope = NewDisposeScope();
        var random = CounterRandom.Uniform(
            CounterRandom.Key($"atlas|{config.GroupSeed}|{Shape.Name}"), 0, Shape.Out * Shape.In, Coefficients.device);
        return random.add_(1).mul_(config.Groups / 2.0).floor_().clamp_(0, config.Groups - 1).to_type(ScalarType.Int64).MoveToOuterDisposeScope();
    }

    private bool Copy(AdapterStart start, string name, Func<Tensor, Tensor, Tensor> part)
    {
        if (!start.Measured.TryGetValue(TaskVector.Key(Shape.Name, name), out var read))
        {
            return false;
        }

        using var scope = NewDisposeScope();
        part(Own(name), read).copy_(read);
        return true;
    }

    private List<Tensor> Each(Func<int, Tensor> tensor) => [.. Enumerable.Range(0, config.TaskVectors.Count).Select(tensor)];
}
