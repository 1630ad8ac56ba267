using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Stochastic gradient descent, with momentum if asked for.</summary>
[Method(
    "Stochastic gradient descent",
    "Steps along the negative gradient, with momentum if asked for.",
    "Comparisons and the least memory: no state without momentum; wants a carefully chosen, larger learning rate.",
    Paper = "Robbins and Monro 1951, A Stochastic Approximation Method")]
public sealed record SgdConfig : OptimizerConfig
{
    [Description("Share of the last update that is added to the next."), Range(0, 0.9999)]
    public double Momentum { get; init; }

    public override int StatePerWeight() => Momentum == 0 ? 0 : 1;

    public override Optimizer Create(FlatParameters parameters) => new Sgd(parameters, Momentum, WeightDecay);
}

/// <summary>PyTorch's SGD update: g ← g + λ·w; b ← μ·b + g; w ← w - η·b. The decay is part of the gradient, as there.</summary>
public sealed class Sgd : Optimizer
{
    private readonly double _momentum;
    private readonly double _weightDecay;
    private readonly Tensor[]? _buffers;

    public Sgd(FlatParameters parameters, double momentum, double weightDecay)
        : base(parameters)
    {
        (_momentum, _weightDecay) = (momentum, weightDecay);
        _buffers = momentum == 0 ? null : Remember("momentum_buffer");
    }

    protected override void Update(int part, Tensor values, Tensor gradients, double learningRate)
    {
        var update = _weightDecay == 0 ? gradients : gradients.add(values, _weightDecay);
        if (_buffers is not null)
        {
            update = _buffers[part].mul_(_momentum).add_(update);   // PyTorch's first buffer is the gradient itself: 0·μ + g
        }

        values.add_(update, -learningRate);
    }
}
