using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace TrainingService.Training.Optimizers;

/// <summary>Adam with decoupled weight decay.</summary>
/// <remarks>Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.</remarks>
public sealed record AdamWConfig : OptimizerConfig
{
    [Description("Decay of the first and of the second moment, each from 0 up to, not including, 1."), Length(2, 2)]
    public IReadOnlyList<double> Betas { get; init; } = [0.9, 0.999];

    [Description("Added to the root of the second moment."), Range(1e-16, 1)]
    public double Eps { get; init; } = 1e-8;
}
