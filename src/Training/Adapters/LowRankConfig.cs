using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Which biases train beside the factors.</summary>
public enum BiasTraining
{
    None,

    /// <summary>Every bias of the model.</summary>
    All,

    /// <summary>The biases of the adapted layers.</summary>
    LoraOnly,
}

/// <summary>LoRA and its relatives: two thin factors beside each layer, with a rank and a scale of their own for each.</summary>
public abstract record LowRankConfig : LayerAdapterConfig, IValidatableObject
{
    /// <summary>Key of A, [R, in].</summary>
    internal const string A = "lora_A.weight";

    /// <summary>Key of B, [out, R].</summary>
    internal const string B = "lora_B.weight";

    [Description("Rank r of the update."), Range(1, 65_536)]
    public int Rank { get; init; } = 16;

    [Description("Scale α; the update is multiplied by α/r."), Range(1e-3, 1e6)]
    public double Alpha { get; init; } = 32;

    [Description("Multiply by α/√r instead of α/r (rank-stabilised LoRA, arXiv:2312.03732).")]
    public bool UseRslora { get; init; }

    [Description("Share of the inputs of A that is dropped in training."), Range(0, 0.99), TrainingOnly]
    public double Dropout { get; init; }

    [Description("Other ranks for some layers: regular expression over module names → rank."), ItemRange(1, 65_536)]
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new Dictionary<string, int>();

    [Description("Other scales for some layers: regular expression over module names → α."), ItemRange(1e-3, 1e6)]
    public IReadOnlyDictionary<string, double> AlphaPattern { get; init; } = new Dictionary<string, double>();

    [Description("Biases that train: none, all, or those of adapted layers (lora_only).")]
    public BiasTraining Bias { get; init; } = BiasTraining.None;

    /// <summary>Rank and scale of one layer.</summary>
    internal SelectedLinear Select(LinearShape layer) => TargetSelection.WithRank(this, layer);

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer)
    {
        var rank = Select(layer).Rank;
        return [new(A, [rank, layer.In]), new(B, [layer.Out, rank], TensorRole.OutputFactor)];
    }

    internal override BiasTraining TrainedBiases => Bias;

    internal override IEnumerable<(string Member, string Pattern)> Patterns =>
        [.. RankPattern.Keys.Select(key => ("rank_pattern", key)), .. AlphaPattern.Keys.Select(key => ("alpha_pattern", key))];

    internal override IEnumerable<SpecError> Faults => RankChecks.Faults(this);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => RankChecks.Of(this, layers);

    public virtual IEnumerable<ValidationResult> Validate(ValidationContext validationContext) =>
        FaultyKeys(RankPattern.Keys, nameof(RankPattern)).Concat(FaultyKeys(AlphaPattern.Keys, nameof(AlphaPattern)));

    /// <summary>Kaiming's uniform initialisation with a = √5: U(-1/√columns, 1/√columns).</summary>
    /// <returns>A tensor on the CPU, float32, in the caller's dispose scope.</returns>
    internal static Tensor Kaiming(IReadOnlyList<long> shape, Generator generator)
    {
        using var scope = NewDisposeScope();
        var bound = 1 / Math.Sqrt(shape[^1]);
        return rand([.. shape], dtype: ScalarType.Float32, device: CPU, generator: generator).mul(2 * bound).sub(bound).MoveToOuterDisposeScope();
    }

    /// <summary>The same choice as a plain LoRA, with the same scale and so many times the ranks.</summary>
    internal LoraConfig Plain(int times)
    {
        var factor = UseRslora ? Math.Sqrt(times) : times;   // α/r and α/√r stay
        return new()
        {
            Rank = times * Rank,
            Alpha = Alpha * factor,
            UseRslora = UseRslora,
            Dropout = Dropout,
            RankPattern = RankPattern.ToDictionary(entry => entry.Key, entry => times * entry.Value),
            AlphaPattern = AlphaPattern.ToDictionary(entry => entry.Key, entry => entry.Value * factor),
            Bias = Bias,
            TargetModules = TargetModules,
            ExcludeModules = ExcludeModules,
            ModulesToSave = ModulesToSave,
        };
    }

    private static IEnumerable<ValidationResult> FaultyKeys(IEnumerable<string> keys, string member) =>
        from key in keys
        let fault = ModulePattern.Fault(key)
        where fault is not null
        select new ValidationResult($"has the key '{key}', which is not a valid regular expression: {fault}", [member]);
}
