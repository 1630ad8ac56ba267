using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace TrainingService.Training.Adapters;

/// <summary>Methods that split W into a product with a diagonal in its middle and train the diagonal alone: ΔW = s·L·diag(c − c₀)·R.</summary>
/// <remarks>
/// L, R and c₀ stay as they start and are saved, so that nobody has to split W again: another library or machine finds other vectors where
/// values are equal or close.
/// </remarks>
public abstract record DiagonalConfig : LayerAdapterConfig
{
    internal const string Left = "left";
    internal const string Right = "right";
    internal const string Values = "values";
    internal const string Start = "start";

    [Description("Components r of each weight that train; a layer with fewer rows or columns trains all that it has."), Range(1, 65_536)]
    public int Rank { get; init; } = 768;

    /// <summary>What the keys of the saved tensors start with.</summary>
    internal abstract string Prefix { get; }

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer)
    {
        var rank = RankOf(layer);
        return
        [
            new(Prefix + Left, [layer.Out, rank], Trains: false),
            new(Prefix + Right, [rank, layer.In], Trains: false),
            new(Prefix + Start, [rank], Trains: false),
            new(Prefix + Values, [rank]),
        ];
    }

    /// <summary>Components of one layer.</summary>
    protected long RankOf(LinearShape layer) => Math.Min(Rank, Math.Min(layer.In, layer.Out));
}
