using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Throughput;

namespace TrainingService.Training.Tests.Throughput;

public sealed class StepOperationsTests
{
    /// <summary>
    /// Width 512, 8 layers, 8 heads, MLP 1376, vocabulary 32000, rank 16, 256 tokens. Linear: 8·(4·512² + 3·512·1376) + 32000·512 = 41 680 896
    /// numbers, 4 each = 166 723 584. Factors: 8·16·(4·1024 + 3·1888) = 1 249 280, 6 each = 7 495 680. Attention: 6·256·512·8 = 6 291 456.
    /// </summary>
    [Fact]
    public void Frozen_weights_cost_two_products_and_factors_three() =>
        Assert.Equal(166_723_584 + 7_495_680 + 6_291_456, StepOperations.PerToken(Spec(new LoraConfig { Rank = 16 }), Model(tied: false), 256));

    /// <summary>The head multiplies whether its weight is its own or the embedding's.</summary>
    [Fact]
    public void A_tied_head_costs_what_another_does() => Assert.Equal(
        StepOperations.PerToken(Spec(new LoraConfig { Rank = 16 }), Model(tied: false), 256),
        StepOperations.PerToken(Spec(new LoraConfig { Rank = 16 }), Model(tied: true), 256));

    /// <summary>All linear weights have a gradient of their own: 6 · 41 680 896, and the attention. The embedding is looked up, not multiplied.</summary>
    [Fact]
    public void Weights_that_train_cost_three_products() =>
        Assert.Equal(6.0 * 41_680_896 + 6_291_456, StepOperations.PerToken(Spec(new FullConfig()), Model(tied: false), 256));

    /// <summary>One product a weight, 2 · 41 680 896, and a third of the attention, for each pass; none where the reference is computed before.</summary>
    [Fact]
    public void A_pass_of_the_reference_model_costs_one_product() => Assert.Equal(
        [(2.0 * 41_680_896) + (6_291_456 / 3), 0, 3 * ((2.0 * 41_680_896) + (6_291_456 / 3))],
        new ObjectiveConfig[] { new DpoConfig(), new DpoConfig { PrecomputeReference = true }, new KtoConfig() }.Select(objective =>
            StepOperations.PerToken(Spec(new LoraConfig()) with { Objective = objective }, Model(tied: false), 256)
            - StepOperations.PerToken(Spec(new LoraConfig()), Model(tied: false), 256)));

    [Fact]
    public void The_median_is_the_lower_of_two_middles()
    {
        Assert.Equal(2, Median.Of([9, 1, 2]));
        Assert.Equal(2, Median.Of([9, 1, 3, 2]));
    }

    private static TrainingSpec Spec(AdapterConfig adapter) => new() { Model = "m", Data = new() { Train = "t" }, Adapter = adapter };

    private static ModelConfig Model(bool tied) => ModelConfig.Parse($$"""
        {"architectures": ["LlamaForCausalLM"], "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1376,
         "vocab_size": 32000, "tie_word_embeddings": {{(tied ? "true" : "false")}}}
        """);
}
