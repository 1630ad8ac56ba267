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

    public override long StateBytes(IReadOnlyList<FlatGroup> groups) =>
        Momentum == 0 ? 0 : groups.Sum(group => group.Length * sizeof(float));

    public override Optimizer Create(FlatParameters parameters) => new Sgd(parameters, Momentum, WeightDecay, LoraPlusRatio);
}

/// <summary>PyTorch's SGD update: g ← g + λ·w; b ← μ·b + g; w ← w - η·b. The decay is part of the gradient, as there.</summary>
public sealed class Sgd : Optimizer
{
    private readonly double _momentum;
    private readonly double _weightDecay;
    private readonly Tensor[]? _buffers;

    public Sgd(FlatParameters parameters, double momentum, double weightDecay, double? loraPlusRatio = null)
        : base(parameters, loraPlusRatio)
    {
        (_momentum, _weightDecay) = (momentum, weightDecay);
        _buffers = momentum == 0 ? null : Remember("momentum_buffer");
    }

    internal override void Update(Stretch stretch, double learningRate) => stretch.ForEachChunk(chunk =>
    {
        var update = stretch.Decays && _weightDecay != 0 ? chunk.Gradients.add(chunk.Values, _weightDecay) : chunk.Gradients;
        if (_buffers is not null)
        {
            update = chunk.Of(_buffers[stretch.Index]).mul_(_momentum).add_(update);   // PyTorch's first buffer is the gradient itself: 0·μ + g
        }

        chunk.Values.add_(update, -learningRate);
    });
}
