using System.ComponentModel.DataAnnotations;

namespace TrainingService.Training.Adapters;

/// <summary>Relatives of LoRA whose factors start with a part of W, which the frozen weight loses: W_res = W − s·B₀·A₀.</summary>
/// <remarks>
/// What is saved is a plain LoRA of twice the rank for the unchanged base, A' = [A; A₀] and B' = [B, −B₀], as PEFT's
/// <c>path_initial_model_for_weight_conversion</c> makes it: s·B'·A' = s·(B·A − B₀·A₀). The start can be read back out of it to the bit.
/// </remarks>
public abstract record ResidualConfig : LowRankConfig
{
    protected ResidualConfig()
    {
        Alpha = Rank;   // s = 1: the factors are parts of W as they are
    }

    internal override LayerAdapterConfig Published => Plain(times: 2);

    internal override string? RefusesQuantization =>
        "the factors start with a part of the weights in full precision, and quantization holds those in codes; leave quantization out, or use adapter lora.";

    public override IEnumerable<ValidationResult> Validate(ValidationContext validationContext) => Dropout == 0
        ? base.Validate(validationContext)
        : base.Validate(validationContext).Append(new($"is {Dropout}, and a part of W would be dropped with the factors; set it to 0.", [nameof(Dropout)]));
}
