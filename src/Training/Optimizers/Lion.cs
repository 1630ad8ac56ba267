using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using static TorchSharp.torch;

namespace TrainingService.Training.Optimizers;

/// <summary>Steps of one size for every weight, in the direction of the sign of an interpolated momentum.</summary>
/// <remarks>Chen et al. 2023, arXiv:2302.06675, algorithm 2.</remarks>
[Method(
    "Lion",
    "Every weight moves by the learning rate, against the sign of an average of gradient and momentum.",
    "Half of AdamW's state; wants a rate three to ten times lower than AdamW's and a weight decay as much higher, and likes large batches.",
    Paper = "Chen et al. 2023, Symbolic Discovery of Optimization Algorithms",
    Arxiv = "2302.06675")]
public sealed record LionConfig : OptimizerConfig
{
    public LionConfig() => LearningRate = 1e-4;   // the authors'

    [Description("Share of the momentum in the direction of a step, and decay of the momentum, each from 0 up to, not including, 1."), Length(2, 2), ItemRange(0, 1, MaximumIsExclusive = true)]
    public IReadOnlyList<double> Betas { get; init; } = [0.9, 0.99];

    public override long StateBytes(IReadOnlyList<FlatGroup> groups) => groups.Sum(group => group.Length * sizeof(float));

    public override Optimizer Create(FlatParameters parameters) => new Lion(parameters, Betas[0], Betas[1], WeightDecay, LoraPlusRatio);
}

/// <summary>w ← w·(1 - η·λ) - η·sign(β₁·m + (1-β₁)·g); m ← β₂·m + (1-β₂)·g.</summary>
public sealed class Lion : Optimizer
{
    private readonly double _beta1;
    private readonly double _beta2;
    private readonly double _weightDecay;
    private readonly Tensor[] _momentum;

    public Lion(FlatParameters parameters, double beta1, double beta2, double weightDecay, double? loraPlusRatio = null)
        : base(parameters, loraPlusRatio)
    {
        (_beta1, _beta2, _weightDecay) = (beta1, beta2, weightDecay);
        _momentum = Remember("exp_avg");
    }

    internal override void Update(Stretch stretch, double learningRate) => stretch.ForEachChunk(chunk =>
    {
        var momentum = chunk.Of(_momentum[stretch.Index]);
        var direction = momentum.mul(_beta1).add_(chunk.Gradients, 1 - _beta1).sign_();
        if (stretch.Decays && _weightDecay != 0)
        {
            chunk.Values.mul_(1 - learningRate * _weightDecay);
        }

        chunk.Values.add_(direction, -learningRate);
        momentum.mul_(_beta2).add_(chunk.Gradients, 1 - _beta2);
    });
}
