using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Language modelling: cross-entropy of every token given the tokens before it.</summary>
[Method(
    "Language modelling",
    "Cross-entropy of every token given the tokens before it.",
    "Training from scratch, and continued pretraining on plain text of a new domain or language.",
    Paper = "Radford et al. 2018, Improving Language Understanding by Generative Pre-Training, equation 1")]
public sealed record PretrainingConfig : ObjectiveConfig
{
    internal override RowUse Use => RowUse.Text;

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device) => NextToken.Measure(model, batch, device);
}
