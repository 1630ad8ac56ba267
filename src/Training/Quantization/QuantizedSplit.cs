using static TorchSharp.torch;

namespace TrainingService.Training.Quantization;

/// <summary>W ≈ Q + L·R with Q in codes: one after the other, codes and factors are fitted to what the other leaves of W.</summary>
/// <remarks>
/// Li et al. 2023, LoftQ, arXiv:2310.08659, algorithm 1; Meng et al. 2024, PiSSA, arXiv:2404.02948, §4, and the authors' <c>pissa_quant</c>;
/// Guo et al. 2023, LQ-LoRA, arXiv:2311.12023, algorithm 1. No pass is sure to lower the error ‖W − Q − L·R‖, so that of the passes with the smallest
/// one is taken; the authors of the first two take the last.
/// </remarks>
internal static class QuantizedSplit
{
    /// <summary>Factors of a matrix [out, in], L [out, R] and R [R, in], in the caller's dispose scope.</summary>
    public delegate (Tensor Left, Tensor Right) Factoring(Tensor matrix);

    /// <summary>The factors of W − Q first, then Q of what they leave, so many times: Q follows from the last factors.</summary>
    /// <param name="weight">W, [out, in], float32.</param>
    /// <param name="quantize">The values of codes for a matrix, float32, in the caller's dispose scope.</param>
    /// <param name="measure">The error of W − Q − L·R; null: its Frobenius norm.</param>
    /// <param name="untilWorse">Stop at the first pass that is worse than the one before.</param>
    /// <returns>In the caller's dispose scope, with the error of every pass.</returns>
    public static (Tensor Left, Tensor Right, IReadOnlyList<double> Errors) FactorsFirst(
        Tensor weight, Func<Tensor, Tensor> quantize, Factoring factor, int passes, Func<Tensor, double>? measure = null, bool untilWorse = false)
    {
        using var scope = NewDisposeScope();
        var errors = new List<double>();
        var target = weight;
        (Tensor Left, Tensor Right)? best = null;
        for (var pass = 0; pass < passes; pass++)
        {
            var (left, right) = factor(target);
            var codes = quantize(Rest(weight, left, right, scale: 1));
            target = weight - codes;
            var error = (measure ?? Norm)(Rest(target, left, right, scale: 1));
            if (errors.Count == 0 || error < errors.Min())
            {
                best = (left, right);
            }
            else if (untilWorse)
            {
                errors.Add(error);
                break;
            }

            errors.Add(error);
        }

        return (best!.Value.Left.MoveToOuterDisposeScope(), best.Value.Right.MoveToOuterDisposeScope(), errors);
    }

    /// <summary>Q of W first, then the factors of what it leaves, so many times: Q follows from the factors before the last.</summary>
    /// <returns>In the caller's dispose scope: the factors, and those that Q was made without; null: none.</returns>
    /// <inheritdoc cref="FactorsFirst"/>
    public static (Tensor Left, Tensor Right, (Tensor Left, Tensor Right)? Removed, IReadOnlyList<double> Errors) CodesFirst(
        Tensor weight, Func<Tensor, Tensor> quantize, Factoring factor, int passes)
    {
        using var scope = NewDisposeScope();
        var errors = new List<double>();
        (Tensor Left, Tensor Right)? last = null;
        ((Tensor Left, Tensor Right) Factors, (Tensor Left, Tensor Right)? Removed)? best = null;
        for (var pass = 0; pass < passes; pass++)
        {
            var left = weight - quantize(last is { } before ? Rest(weight, before.Left, before.Right, scale: 1) : weight);
            var factors = factor(left);
            var error = Norm(Rest(left, factors.Left, factors.Right, scale: 1));
            if (errors.Count == 0 || error < errors.Min())
            {
                best = (factors, last);
            }

            errors.Add(error);
            last = factors;
        }

        var (chosen, removed) = best!.Value;
        return (
            chosen.Left.MoveToOuterDisposeScope(), chosen.Right.MoveToOuterDisposeScope(),
            removed is { } r ? (r.Left.MoveToOuterDisposeScope(), r.Right.MoveToOuterDisposeScope()) : null, errors);
    }

    /// <summary>W − s·L·R: the product in float64, rounded once to float32.</summary>
    /// <returns>In the caller's dispose scope.</returns>
    public static Tensor Rest(Tensor weight, Tensor left, Tensor right, double scale)
    {
        using var scope = NewDisposeScope();
        var product = left.to_type(ScalarType.Float64).mm(right.to_type(ScalarType.Float64));
        return weight.to_type(ScalarType.Float64).sub(product.mul_(scale)).to_type(ScalarType.Float32).MoveToOuterDisposeScope();
    }

    /// <summary>The values of a matrix's codes.</summary>
    /// <returns>Float32, in the caller's dispose scope.</returns>
    public static Tensor RoundTrip(QuantizationConfig quantization, Tensor matrix, string name)
    {
        using var codes = quantization.Quantize(matrix, name);
        return codes.Dequantize(ScalarType.Float32);
    }

    private static double Norm(Tensor matrix) => matrix.norm().item<float>();
}
