using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>Full fine-tuning: every weight of the model moves.</summary>
/// <remarks>The weights train in place, in the model's number format.</remarks>
[Method(
    "Full fine-tuning",
    "Every weight of the model moves.",
    "Small models, pretraining, and tasks far from what the base model knows; needs memory for gradients and optimizer state of every weight.",
    Parameters = "every weight of the model")]
public sealed record FullConfig : AdapterConfig
{
    protected override Adapter Create(CausalLm model, int seed, Calibration? calibration, string? restoring)
    {
        var adapter = new FullAdapter(model);
        if (From is null)
        {
            return adapter;
        }

        try
        {
            adapter.Load(From);
            return adapter;
        }
        catch (TrainingException)
        {
            adapter.Dispose();
            throw;
        }
    }

    internal override string? RefusesQuantization =>
        "it holds weights in codes, which do not train, and adapter full trains every weight; use adapter lora, or leave quantization out.";

    public override IReadOnlyList<TrainedShape> Trained(ModelConfig model) => [.. model.Weights.Select(TrainedShape.InPlace)];
}
