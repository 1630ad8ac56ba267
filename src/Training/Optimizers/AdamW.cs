using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Adam with decoupled weight decay.</summary>
/// <remarks>Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2. The decay applies to every tensor that trains, as in PyTorch.</remarks>
[Method(
    "AdamW",
    "Adam with weight decay that is decoupled from the gradient.",
    "The default: robust to the scale of gradients; keeps two numbers of state per trained weight.",
    Paper = "Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization",
    Arxiv = "1711.05101")]
public sealed record AdamWConfig : OptimizerConfig
{
    [Description("Decay of the first and of the second moment, each from 0 up to, not including, 1."), Length(2, 2), ItemRange(0, 1, MaximumIsExclusive = true)]
    public IReadOnlyList<double> Betas { get; init; } = [0.9, 0.999];

    [Description("Added to the root of the second moment."), Range(1e-16, 1)]
    public double Eps { get; init; } = 1e-8;

    public override int StatePerWeight() => 2;

    public override Optimizer Create(FlatParameters parameters) => new AdamW(parameters, Betas[0], Betas[1], Eps, WeightDecay);
}

/// <summary>PyTorch's AdamW update: w ← w·(1 - η·λ) - η/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε).</summary>
public sealed class AdamW : Optimizer
{
    private readonly double _beta1;
    private readonly double _beta2;
    private readonly double _eps;
    private readonly double _weightDecay;
    private readonly Tensor[] _firstMoments;
    private readonly Tensor[] _secondMoments;

    public AdamW(FlatParameters parameters, double beta1, double beta2, double eps, double weightDecay)
        : base(parameters)
    {
        (_beta1, _beta2, _eps, _weightDecay) = (beta1, beta2, eps, weightDecay);
        _firstMoments = Remember("exp_avg");
        _secondMoments = Remember("exp_avg_sq");
    }

    protected override void Update(int part, Tensor values, Tensor gradients, double learningRate)
    {
        var (m, v) = (_firstMoments[part], _secondMoments[part]);
        if (_weightDecay != 0)
        {
            values.mul_(1 - learningRate * _weightDecay);
        }

        m.mul_(_beta1).add_(gradients, 1 - _beta1);
        v.mul_(_beta2).addcmul_(gradients, gradients, 1 - _beta2);
        var root = v.sqrt().div_(Math.Sqrt(1 - Math.Pow(_beta2, Steps))).add_(_eps);
        values.addcdiv_(m, root, -learningRate / (1 - Math.Pow(_beta1, Steps)));
    }
}
