using System.ComponentModel;

namespace TrainingService.Training.Quantization;

/// <summary>Where the 256 values of 8-bit codes lie.</summary>
public enum Int8Map
{
    /// <summary>In equal steps: k/127 for k from -127 to 127.</summary>
    Linear,

    /// <summary>Closer together near zero; see <see cref="DynamicMap"/>.</summary>
    Dynamic,
}

/// <summary>8-bit integers: round(127/absmax · x) in each block, or the nearest value of the dynamic map.</summary>
/// <remarks>
/// Linear: Dettmers et al. 2023, arXiv:2305.14314, §2, eq. 1 and 2. Dynamic: Dettmers et al. 2021, arXiv:2110.02861, §2.1. Weights are close
/// to normal, and equal steps then have the smaller error; what spans many orders of magnitude, such as an optimizer's state, is better
/// off with the dynamic map.
/// </remarks>
[Method(
    "8-bit integers",
    "Holds the frozen linear layers in 8-bit codes with a scale per block: 8.5 bits per weight instead of 16 or 32.",
    "LoRA where a quarter of the memory of float32 weights is little enough, and the base model should change as little as possible.",
    Paper = "Dettmers et al. 2023, QLoRA: Efficient Finetuning of Quantized LLMs, equation 1",
    Arxiv = "2305.14314")]
public sealed record Int8Config : QuantizationConfig
{
    private static readonly CodeBook LinearBook = new([.. Enumerable.Range(-127, 255).Select(k => k / 127f)]);
    private static readonly CodeBook DynamicBook = new(DynamicMap.Signed);

    public Int8Config()
        : base(doubleQuantization: false)
    {
    }

    [Description("Where the values lie: in equal steps (linear), or closer together near zero (dynamic).")]
    public Int8Map Map { get; init; } = Int8Map.Linear;

    internal override string Name => "int8";

    internal override CodeBook CodeBook => Map switch
    {
        Int8Map.Linear => LinearBook,
        Int8Map.Dynamic => DynamicBook,
    };
}
