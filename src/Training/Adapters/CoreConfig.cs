using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace TrainingService.Training.Adapters;

/// <summary>Methods that train a small square matrix between two frozen thin ones: ΔW = s·B·R·A.</summary>
/// <remarks>A and B are saved beside R: they come from a decomposition that another library or machine would not repeat to the bit.</remarks>
public abstract record CoreConfig : LayerAdapterConfig
{
    /// <summary>Key of A, [r, in].</summary>
    internal const string A = "lora_A.weight";

    /// <summary>Key of B, [out, r].</summary>
    internal const string B = "lora_B.weight";

    /// <summary>Key of R, [r, r].</summary>
    internal const string R = "lora_R.weight";

    [Description("Rank r: each layer trains r·r numbers."), Range(1, 65_536)]
    public int Rank { get; init; } = 32;

    [Description("Share of the inputs of A that is dropped in training."), Range(0, 0.99), TrainingOnly]
    public double Dropout { get; init; }

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
    [
        new(A, [Rank, layer.In], Trains: false),
        new(B, [layer.Out, Rank], Trains: false),
        new(R, [Rank, Rank]),
    ];

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => RankChecks.Of(Rank, layers);
}
