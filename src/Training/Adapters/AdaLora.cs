using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Adaptive low-rank adaptation: ΔW = α/r·B·diag(E)·A, of which the least important triplets are pruned while it trains.</summary>
/// <remarks>Zhang et al. 2023, arXiv:2303.10512; PEFT 0.20.0, <c>tuners/adalora</c>. E starts at zero, so training starts at the base model.</remarks>
[Method(
    "AdaLoRA",
    "LoRA in the form of a singular value decomposition: all layers share a budget of ranks, which is spent where it matters most.",
    "A tight budget over layers of unequal importance, with enough steps to measure it; untuned it is often below plain LoRA.",
    Paper = "Zhang et al. 2023, Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
    Arxiv = "2303.10512",
    Parameters = "r₀·(in + out + 1) per layer, r₀ = initial_rank; of these target_rank·(in + out + 1) on average at the end")]
[PeftType("ADALORA")]
[PeftConstant("init_lora_weights", "true")]
public sealed record AdaLoraConfig : LayerAdapterConfig, IValidatableObject
{
    /// <summary>Key of A, [R, in]: the right singular vectors.</summary>
    internal const string A = "lora_A";

    /// <summary>Key of E, [R, 1]: the singular values.</summary>
    internal const string E = "lora_E";

    /// <summary>Key of B, [out, R]: the left singular vectors.</summary>
    internal const string B = "lora_B";

    [Description("Rank of every layer at the start."), Range(1, 65_536), PeftName("init_r")]
    public int InitialRank { get; init; } = 12;

    [Description("Average rank of the layers at the end; the budget is this times the number of layers."), Range(1, 65_536), PeftName("target_r"), TrainingOnly]
    public int TargetRank { get; init; } = 8;

    [Description("Scale α; the update is multiplied by α/initial_rank, whatever was pruned."), Range(1e-3, 1e6), PeftName("lora_alpha")]
    public double Alpha { get; init; } = 32;

    [Description("Share of the inputs of A that is dropped in training."), Range(0, 0.99), PeftName("lora_dropout"), TrainingOnly]
    public double Dropout { get; init; }

    [Description("Optimizer steps at the start without pruning."), Range(0, int.MaxValue), PeftName("tinit"), TrainingOnly]
    public int WarmupSteps { get; init; }

    [Description("Optimizer steps at the end with the final ranks."), Range(0, int.MaxValue), PeftName("tfinal"), TrainingOnly]
    public int FinalSteps { get; init; }

    [Description("Optimizer steps from one pruning to the next."), Range(1, int.MaxValue), PeftName("deltaT"), TrainingOnly]
    public int Interval { get; init; } = 1;

    [Description("Decay of the average of importance."), Range(0.001, 0.999), TrainingOnly]
    public double Beta1 { get; init; } = 0.85;

    [Description("Decay of the average of its uncertainty."), Range(0.001, 0.999), TrainingOnly]
    public double Beta2 { get; init; } = 0.85;

    [Description("Weight of the term of the loss that keeps the rows of A and the columns of B orthonormal."), Range(0, 1000), PeftName("orth_reg_weight"), TrainingOnly]
    public double Orthogonality { get; init; } = 0.5;

    [Description("Optimizer steps in which the ranks fall, with warmup_steps and final_steps; null: those of the run."), Range(1, int.MaxValue), PeftName("total_step"), TrainingOnly]
    public int? TotalSteps { get; init; }

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) =>
        [new(A, [InitialRank, layer.In]), new(E, [InitialRank, 1]), new(B, [layer.Out, InitialRank])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new AdaLoraLinear(parts, AdaLoraLinear.ScaleOf(Alpha, InitialRank), Dropout);

    internal override LayerAdapter Build(CausalLm model, LayerPlan plan) => new AdaLoraAdapter(model, this, plan);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => RankChecks.Of(InitialRank, layers, "initial_rank");

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (TargetRank > InitialRank)
        {
            yield return new($"is {TargetRank}, above the initial_rank of {InitialRank}; ranks only fall, so choose a smaller one.", [nameof(TargetRank), nameof(InitialRank)]);
        }

        if (TotalSteps is { } steps && (long)WarmupSteps + FinalSteps >= steps)
        {
            yield return new($"is {steps}, which leaves no step for pruning between warmup_steps and final_steps; raise it or lower those.", [nameof(TotalSteps)]);
        }
    }

    /// <inheritdoc/>
    /// <remarks>PEFT's configuration is one of LoRA with more fields; it wants a number of steps also where nobody trains on.</remarks>
    internal override void ToPeft(JsonObject fields)
    {
        fields["total_step"] = TotalSteps ?? WarmupSteps + FinalSteps + 1;
        fields["bias"] = "none";
        fields["megatron_core"] = "megatron.core";
        fields["qalora_group_size"] = 16;
        fields["r"] = 8;
        foreach (var off in (string[])["ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_dora", "use_qalora", "use_rslora"])
        {
            fields[off] = false;
        }

        foreach (var empty in (string[])["alpha_pattern", "loftq_config"])
        {
            fields[empty] = new JsonObject();
        }

        foreach (var absent in (string[])
            ["alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "layer_replication", "lora_ga_config", "megatron_config",
             "monteclora_config", "rank_pattern", "target_parameters", "trainable_token_indices", "use_bdlora", "velora_config"])
        {
            fields[absent] = null;
        }
    }

    /// <inheritdoc/>
    /// <remarks>
    /// PEFT does not look at r. The steps of an ended run are not those of the next one. Its rank pattern says which triplets a file leaves
    /// out; the shapes of the tensors say how many.
    /// </remarks>
    internal override void FromPeft(JsonObject fields, JsonObject members)
    {
        foreach (var unread in (string[])["megatron_core", "qalora_group_size", "r", "rank_pattern", "total_step"])
        {
            fields.Remove(unread);
        }
    }
}

/// <summary>y = base(x) + s·((dropout(x)·(E∘A)ᵀ)·Bᵀ), with E beside the rows of A.</summary>
internal sealed class AdaLoraLinear(LayerParts parts, double scale, double dropout) : AdaptedLinear(parts)
{
    /// <summary>[R, in].</summary>
    public Parameter A => Own(AdaLoraConfig.A);

    /// <summary>[R, 1].</summary>
    public Parameter E => Own(AdaLoraConfig.E);

    /// <summary>[out, R].</summary>
    public Parameter B => Own(AdaLoraConfig.B);

    public override LowRankFactors? Factors => new(B, A * E, scale);

    /// <summary>α/(r + 10⁻⁵), as the authors' and PEFT's code have it.</summary>
    public static double ScaleOf(double alpha, double rank) => alpha / (rank + 1e-5);

    /// <summary>All triplets; a file may lack those that were pruned for good.</summary>
    public override IEnumerable<SavedTensor> Saved => [Short(AdaLoraConfig.A, A, 0), Short(AdaLoraConfig.E, E, 0), Short(AdaLoraConfig.B, B, 1)];

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        return B.mm(A * E).mul(scale).MoveToOuterDisposeScope();
    }

    public override void Initialise(AdapterStart start)
    {
        foreach (var factor in (Parameter[])[A, B])
        {
            factor.copy_(randn(factor.shape, dtype: ScalarType.Float32, device: CPU, generator: start.Random).mul(0.02));
        }
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var input = training && dropout > 0 ? nn.functional.dropout(x, dropout) : x;
        var thin = nn.functional.linear(input, (A * E).to(x.dtype));   // [.., R]
        return (BaseLayer.forward(x) + nn.functional.linear(thin, B.mul(scale).to(x.dtype))).MoveToOuterDisposeScope();
    }

    private static SavedTensor Short(string name, Parameter parameter, int axis) => SavedTensor.Of(name, parameter) with
    {
        ShortAxis = axis,
        Write = value =>
        {
            parameter.zero_();
            parameter.narrow(axis, 0, value.shape[axis]).copy_(value.to(parameter.dtype, parameter.device));
        },
    };
}
