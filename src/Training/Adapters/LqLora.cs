using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>W ≈ Q + s·B·A with codes of as many bits as each layer is worth: together they keep to a budget.</summary>
/// <remarks>
/// Guo et al. 2023, arXiv:2311.12023, §3 and the authors' <c>lq_utils.py</c>. Their costs are those of whole decompositions in 432 forms of codes; here of the
/// first pass, which has one decomposition for all forms, in the 24 of <see cref="NormalFloat.All"/>. They keep the squared gradients of
/// every number for the error; here their means over rows and columns, which is what weights the decomposition in their code, too.
/// </remarks>
[Method(
    "LQ-LoRA",
    "LoRA over codes whose bits a budget gives to the layers that need them, and factors that start at the part of each weight that codes would lose.",
    "Base models that should take 2.5 to 4 bits per weight, with less loss than the same bits everywhere.",
    Paper = "Guo et al. 2023, LQ-LoRA: Low-rank Plus Quantized Matrix Decomposition for Efficient Language Model Finetuning",
    Arxiv = "2311.12023",
    Parameters = "r·(in + out) per layer")]
public sealed record LqLoraConfig : ResidualConfig
{
    // Joined to a layer's name, the measured tensors: costs of the forms, and weights of the rows and columns of the error.
    private const string CostsOf = "costs of ";
    internal const string RowsOf = "rows of ";
    internal const string ColumnsOf = "columns of ";

    // Weights that are in memory in full while squared gradients are taken.
    private const int LayersAtOnce = 7;

    [Description("Bits per weight that the codes of all adapted layers take at most, with their scales."), Range(2.2, 9)]
    public double TargetBits { get; init; } = 4;

    [Description("Training rows whose squared gradients (the empirical Fisher information) weight the error of each layer's rows and columns; 0: all numbers count alike."), Range(0, 100_000), TrainingOnly]
    public int CalibrationRows { get; init; }

    [Description("Passes in which factors and codes are fitted in turn, at most; they end when the error no longer falls."), Range(1, 1000), TrainingOnly]
    public int QuantizationIterations { get; init; } = 100;

    [Description("Codes of each layer, module name → nf<bits>/<block size>, with /double where the scales are in codes, too: bits 2, 3, 4 or 8, blocks of 16, 32 or 64. The budget chooses for layers that are not named.")]
    public IReadOnlyDictionary<string, string> Allocation { get; init; } = new Dictionary<string, string>();

    internal override string? RefusesQuantization => null;

    internal override QuantizationConfig? DefaultQuantization => new Nf4Config();

    internal override bool MakesQuantizedBase => true;

    internal override bool LooksAtRows => CalibrationRows > 0;

    internal override long MoreFrozenBytes(ModelConfig model, QuantizationConfig held)
    {
        var layers = LayerPlan.Create(this, model).Layers;
        return Math.Max(0, BudgetBytes(layers) - layers.Sum(layer => held.BytesOf(layer.In * layer.Out)));   // at first the layers are held as the base is
    }

    internal override AdaptedLinear Wrap(LayerParts parts) =>
        new LqLoraLinear(parts, Select(parts.Shape).Scale, Dropout, FormOf(parts.Shape.Name), QuantizationIterations);

    /// <inheritdoc/>
    internal override IReadOnlyDictionary<string, Tensor> Measure(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration? calibration)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        using var generator = new Generator(0, CPU);   // of the decompositions' starts, which hardly show in what they find
        var measured = CalibrationRows > 0 ? Importance(model, layers, Calibration.Of(calibration, this)) : [];
        var slots = model.Linears.ToDictionary(slot => slot.Name);
        foreach (var layer in layers)
        {
            using var layerScope = NewDisposeScope();
            var (rows, columns) = (measured.GetValueOrDefault(RowsOf + layer.Name), measured.GetValueOrDefault(ColumnsOf + layer.Name));
            var weight = AdaptedLinear.OriginalWeight(slots[layer.Name]);
            var (left, right) = LqLora.Factors(weight, Select(layer).Rank, rows, columns, generator);
            var rest = QuantizedSplit.Rest(weight, left, right, scale: 1);
            var costs = NormalFloat.All.Select(form => Math.Pow(LqLora.Error(rest - LqLora.RoundTrip(form, rest, layer.Name), rows, columns), 2)).ToArray();
            measured.Add(CostsOf + layer.Name, tensor(costs, dtype: ScalarType.Float64).MoveToOtherDisposeScope(scope));
        }

        foreach (var tensor in measured.Values)
        {
            tensor.MoveToOuterDisposeScope();
        }

        return measured;
    }

    /// <inheritdoc/>
    /// <remarks>The forms of codes with the smallest summed cost within the budget.</remarks>
    internal override LayerAdapterConfig Completed(IReadOnlyList<LinearShape> layers, IReadOnlyDictionary<string, Tensor> measured)
    {
        var forms = layers.Select(layer => Allocation.ContainsKey(layer.Name) ? [FormOf(layer.Name)] : NormalFloat.All).ToList();
        var sizes = layers.Zip(forms, (layer, choices) => choices.Select(form => form.BytesOf(layer.In * layer.Out)).ToArray()).ToList();
        var costs = layers.Zip(forms, (layer, choices) => choices.Count == 1 ? [0.0] : measured[CostsOf + layer.Name].data<double>().ToArray()).ToList();
        var chosen = MultipleChoiceKnapsack.Solve(sizes, costs, BudgetBytes(layers)) ?? throw TrainingException.InvalidSpec(
            FormattableString.Invariant(
                $"adapter.target_bits is {TargetBits}, and with the smallest codes the layers take {8.0 * sizes.Sum(layer => layer.Min()) / layers.Sum(layer => layer.In * layer.Out):0.###} bits per weight; raise it, or adapt other layers."),
            "adapter.target_bits");
        return this with { Allocation = layers.Select((layer, index) => (layer.Name, forms[index][chosen[index]])).ToDictionary(pair => pair.Name, pair => pair.Item2.Name) };
    }

    /// <inheritdoc/>
    internal override LayerAdapterConfig Restored(string folder) => PeftFolder.Open(folder).Config;

    public override IEnumerable<ValidationResult> Validate(ValidationContext validationContext) => base.Validate(validationContext).Concat(
        Allocation.Where(entry => NormalFloat.OfName(entry.Value) is null).Select(entry => new ValidationResult(
            $"says '{entry.Value}' for '{entry.Key}', which is no form of codes; write it like nf3/64/double.", [nameof(Allocation)])));

    /// <summary>Bytes that the codes of these layers may take.</summary>
    internal long BudgetBytes(IReadOnlyList<LinearShape> layers) => (long)Math.Floor(TargetBits * layers.Sum(layer => layer.In * layer.Out) / 8);

    private NormalFloat FormOf(string layer) => NormalFloat.OfName(Allocation.GetValueOrDefault(layer, "")) ?? throw TrainingException.InvalidData(
        $"{PeftFolder.MethodFile} beside the adapter says nothing of the codes of {layer}; copy it from where the adapter was saved.", "adapter.allocation");

    /// <summary>Square roots of the mean squared gradients, over each layer's columns [out, 1] and rows [1, in]: their product is the weight of a number's error.</summary>
    private Dictionary<string, Tensor> Importance(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration calibration)
    {
        var sums = new Dictionary<string, Tensor>();
        foreach (var layer in layers)
        {
            sums.Add(RowsOf + layer.Name, zeros(layer.Out, 1, dtype: ScalarType.Float32, device: model.Device));
            sums.Add(ColumnsOf + layer.Name, zeros(1, layer.In, dtype: ScalarType.Float32, device: model.Device));
        }

        foreach (var some in layers.Chunk(LayersAtOnce))
        {
            calibration.Gradients(model, some.Select(layer => layer.Name).ToHashSet(), CalibrationRows, (name, gradient) =>
            {
                var squares = gradient.to_type(ScalarType.Float32).square();
                sums[RowsOf + name].add_(squares.mean([1L], keepdim: true));
                sums[ColumnsOf + name].add_(squares.mean([0L], keepdim: true));
            });
        }

        foreach (var layer in layers)
        {
            var (rows, columns) = (sums[RowsOf + layer.Name], sums[ColumnsOf + layer.Name]);
            columns.div_(columns.mean().clamp(min: float.Epsilon));   // the mean of all squares stays with the rows
            foreach (var weights in (Tensor[])[rows, columns])
            {
                weights.clamp_(min: Math.Max(LqLora.SmallestShare * weights.max().item<float>(), LqLora.SmallestSquare)).sqrt_();
            }
        }

        return sums;
    }
}

/// <summary>LQ-LoRA's decomposition and its error.</summary>
internal static class LqLora
{
    // Rows and columns without a gradient would be divided by zero.
    public const double SmallestShare = 1e-8;
    public const double SmallestSquare = 1e-30;

    /// <summary>Factors of the matrix whose weighted error is smallest: those of diag(rows)·M·diag(columns), divided by the weights again.</summary>
    /// <param name="rows">[out, 1]; null with <paramref name="columns"/>: all numbers count alike.</param>
    /// <param name="columns">[1, in].</param>
    /// <returns>[out, R] and [R, in], in the caller's dispose scope.</returns>
    public static (Tensor Left, Tensor Right) Factors(Tensor matrix, long rank, Tensor? rows, Tensor? columns, Generator generator)
    {
        var (left, values, right) = SingularVectors.Leading(rows is null ? matrix : rows * matrix * columns!, rank, generator);
        var root = values.sqrt();
        var (first, second) = (left * root, root.unsqueeze(1) * right);
        return rows is null ? (first, second) : (first / rows, second / columns!);
    }

    /// <summary>‖diag(rows)·E·diag(columns)‖, Frobenius.</summary>
    public static double Error(Tensor error, Tensor? rows, Tensor? columns)
    {
        using var scope = NewDisposeScope();
        return (rows is null ? error : rows * error * columns!).to_type(ScalarType.Float64).norm().item<double>();
    }

    /// <summary>The values of a matrix's codes, float32, in the caller's dispose scope.</summary>
    public static Tensor RoundTrip(NormalFloat form, Tensor matrix, string name)
    {
        using var codes = form.Quantize(matrix, name);
        return codes.Dequantize(ScalarType.Float32);
    }
}

internal sealed class LqLoraLinear(LayerParts parts, double scale, double dropout, NormalFloat form, int passes) : ResidualLinear(parts, scale, dropout)
{
    protected override ResidualStart Begin(AdapterStart start)
    {
        var (rows, columns) = (start.Measured.GetValueOrDefault(LqLoraConfig.RowsOf + Shape.Name), start.Measured.GetValueOrDefault(LqLoraConfig.ColumnsOf + Shape.Name));
        var (left, right, _) = QuantizedSplit.FactorsFirst(
            OriginalWeight(), rest => LqLora.RoundTrip(form, rest, Shape.Name), matrix => LqLora.Factors(matrix, A.shape[0], rows, columns, start.Random),
            passes, error => LqLora.Error(error, rows, columns), untilWorse: true);
        var root = Math.Sqrt(Scale);
        return new(left / root, right / root, left / root, right / root);
    }

    protected override QuantizedTensor Quantized(Tensor rest) => form.Quantize(rest, Shape.Name);

    protected override (Tensor B, Tensor A) Start(Tensor weight, AdapterStart start) => LqLora.Factors(weight, A.shape[0], null, null, start.Random);
}
