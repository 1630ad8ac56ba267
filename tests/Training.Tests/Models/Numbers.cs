using TorchSharp;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Models;

/// <summary>How tests compare.</summary>
internal static class Numbers
{
    /// <summary>‖seen - wanted‖ / ‖wanted‖, in float64; shapes must agree.</summary>
    public static double RelativeError(Tensor seen, Tensor wanted)
    {
        Assert.Equal(wanted.shape, seen.shape);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var (a, b) = (seen.to(ScalarType.Float64), wanted.to(ScalarType.Float64));
        var (difference, scale) = ((a - b).norm().item<double>(), b.norm().item<double>());
        return scale == 0 ? difference : difference / scale;
    }

    /// <summary>Mean cross-entropy of the next token, over labels that are not -100. Logits [B, T, V], labels [B, T].</summary>
    public static Tensor MeanLoss(Tensor logits, Tensor labels)
    {
        var length = logits.shape[1] - 1;
        return nn.functional.cross_entropy(
            logits.narrow(1, 0, length).flatten(0, 1), labels.narrow(1, 1, length).flatten(), ignore_index: -100);
    }
}
