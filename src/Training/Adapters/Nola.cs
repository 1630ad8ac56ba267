using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>LoRA whose factors are trained mixtures of random matrices: A = A₀ + Σ aᵢ·Aᵢ and B = Σ bᵢ·Bᵢ.</summary>
/// <remarks>
/// Koohpayegani et al. 2024, arXiv:2310.02556, eq. 2; the authors' <c>gpt/src/model_nola.py</c>: numbers of [-1, 1) over √K for the random
/// matrices, Kaiming's initialisation for A₀. They follow from a seed and the layer's name and are never stored. b starts at zero, so training
/// starts at the base model, and a begins to move in the second step.
/// </remarks>
[Method(
    "NOLA",
    "LoRA factors as trained mixtures of random matrices, which are made anew from a seed whenever they are needed.",
    "Adapters below the size of LoRA with rank 1: the count of trained numbers does not depend on rank or layer size.",
    Paper = "Koohpayegani et al. 2024, NOLA: Compressing LoRA using Linear Combination of Random Basis",
    Arxiv = "2310.02556",
    Parameters = "2·K per layer, K = bases")]
public sealed record NolaConfig : LayerAdapterConfig
{
    /// <summary>Key of the mixture of A, [K].</summary>
    internal const string MixA = "nola_a";

    /// <summary>Key of the mixture of B, [K].</summary>
    internal const string MixB = "nola_b";

    [Description("Rank r of the update; it costs no trained numbers."), Range(1, 65_536)]
    public int Rank { get; init; } = 8;

    [Description("Scale α; the update is multiplied by α/r."), Range(1e-3, 1e6)]
    public double Alpha { get; init; } = 8;

    [Description("Random matrices K that each of the two factors mixes, and so half of the trained numbers of a layer."), Range(1, 1_000_000)]
    public int NumBases { get; init; } = 512;

    [Description("Seed of the random matrices; saved with the adapter, which has no meaning without it."), Range(0, int.MaxValue)]
    public int BasisSeed { get; init; }

    [Description("Share of the inputs of A that is dropped in training."), Range(0, 0.99), TrainingOnly]
    public double Dropout { get; init; }

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
        [new(MixA, [NumBases]), new(MixB, [NumBases], TensorRole.OutputFactor)];

    internal override AdaptedLinear Wrap(LayerParts parts) => new NolaLinear(parts, Rank, Alpha / Rank, BasisSeed, Dropout);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => RankChecks.Of(Rank, layers);
}

/// <summary>y = base(x) + s·(dropout(x)·Aᵀ)·Bᵀ.</summary>
internal sealed class NolaLinear(LayerParts parts, int rank, double scale, int seed, double dropout) : AdaptedLinear(parts)
{
    public override LowRankFactors? Factors => new(B(), A(), scale);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return B().mm(A()).mul(scale).MoveToOuterDisposeScope();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var input = training && dropout > 0 ? nn.functional.dropout(x, dropout) : x;
        var thin = nn.functional.linear(input, A().to(x.dtype));
        return (BaseLayer.forward(x) + nn.functional.linear(thin, B().mul(scale).to(x.dtype))).MoveToOuterDisposeScope();
    }

    /// <summary>[R, in].</summary>
    private Tensor A()
    {
        using var scope = NewDisposeScope();
        var mix = Own(NolaConfig.MixA);
        var start = CounterRandom.Uniform(Key("A0"), 0, rank * Shape.In, mix.device).view(rank, Shape.In).div_(Math.Sqrt(Shape.In));
        return (start + RandomMixture.Of(mix, Key("A"), [rank, Shape.In])).MoveToOuterDisposeScope();
    }

    /// <summary>[out, R].</summary>
    private Tensor B() => RandomMixture.Of(Own(NolaConfig.MixB), Key("B"), [Shape.Out, rank]);

    private ulong Key(string factor) => CounterRandom.Key($"nola|{seed}|{Shape.Name}|{factor}");
}

/// <summary>Σ cᵢ·Mᵢ/√K with matrices Mᵢ of random numbers of [-1, 1) that are made in chunks, again for the gradient, and never kept.</summary>
internal sealed class RandomMixture : autograd.SingleTensorFunction<RandomMixture>
{
    /// <summary>Random numbers that are held at a time, 16 MiB.</summary>
    private const long MostNumbers = 1 << 22;

    private const string Call = "call";

    public override string Name => nameof(RandomMixture);

    /// <param name="mix">c, [K], float32.</param>
    /// <param name="key">Of the random numbers: matrix i holds those at places i·size and following, row by row.</param>
    /// <returns>A matrix of the shape, float32, in the caller's dispose scope.</returns>
    public static Tensor Of(Tensor mix, ulong key, long[] shape)
    {
        using var scope = NewDisposeScope();
        return apply(mix, new Matrices(key, shape)).MoveToOuterDisposeScope();
    }

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        using var scope = NewDisposeScope();
        var (mix, matrices) = ((Tensor)vars[0], (Matrices)vars[1]);
        ctx.save_data(Call, new CallFacts(matrices, mix.shape[0], BackwardPass.OfThisThread));
        ctx.set_materialize_grads(false);
        var sum = zeros(1, matrices.Size, dtype: ScalarType.Float32, device: mix.device);
        InChunks(matrices, mix.shape[0], mix.device, (first, chunk) => sum.addmm_(mix.narrow(0, first, chunk.shape[0]).unsqueeze(0), chunk));
        return sum.div_(Math.Sqrt(mix.shape[0])).view(matrices.Shape).MoveToOuterDisposeScope();
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var (matrices, count, pass) = (CallFacts)ctx.get_data(Call);
        return pass.Compute([grad_output], count: 2, () =>
        {
            var result = empty(count, dtype: ScalarType.Float32, device: grad_output.device);
            var flat = grad_output.reshape(-1);
            InChunks(matrices, count, grad_output.device, (first, chunk) => result.narrow(0, first, chunk.shape[0]).copy_(chunk.mv(flat)));
            return [result.div_(Math.Sqrt(count)), null];
        });
    }

    /// <summary>Calls with the first matrix of a chunk and its matrices as rows, [n, size].</summary>
    private static void InChunks(Matrices matrices, long count, Device device, Action<long, Tensor> use)
    {
        var each = Math.Clamp(MostNumbers / matrices.Size, 1, count);
        for (var first = 0L; first < count; first += each)
        {
            using var scope = NewDisposeScope();
            var rows = Math.Min(each, count - first);
            use(first, CounterRandom.Uniform(matrices.Key, first * matrices.Size, rows * matrices.Size, device).view(rows, matrices.Size));
        }
    }

    private sealed record Matrices(ulong Key, long[] Shape)
    {
        public long Size => Shape.Aggregate(1L, (product, side) => product * side);
    }

    private sealed record CallFacts(Matrices Matrices, long Count, BackwardPass Pass);
}
