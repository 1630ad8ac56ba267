using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>Supervised fine-tuning: cross-entropy of the answers (completions, assistant turns) given what stands before them.</summary>
[Method(
    "Supervised fine-tuning",
    "Cross-entropy of the answers (completions, assistant turns) given what stands before them.",
    "Teaching a model to answer as the examples do: instructions, chat, extraction, translation.",
    Paper = "Ouyang et al. 2022, Training language models to follow instructions with human feedback, section 3.5",
    Arxiv = "2203.02155")]
public sealed record SftConfig : ObjectiveConfig
{
    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device) => NextToken.Measure(model, batch, device);
}
