using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Numbers as distributions over a fixed support, so that a number is learnt by cross-entropy.</summary>
/// <remarks>
/// Farebrother et al. 2024, Stop Regressing, arXiv:2403.03950. Values outside the support are moved to its nearer end first. Targets are computed in
/// float64: the differences of erf that HL-Gauss takes are small.
/// </remarks>
public static class ValueTargets
{
    /// <summary>Where the bins of HL-Gauss stand: their centres.</summary>
    /// <returns>[bins], float32, in the caller's dispose scope.</returns>
    public static Tensor Centres(int bins, double min, double max) =>
        tensor(Enumerable.Range(0, bins).Select(bin => (float)(min + ((bin + 0.5) * (max - min) / bins))).ToArray());

    /// <summary>Where the atoms of two-hot and C51 stand: evenly, the first and the last at the ends.</summary>
    /// <returns>[count], float32, in the caller's dispose scope.</returns>
    public static Tensor Atoms(int count, double min, double max) =>
        tensor(Enumerable.Range(0, count).Select(atom => (float)(min + (atom * (max - min) / (count - 1)))).ToArray());

    /// <summary>HL-Gauss: the mass that a normal distribution around the value, cut to [min, max], has in each bin (section 3.1).</summary>
    /// <param name="values">[N].</param>
    /// <param name="sigmaRatio">Deviation over the width of a bin; the paper's 0.75 spreads a value over about six bins.</param>
    /// <returns>[N, bins], float32, rows of sum 1, in the caller's dispose scope.</returns>
    public static Tensor HlGauss(Tensor values, int bins, double min, double max, double sigmaRatio)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var width = (max - min) / bins;
        var edges = linspace(min, max, bins + 1, dtype: ScalarType.Float64, device: values.device);
        var around = values.to_type(ScalarType.Float64).clamp(min, max).unsqueeze(1);
        var below = special.erf((edges - around) / (Math.Sqrt(2) * sigmaRatio * width));   // [N, bins + 1]
        var mass = below.narrow(1, 1, bins) - below.narrow(1, 0, bins);
        var all = below.narrow(1, bins, 1) - below.narrow(1, 0, 1);
        return (mass / all).to_type(ScalarType.Float32).MoveToOuterDisposeScope();
    }

    /// <summary>Two-hot: the value divided between its neighbouring atoms, so that the mean is the value (section 3.1).</summary>
    /// <param name="values">[N].</param>
    /// <returns>[N, atoms], float32, in the caller's dispose scope.</returns>
    public static Tensor TwoHot(Tensor values, int atoms, double min, double max)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var place = values.to_type(ScalarType.Float64).clamp(min, max).sub(min) * ((atoms - 1) / (max - min));
        var lower = place.floor().clamp(0, atoms - 2);   // the last atom itself is the upper neighbour of the one before it
        var share = (place - lower).unsqueeze(1);
        var index = lower.to_type(ScalarType.Int64).unsqueeze(1);
        var target = zeros(values.shape[0], atoms, dtype: ScalarType.Float64, device: values.device)
            .scatter(1, index, 1 - share).scatter(1, index + 1, share);
        return target.to_type(ScalarType.Float32).MoveToOuterDisposeScope();
    }

    /// <summary>C51: a distribution over any places, projected onto the atoms; every place gives its mass to its neighbours, by nearness.</summary>
    /// <remarks>Bellemare, Dabney and Munos 2017, arXiv:1707.06887, algorithm 1. A place that is an atom keeps all of its mass there.</remarks>
    /// <param name="places">[N, K], such as r + γ·z of the atoms z of a next state; one place of mass 1 is a certain value.</param>
    /// <param name="masses">[N, K], rows of sum 1.</param>
    /// <returns>[N, atoms], float32, in the caller's dispose scope.</returns>
    public static Tensor Project(Tensor places, Tensor masses, int atoms, double min, double max)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var mass = masses.to_type(ScalarType.Float64);
        var place = places.to_type(ScalarType.Float64).clamp(min, max).sub(min) * ((atoms - 1) / (max - min));   // b
        var (lower, upper) = (place.floor().clamp(0, atoms - 1), place.ceil().clamp(0, atoms - 1));
        var share = place - lower;   // 0 where b is whole: the lower neighbour, which then is the atom itself, keeps all
        var projected = zeros(places.shape[0], atoms, dtype: ScalarType.Float64, device: places.device)
            .scatter_add(1, lower.to_type(ScalarType.Int64), mass * (1 - share))
            .scatter_add(1, upper.to_type(ScalarType.Int64), mass * share);
        return projected.to_type(ScalarType.Float32).MoveToOuterDisposeScope();
    }

    /// <summary>−Σ p·log softmax(logits) of each row; never the logarithm of a target, which may be 0.</summary>
    /// <param name="logits">[N, bins], float32.</param>
    /// <param name="targets">[N, bins], float32, without gradient.</param>
    /// <returns>[N], nats, in the caller's dispose scope.</returns>
    public static Tensor CrossEntropy(Tensor logits, Tensor targets)
    {
        using var scope = NewDisposeScope();
        return (targets * nn.functional.log_softmax(logits, dim: -1)).sum(dim: -1).neg().MoveToOuterDisposeScope();
    }

    /// <summary>The value that a distribution stands for: its mean.</summary>
    /// <param name="logits">[.., bins].</param>
    /// <param name="support">[bins]: <see cref="Centres"/> or <see cref="Atoms"/>.</param>
    /// <returns>[..], in the caller's dispose scope.</returns>
    public static Tensor Expectation(Tensor logits, Tensor support)
    {
        using var scope = NewDisposeScope();
        return nn.functional.softmax(logits, dim: -1).matmul(support).MoveToOuterDisposeScope();
    }
}
