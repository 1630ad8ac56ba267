using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>LoRA whose factors are put together from mixtures of the vectors of one bank, which all layers share and train.</summary>
/// <remarks>
/// Li et al. 2024, arXiv:2405.15179, eq. 2 and 3; PEFT 0.20.0, <c>tuners/vblora</c>. Both factors come from the one bank, so neither can start
/// at zero: training starts very near the base model, as bank and update are small.
/// </remarks>
[Method(
    "VB-LoRA",
    "LoRA factors mixed from one bank of vectors that all layers share.",
    "Adapters that are stored by the thousand: layers share their numbers, and each mixture needs only its few largest weights.",
    Paper = "Li et al. 2024, VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks",
    Arxiv = "2405.15179",
    Parameters = "a bank of h vectors of length b for all layers, and h·r·(in + out)/b logits per layer")]
[PeftType("VBLORA")]
[PeftConstant("bias", "\"none\"")]
[PeftConstant("fan_in_fan_out", "false")]
[PeftConstant("save_only_topk_weights", "false")]
public sealed record VbLoraConfig : LayerAdapterConfig
{
    /// <summary>Key of the bank, [vectors, length].</summary>
    internal const string Bank = "base_model.vblora_vector_bank";

    /// <summary>Key of the logits of A, [R, in/length, vectors].</summary>
    internal const string LogitsA = "vblora_logits_A";

    /// <summary>Key of the logits of B, [out/length, R, vectors].</summary>
    internal const string LogitsB = "vblora_logits_B";

    [Description("Rank r of the update."), Range(1, 65_536), PeftName("r")]
    public int Rank { get; init; } = 4;

    [Description("Vectors in the bank; more for larger models."), Range(1, 1_000_000)]
    public int NumVectors { get; init; } = 256;

    [Description("Length of the vectors; it must divide inputs and outputs of every layer."), Range(1, 1_000_000)]
    public int VectorLength { get; init; } = 256;

    [Description("Vectors that each mixture has: those with the largest logits."), Range(1, 1_000_000), PeftName("topk")]
    public int TopK { get; init; } = 2;

    [Description("Share of the inputs of A that is dropped in training."), Range(0, 0.99), PeftName("vblora_dropout"), TrainingOnly]
    public double Dropout { get; init; }

    [Description("The bank starts at uniform numbers up to this size."), Range(1e-6, 10), PeftName("init_vector_bank_bound"), TrainingOnly]
    public double BankBound { get; init; } = 0.02;

    [Description("Standard deviation of the first logits."), Range(1e-6, 10), PeftName("init_logits_std"), TrainingOnly]
    public double LogitsStd { get; init; } = 0.1;

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
    [
        new(LogitsA, [Rank, layer.In / VectorLength, NumVectors]),
        new(LogitsB, [layer.Out / VectorLength, Rank, NumVectors]),
    ];

    internal override IReadOnlyList<LayerTensor> SharedBy(IReadOnlyList<LinearShape> layers) => [new(Bank, [NumVectors, VectorLength])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new VbLoraLinear(parts, TopK, LogitsStd, Dropout);

    internal override void InitialiseShared(IReadOnlyDictionary<string, Tensor> shared, AdapterStart start) => shared[Bank].copy_(
        rand([NumVectors, VectorLength], dtype: ScalarType.Float32, device: CPU, generator: start.Random).mul(2 * BankBound).sub(BankBound));

    internal override IEnumerable<SpecError> Faults => TopK > NumVectors
        ? [LayerChecks.Error("top_k", $"is {TopK}, and the bank has {NumVectors} vectors; use at most {NumVectors}.", SpecErrorCodes.Conflict)]
        : [];

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) =>
    [
        .. RankChecks.Of(Rank, layers),
        .. layers.Where(layer => layer.In % VectorLength != 0 || layer.Out % VectorLength != 0).Take(1).Select(layer => LayerChecks.Error(
            "vector_length",
            $"is {VectorLength}, which does not divide inputs and outputs of layer '{layer.Name}', whose weight is {layer.Out} x {layer.In}; "
            + $"choose a divisor of {layers.SelectMany(other => (long[])[other.In, other.Out]).Aggregate(CommonDivisor)}.",
            SpecErrorCodes.Conflict)),
    ];

    private static long CommonDivisor(long one, long other) => other == 0 ? one : CommonDivisor(other, one % other);
}

/// <summary>y = base(x) + (dropout(x)·Aᵀ)·Bᵀ; each stretch of a row of A, or of a column of B, is a mixture of k vectors of the bank.</summary>
internal sealed class VbLoraLinear(LayerParts parts, int topK, double logitsStd, double dropout) : AdaptedLinear(parts)
{
    private Parameter LogitsA => Own(VbLoraConfig.LogitsA);

    private Parameter LogitsB => Own(VbLoraConfig.LogitsB);

    public override LowRankFactors? Factors => new(B(), A(), 1);

    public override void Initialise(AdapterStart start)
    {
        foreach (var logits in (Tensor[])[LogitsA, LogitsB])
        {
            logits.copy_(randn(logits.shape, dtype: ScalarType.Float32, device: CPU, generator: start.Random).mul(logitsStd));
        }
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return B().mm(A()).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var input = training && dropout > 0 ? nn.functional.dropout(x, dropout) : x;
        var thin = nn.functional.linear(input, A().to(x.dtype));
        return (BaseLayer.forward(x) + nn.functional.linear(thin, B().to(x.dtype))).MoveToOuterDisposeScope();
    }

    /// <summary>[R, in].</summary>
    private Tensor A() => Mixtures(LogitsA).reshape(LogitsA.shape[0], Shape.In);

    /// <summary>[out, R].</summary>
    private Tensor B() => Mixtures(LogitsB).transpose(1, 2).reshape(Shape.Out, LogitsB.shape[1]);

    /// <remarks>As a product with the bank: gathering its rows would add up their gradients in an order that differs from run to run on a GPU.</remarks>
    /// <returns>[.., .., length].</returns>
    private Tensor Mixtures(Tensor logits)
    {
        using var scope = NewDisposeScope();
        var (_, chosen) = logits.detach().topk(topK, -1);
        var weights = nn.functional.softmax(logits.gather(-1, chosen), -1);
        return zeros_like(logits).scatter(-1, chosen, weights).matmul(Shared(VbLoraConfig.Bank)).MoveToOuterDisposeScope();
    }
}
