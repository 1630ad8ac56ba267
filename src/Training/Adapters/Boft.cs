using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Orthogonal butterfly: W' = diag(s)·W·(B_m·…·B₁)ᵀ, each B_i a block-diagonal rotation between two permutations of the inputs.</summary>
/// <remarks>
/// Liu et al. 2023, arXiv:2311.06243, §4; PEFT 0.20.0, <c>tuners/boft</c>. B_i = P_i·diag(R_1, …, R_n)·P_iᵀ with R = (I − Q)·(I + Q)⁻¹ and
/// Q = (M − Mᵀ)/2. M starts at zero and s at one, so training starts at the base model.
/// </remarks>
[Method(
    "BOFT",
    "Orthogonal fine-tuning by a butterfly: products of block rotations let all inputs mix with few numbers.",
    "OFT's tasks where its blocks should exchange with each other: raise butterfly_factors.",
    Paper = "Liu et al. 2023, Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization",
    Arxiv = "2311.06243",
    Parameters = "m·in·b + out per layer, with m factors of blocks of size b")]
[PeftType("BOFT")]
[PeftConstant("boft_block_num", "0")]
[PeftConstant("boft_dropout", "0.0")]
[PeftConstant("init_weights", "true")]
public sealed record BoftConfig : LayerAdapterConfig
{
    /// <summary>Key of M, [m, n, b, b].</summary>
    internal const string Blocks = "boft_R";

    /// <summary>Key of s, [out, 1].</summary>
    internal const string Magnitude = "boft_s";

    [Description("Size b of the blocks; it must divide the inputs of each layer."), Range(2, 65_536), PeftName("boft_block_size")]
    public int BlockSize { get; init; } = 4;

    [Description("Rotations m one after the other; each beyond the first doubles the inputs that mix. b·2^(m−1) must divide the inputs of each layer."), Range(1, 16), PeftName("boft_n_butterfly_factor")]
    public int ButterflyFactors { get; init; } = 1;

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
        [new(Blocks, [ButterflyFactors, layer.In / BlockSize, BlockSize, BlockSize]), new(Magnitude, [layer.Out, 1])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new BoftLinear(parts, BlockSize, ButterflyFactors);

    internal override bool Derives(string key) => key.EndsWith(".boft_P", StringComparison.Ordinal);   // the permutations, as matrices

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers)
    {
        if (ButterflyFactors > 1 && BlockSize % 2 != 0)
        {
            yield return LayerChecks.Error(
                "block_size", $"is {BlockSize}, and adapter.butterfly_factors above 1 exchange halves of blocks; use an even size.", SpecErrorCodes.Conflict);
            yield break;
        }

        var mixed = (long)BlockSize << (ButterflyFactors - 1);
        if (layers.FirstOrDefault(layer => layer.In % mixed != 0) is { } layer)
        {
            yield return LayerChecks.Error(
                ButterflyFactors > 1 ? "butterfly_factors" : "block_size",
                $"asks for groups of {mixed} inputs, which do not divide the {layer.In} inputs of layer '{layer.Name}'; choose smaller ones.",
                SpecErrorCodes.Conflict);
        }
    }

    /// <inheritdoc/>
    internal override void ToPeft(JsonObject fields)
    {
        fields["bias"] = "none";
        fields["fan_in_fan_out"] = false;
    }
}

/// <summary>y = s∘(base(x·B_m·…·B₁) − b) + b; rotations and scale are float32, also over a bfloat16 model.</summary>
internal sealed class BoftLinear : AdaptedLinear
{
    private readonly Orders _orders;

    public BoftLinear(LayerParts parts, int size, int factors)
        : base(parts) => _orders = new(parts.Shape.In, size, factors, Blocks.device);

    private Parameter Blocks => Own(BoftConfig.Blocks);

    private Parameter Magnitude => Own(BoftConfig.Magnitude);

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var weight = FrozenWeight();
        return (Turned(weight, transposed: true) * Magnitude - weight).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start) => Magnitude.fill_(1);

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var y = BaseLayer.forward(Turned(x.to(ScalarType.Float32), transposed: false).to(x.dtype));
        var unbiased = FrozenBias is { } bias ? y - bias : y;
        return (y + (unbiased * (Magnitude.squeeze(1) - 1)).to(y.dtype)).MoveToOuterDisposeScope();
    }

    /// <summary>The order of inputs at each factor: groups that double from factor to factor, in each the even half-blocks before the odd ones.</summary>
    internal static long[] Order(long inputs, int size, int factor)
    {
        var (group, half) = ((long)size << factor, size / 2);
        var order = new long[inputs];
        if (factor == 0)
        {
            // One block is a group: nothing moves, also where its size is odd.
            return [.. order.Select((_, index) => (long)index)];
        }

        var units = group / half;
        for (var index = 0L; index < inputs; index++)
        {
            var (start, unit) = (index / group * group, index % group / half);
            var source = unit < units / 2 ? 2 * unit : 2 * (unit - units / 2) + 1;
            order[index] = start + source * half + index % half;
        }

        return order;
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _orders.Dispose();
        }

        base.Dispose(disposing);
    }

    /// <summary>Rows [.., in] times B_m·…·B₁, or times the transpose of it.</summary>
    private Tensor Turned(Tensor rows, bool transposed)
    {
        using var scope = NewDisposeScope();
        var (count, size) = (Blocks.shape[0], Blocks.shape[^1]);
        var skew = (Blocks - Blocks.transpose(2, 3)).mul(0.5);
        var rotations = Orthogonal.Cayley(skew.view(-1, size, size)).view(Blocks.shape);
        var turned = rows.reshape(-1, Shape.In);
        for (var i = 0L; i < count; i++)
        {
            var factor = (int)(transposed ? i : count - 1 - i);
            var matrices = transposed ? rotations[factor].transpose(1, 2) : rotations[factor];
            turned = Orthogonal.Blocks(turned.index_select(1, _orders.Into[factor]), matrices).index_select(1, _orders.Back[factor]);
        }

        return turned.view(rows.shape).MoveToOuterDisposeScope();
    }

    // Fields of a tensor's type would be found by reflection and registered as this layer's.
    private sealed class Orders : IDisposable
    {
        public Orders(long inputs, int size, int factors, Device device)
        {
            for (var factor = 0; factor < factors; factor++)
            {
                using var scope = NewDisposeScope();
                var back = tensor(Order(inputs, size, factor));
                Back.Add(back.to(device).DetachFromDisposeScope());
                Into.Add(back.argsort().to(device).DetachFromDisposeScope());
            }
        }

        /// <summary>x·P: column j of it is column Into[j] of x.</summary>
        public List<Tensor> Into { get; } = [];

        /// <summary>x·Pᵀ.</summary>
        public List<Tensor> Back { get; } = [];

        public void Dispose()
        {
            foreach (var order in Into.Concat(Back))
            {
                order.Dispose();
            }
        }
    }
}
