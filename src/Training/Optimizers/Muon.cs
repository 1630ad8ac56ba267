using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>How the learning rate of a matrix depends on its shape [rows, columns].</summary>
public enum MuonRate
{
    /// <summary>η·√max(1, rows/columns): the rate is the spectral norm of an update. Keller Jordan's.</summary>
    Original,

    /// <summary>0.2·η·√max(rows, columns): an update has the root mean square of one of AdamW. Liu et al. 2025, arXiv:2502.16982.</summary>
    MatchRmsAdamw,
}

/// <summary>Momentum whose matrices are replaced by the nearest orthogonal ones; AdamW for everything that is not a hidden matrix.</summary>
/// <remarks>Jordan et al. 2024, as <c>torch.optim.Muon</c> computes it.</remarks>
[Method(
    "Muon",
    "Momentum, orthogonalised: the update of a hidden matrix has all its singular values near one. Vectors, embeddings and head get AdamW.",
    "Pretraining and full fine-tuning, in fewer steps than AdamW and with half of its state for matrices; each step costs some products more.",
    Paper = "Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks",
    Arxiv = "2502.16982")]
public sealed record MuonConfig : OptimizerConfig
{
    [Description("Share of the momentum that is kept at each step."), Range(0, 0.9999)]
    public double Momentum { get; init; } = 0.95;

    [Description("Look ahead: step along gradient and momentum, and not along the momentum alone.")]
    public bool Nesterov { get; init; } = true;

    [Description("Steps of the Newton-Schulz iteration that orthogonalises."), Range(1, 99)]
    public int NsSteps { get; init; } = 5;

    [Description("How the rate depends on the shape of a matrix: match_rms_adamw, so that rates of AdamW suit and hold for the other tensors too, or original.")]
    public MuonRate AdjustLrFn { get; init; } = MuonRate.MatchRmsAdamw;

    [Description("AdamW's decay of the first and of the second moment, for all but hidden matrices."), Length(2, 2), ItemRange(0, 1, MaximumIsExclusive = true)]
    public IReadOnlyList<double> Betas { get; init; } = [0.9, 0.95];

    [Description("AdamW's ε."), Range(1e-16, 1)]
    public double Eps { get; init; } = 1e-10;

    public override long StateBytes(IReadOnlyList<FlatGroup> groups) =>
        groups.Sum(group => group.Length * sizeof(float) * (Muon.IsHiddenMatrix(group) ? 1 : 2));

    public override Optimizer Create(FlatParameters parameters) => new Muon(
        parameters, Momentum, Nesterov, NsSteps, AdjustLrFn, new(Betas[0], Betas[1], Eps), WeightDecay, LoraPlusRatio);
}

/// <summary>b ← μ·b + (1-μ)·g; u ← NS((1-μ)·g + μ·b); w ← w·(1 - η·λ) - η·factor(shape)·u.</summary>
public sealed class Muon : Optimizer
{
    private readonly double _momentum;
    private readonly bool _nesterov;
    private readonly int _steps;
    private readonly MuonRate _rate;
    private readonly AdamWSettings _adamW;
    private readonly double _weightDecay;
    private readonly (Tensor First, Tensor? Second)[] _moments;

    internal Muon(
        FlatParameters parameters, double momentum, bool nesterov, int steps, MuonRate rate, AdamWSettings adamW, double weightDecay,
        double? loraPlusRatio = null)
        : base(parameters, loraPlusRatio, kindOf: group => IsHiddenMatrix(group) ? group : null)
    {
        (_momentum, _nesterov, _steps, _rate, _adamW, _weightDecay) = (momentum, nesterov, steps, rate, adamW, weightDecay);
        _moments = [.. Stretches.Select(stretch => IsHiddenMatrix(stretch.Groups[0])
            ? (Remember("momentum_buffer", stretch, [stretch.Length]), (Tensor?)null)
            : (Remember("exp_avg", stretch, [stretch.Length]), Remember("exp_avg_sq", stretch, [stretch.Length])))];
    }

    /// <summary>Whether the group is orthogonalised.</summary>
    internal static bool IsHiddenMatrix(FlatGroup group) =>
        group.Shape.Count == 2 && group.Role is TensorRole.Weight or TensorRole.OutputFactor;

    /// <summary>Factor of the learning rate of matrices of a shape.</summary>
    internal static double Factor(MuonRate rate, long rows, long columns) => rate switch
    {
        MuonRate.Original => Math.Sqrt(Math.Max(1, rows / (double)columns)),
        MuonRate.MatchRmsAdamw => 0.2 * Math.Sqrt(Math.Max(rows, columns)),
    };

    /// <summary>Brings the singular values of matrices near one, by the quintic Newton-Schulz iteration.</summary>
    /// <param name="matrices">[B, rows, columns].</param>
    /// <returns>As <paramref name="matrices"/>, in the caller's dispose scope. The singular values lie between about 0.7 and 1.2.</returns>
    public static Tensor Orthogonalise(Tensor matrices, int steps)
    {
        const float A = 3.4445f, B = -4.7750f, C = 2.0315f;
        using var scope = NewDisposeScope();
        var isTall = matrices.shape[1] > matrices.shape[2];
        var x = isTall ? matrices.transpose(1, 2) : matrices;   // the smaller side first: the products below are square in it
        x = x.div(x.flatten(1).norm(1, false, 2).clamp_min_(1e-7).view(-1, 1, 1));
        for (var step = 0; step < steps; step++)
        {
            using var stepScope = NewDisposeScope();
            var gram = x.bmm(x.transpose(1, 2));
            var polynomial = gram.baddbmm(gram, gram, beta: B, alpha: C);
            x = polynomial.baddbmm(x, x, beta: A).MoveToOuterDisposeScope();
        }

        return (isTall ? x.transpose(1, 2) : x).MoveToOuterDisposeScope();
    }

    internal override void Update(Stretch stretch, double learningRate)
    {
        var decay = stretch.Decays ? _weightDecay : 0;
        var (first, second) = _moments[stretch.Index];
        if (second is not null)
        {
            stretch.ForEachChunk(chunk => AdamW.Update(
                chunk.Values, chunk.Gradients, chunk.Of(first), chunk.Of(second), Steps, learningRate, _adamW, decay));
            return;
        }

        var rate = learningRate * Factor(_rate, stretch.Groups[0].Shape[0], stretch.Groups[0].Shape[1]);
        stretch.ForEachBatch((start, count, values, gradients) =>
        {
            var momentum = stretch.Stack(first, start, count).lerp_(gradients, 1 - _momentum);
            var direction = _nesterov ? gradients.lerp(momentum, _momentum) : momentum;
            var update = Orthogonalise(direction.to_type(stretch.Part.Values.dtype), _steps);   // bfloat16 with bfloat16 weights, as in PyTorch
            if (decay != 0)
            {
                values.mul_(1 - learningRate * decay);
            }

            values.add_(update, -rate);
        });
    }
}
