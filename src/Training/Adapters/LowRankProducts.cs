using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>One frozen product and its low-rank update: y = x·Wᵀ + b + scale·(x·Aᵀ)·Bᵀ.</summary>
/// <param name="Weight">[out, in]; gets no gradient.</param>
/// <param name="Bias">[out]; null for none.</param>
/// <param name="A">[R, in], float32.</param>
/// <param name="B">[out, R], float32.</param>
internal sealed record LowRankProduct(Tensor Weight, Tensor? Bias, Tensor A, Tensor B, double Scale);

/// <summary>Low-rank updates of frozen products that read one input, in the fewest passes over it.</summary>
/// <remarks>
/// <para>The thin products x·Aᵀ of all layers are one; each update is added to its frozen product in place, and so are the parts of the
/// input's gradient. Frozen weights get no gradient. Only x and the thin product are kept for later.</para>
/// <para>Over bfloat16 weights the factors are rounded for the products, which the matrix units sum in float32. The factors themselves, and
/// the sums of their gradients over batches, are float32.</para>
/// </remarks>
internal sealed class LowRankProducts : autograd.MultiTensorFunction<LowRankProducts>
{
    private const string Call = "call";

    public override string Name => nameof(LowRankProducts);

    /// <summary>Every layer's output for one input.</summary>
    /// <param name="x">[.., in], in the weights' format.</param>
    /// <returns>[.., out] of each layer, in the caller's dispose scope.</returns>
    public static IReadOnlyList<Tensor> Run(Tensor x, IReadOnlyList<LowRankProduct> layers)
    {
        using var scope = NewDisposeScope();
        double[] scales = [.. layers.Select(layer => layer.Scale)];

        // Tensors inside of a list or a record would get no gradient.
        object?[] arguments = [scales, x, .. layers.SelectMany(layer => new object?[] { layer.Weight, layer.Bias, layer.A, layer.B })];
        return [.. apply(arguments!).Select(output => output.MoveToOuterDisposeScope())];
    }

    public override List<Tensor> forward(autograd.AutogradContext ctx, params object[] vars)
    {
        using var scope = NewDisposeScope();
        var (scales, x) = ((double[])vars[0], (Tensor)vars[1]);
        List<LowRankProduct> layers = [.. scales.Select((scale, index) => new LowRankProduct(
            (Tensor)vars[2 + 4 * index], (Tensor?)vars[3 + 4 * index], (Tensor)vars[4 + 4 * index], (Tensor)vars[5 + 4 * index], scale))];
        var rows = x.reshape(-1, x.shape[^1]);                                             // [N, in]
        var thin = rows.mm(Joined(layers.Select(layer => layer.A), x.dtype).t());          // [N, ΣR]
        var outputs = new List<Tensor>();
        var column = 0L;
        foreach (var layer in layers)
        {
            var y = Products.Multiply(rows, layer.Weight, layer.Bias);   // [N, out]
            y.addmm_(thin.narrow(1, column, layer.A.shape[0]), Scaled(layer.B, layer.Scale, x.dtype).t());
            outputs.Add(y.view([.. x.shape[..^1], y.shape[1]]).MoveToOuterDisposeScope());
            column += layer.A.shape[0];
        }

        ctx.save_for_backward(
            [x, thin.MoveToOuterDisposeScope(), .. layers.SelectMany(layer => new[] { layer.Weight, layer.A, layer.B })]);
        ctx.save_data(Call, new CallFacts(scales, [.. layers.Select(layer => layer.Bias?.requires_grad)], x.requires_grad, BackwardPass.OfThisThread));
        ctx.set_materialize_grads(false);
        return outputs;
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, List<Tensor> grad_outputs)
    {
        var call = (CallFacts)ctx.get_data(Call);
        return call.Pass.Compute(grad_outputs, 2 + 4 * call.Scales.Length, () => GradientsOf(call, ctx.get_saved_variables(), grad_outputs));
    }

    private static List<Tensor?> GradientsOf(CallFacts call, List<Tensor> saved, List<Tensor> gradients)
    {
        var (scales, biasTrains, inputTrains, _) = call;
        var (x, thin) = (saved[0], saved[1]);
        var rows = x.reshape(-1, x.shape[^1]);
        var result = new List<Tensor?> { null, null };
        List<Tensor> thinGradients = [], factors = [];
        List<int> slots = [];
        Tensor? inputGradient = null;
        var column = 0L;
        for (var index = 0; index < scales.Length; index++)
        {
            var (weight, a, b) = (saved[2 + 3 * index], saved[3 + 3 * index], saved[4 + 3 * index]);
            var rank = a.shape[0];
            result.AddRange([null, null, null, null]);
            if (!gradients[index].IsInvalid)
            {
                var g = gradients[index].reshape(-1, weight.shape[0]);                     // [N, out]

                // The same product the other way round, g^T times the thin one, takes MKL twice as long.
                result[^1] = thin.narrow(1, column, rank).t().mm(g).to(ScalarType.Float32).mul_(scales[index]).t();   // [out, R]
                result[^3] = biasTrains[index] == true ? g.sum(dim: 0) : null;
                thinGradients.Add(g.mm(Scaled(b, scales[index], g.dtype)));                // [N, R]
                factors.Add(a);
                slots.Add(result.Count - 2);
                if (inputTrains)
                {
                    inputGradient = Products.Add(inputGradient, g, weight.t());
                }
            }

            column += rank;
        }

        if (factors.Count == 0)
        {
            return result;
        }

        var thinGradient = thinGradients.Count == 1 ? thinGradients[0] : cat(thinGradients, 1);   // [N, ΣR]
        var ofFactors = thinGradient.t().mm(rows).to(ScalarType.Float32).split([.. factors.Select(a => a.shape[0])]);
        foreach (var (slot, gradient) in slots.Zip(ofFactors))
        {
            result[slot] = gradient;
        }

        result[1] = inputGradient?.addmm_(thinGradient, Joined(factors, x.dtype)).view(x.shape);
        return result;
    }

    private static Tensor Joined(IEnumerable<Tensor> factors, ScalarType dtype)
    {
        Tensor[] all = [.. factors];
        return (all.Length == 1 ? all[0] : cat(all)).to(dtype);
    }

    private static Tensor Scaled(Tensor factor, double scale, ScalarType dtype) => factor.mul(scale).to(dtype);

    private sealed record CallFacts(double[] Scales, bool?[] BiasTrains, bool InputTrains, BackwardPass Pass);
}
