using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace TrainingService.Training.Optimizers;

/// <summary>Stochastic gradient descent, with momentum if asked for.</summary>
public sealed record SgdConfig : OptimizerConfig
{
    [Description("Share of the last update that is added to the next."), Range(0, 0.9999)]
    public double Momentum { get; init; }
}
