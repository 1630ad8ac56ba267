using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>LoRA that carries a message: the signs of ΔW along random directions, which only the holder of the key can name.</summary>
/// <remarks>
/// After Fei et al. 2024, arXiv:2410.20202, which reads the message from the images of a diffusion model's decoder by a network; a language
/// model has no such output, so it is read from the weights, as Uchida et al. 2017, arXiv:1701.04082, §3 do.
/// </remarks>
[Method(
    "LoRA watermark",
    "LoRA whose update carries a secret message of some bits, read back with a key.",
    "Adapters that are passed on, to show later whose they are: the message is in the weights and survives rounding and merging.",
    Paper = "Fei et al. 2024, Robust Watermarking for Latent Diffusion Models via LoRA",
    Arxiv = "2410.20202",
    Parameters = "r·(in + out) per layer")]
public sealed record WatermarkConfig : LowRankConfig
{
    [Description("Secret from which the directions follow; it is needed to read the message and not saved with the adapter. Choose your own."),
        Range(0, int.MaxValue), TrainingOnly]
    public int Key { get; init; }

    [Description("The bits to embed, a text of 0 and 1; null: 48 bits that follow from the key. Not saved with the adapter."), TrainingOnly]
    public string? Message { get; init; }

    [Description("Weight of the message in the loss."), Range(0, 1000), TrainingOnly]
    public double Weight { get; init; } = 0.1;

    [Description("How many units of the loss's exponent one unit of ΔW along a direction makes: lower values write larger marks."), Range(1e-3, 1e6), TrainingOnly]
    public double Gain { get; init; } = 100;

    /// <inheritdoc/>
    /// <remarks>A plain LoRA, but for <see cref="AdapterConfig.Disclosed"/>.</remarks>
    internal override LayerAdapterConfig Published => Plain(times: 1);

    internal override AdapterConfig Disclosed => this with { Key = 0, Message = null };

    internal override AdaptedLinear Wrap(LayerParts parts) => new LoraLinear(parts, Select(parts.Shape).Scale, Dropout);

    internal override LayerAdapter Build(CausalLm model, LayerPlan plan) => new WatermarkAdapter(model, this, plan);

    public override IEnumerable<ValidationResult> Validate(ValidationContext validationContext) =>
        Message is null || (Message.Length is > 0 and <= WatermarkReader.MostBits && Message.All(bit => bit is '0' or '1'))
            ? base.Validate(validationContext)
            : base.Validate(validationContext).Append(new(
                $"is no text of 1 to {WatermarkReader.MostBits} bits; write it with the characters 0 and 1 alone.", [nameof(Message)]));
}

/// <summary>Adds λ·BCE(σ(g·p), message) to the loss, with p the projections of ΔW on the key's directions.</summary>
internal sealed class WatermarkAdapter(CausalLm model, WatermarkConfig config, LayerPlan plan) : LayerAdapter(model, config, plan)
{
    public override Tensor? Regulariser()
    {
        if (config.Weight == 0)
        {
            return null;
        }

        using var scope = NewDisposeScope();
        var message = config.Message ?? WatermarkReader.MessageOf(config.Key);
        var projections = Layers.Select(layer => WatermarkReader.Project(layer.Factors!, layer.Shape.Name, config.Key, message.Length))
            .Aggregate((sum, next) => sum + next);
        var bits = tensor(message.Select(bit => bit - '0').ToArray(), dtype: ScalarType.Float32, device: projections.device);
        return nn.functional.binary_cross_entropy_with_logits(projections.mul(config.Gain), bits).mul(config.Weight).MoveToOuterDisposeScope();
    }
}
