using System.Text.Json;
using TrainingService.Training.Models;
using TrainingService.Training.Throughput;

namespace TrainingService.Training.Tests.Spec;

public class EstimateTests
{
    /// <summary>28 layers · 32 · ((3072 + 3072) + (3072 + 1024)): the count that PEFT reports for this recipe.</summary>
    [Fact]
    public void LoRA_of_rank_32_on_q_and_v_of_Llama_3_2_3B()
    {
        var estimate = Estimate.For(
            SpecModels.Spec("""  "adapter": { "type": "lora", "rank": 32, "target_modules": ["q_proj", "v_proj"] } """), SpecModels.Llama32Of3B);

        Assert.Equal(9_175_040, estimate.TrainableParameters);
        Assert.Equal(3_212_749_824 + 9_175_040, estimate.TotalParameters);
        Assert.Equal(9_175_040 * 4, estimate.ArtifactBytes);
    }

    /// <summary>512·64 + 5·(64·64·2 + 32·64·2 + 172·64·3 + 2·64) + 64; a tied head counts once.</summary>
    [Fact]
    public void Full_fine_tuning_trains_every_weight_once()
    {
        var estimate = Estimate.For(SpecModels.Spec("""  "adapter": { "type": "full" } """), SpecModels.Stories260K);

        Assert.Equal(260_032, estimate.TrainableParameters);
        Assert.Equal(260_032, estimate.TotalParameters);
        Assert.Equal(1, estimate.TrainableShare);
    }

    /// <summary>5 · 16 · (2·(64 + 64) + 2·(64 + 32) + 3·(64 + 172)).</summary>
    [Fact]
    public void LoRA_of_rank_16_on_all_linear_layers_of_stories260K() => Assert.Equal(
        92_480, Estimate.For(SpecModels.Spec("""  "adapter": { "type": "lora", "rank": 16 } """), SpecModels.Stories260K).TrainableParameters);

    [Theory]
    [InlineData("", 2 * 4 * 16)]   // q_proj alone: 2 layers · 4 · (8 + 8)
    [InlineData(""", "bias": "lora_only" """, 2 * (4 * 16 + 8))]                              // and its biases
    [InlineData(""", "bias": "all" """, 2 * (4 * 16 + 8 + 4 + 4))]                            // and those of k_proj and v_proj
    [InlineData(""", "modules_to_save": ["lm_head"] """, 2 * 4 * 16 + 32 * 8)]
    [InlineData(""", "modules_to_save": ["k_proj"], "bias": "all" """, 2 * (4 * 16 + 8 + 4 * 8 + 4 + 4))]   // k_proj with its bias, once
    [InlineData(""", "rank_pattern": { "layers.1.*": 2 } """, 4 * 16 + 2 * 16)]
    [InlineData(""", "exclude_modules": ["model.layers.0.self_attn.q_proj"] """, 4 * 16)]
    public void Patterns_biases_and_saved_modules_count(string members, long expected)
    {
        var rank4 = $$"""  "adapter": { "type": "lora", "rank": 4, "target_modules": ["q_proj"]{{members}} } """;

        Assert.Equal(expected, Estimate.For(SpecModels.Spec(rank4), SpecModels.Biased).TrainableParameters);
    }

    /// <summary>
    /// 28 layers hold 100,663,296 numbers each in linear layers, in 4.127 bits; embedding (tied) and norms are 394,177,536 in 16, and so is
    /// the rest of the run.
    /// </summary>
    [Fact]
    public void A_quantised_base_counts_its_codes_and_scales()
    {
        var estimate = Estimate.For(
            SpecModels.Spec("""  "quantization": { "type": "nf4" }, "precision": "bfloat16" """), SpecModels.Llama32Of3B);

        Assert.InRange(estimate.Memory.WeightsBytes, (2_818_572_288 * 4.127 / 8) + (394_177_536 * 2.0) - 1e6, (2_818_572_288 * 4.127 / 8) + (394_177_536 * 2.0) + 1e6);
    }

    [Fact]
    public void The_count_is_the_one_that_PEFT_reports()
    {
        using var golden = JsonDocument.Parse(File.ReadAllText(SharedData.Path("golden", "peft", "lora", "golden.json")));
        var model = ModelConfig.Parse(File.ReadAllText(SharedData.Path("golden", "models", "llama_untied", "config.json")));

        var estimate = Estimate.For(SpecModels.Spec("""  "adapter": { "type": "lora", "rank": 4 } """), model);

        Assert.Equal(golden.RootElement.GetProperty("trainable_parameters").GetInt64(), estimate.TrainableParameters);
    }

    /// <summary>Full, float32: weights and gradients 4 bytes each, AdamW 8, no copies.</summary>
    [Fact]
    public void Memory_of_full_fine_tuning_in_float32()
    {
        var memory = Estimate.For(SpecModels.Spec("""  "adapter": { "type": "full" } """), SpecModels.Stories260K).Memory;

        const long Count = 260_032;
        Assert.Equal((Count * 4, 0, Count * 4, Count * 8), (memory.WeightsBytes, memory.TrainedBytes, memory.GradientsBytes, memory.OptimizerBytes));

        // 8 sequences of 512 tokens (the model has no more), 512 logits of 4 bytes; 64 numbers of a head's input and as many of its gradient;
        // the head's own gradient.
        Assert.Equal(8 * 512 * (512 + 2 * 64) * 4 + 512 * 64 * 4, memory.LogitsBytes);
        Assert.Equal(
            memory.RuntimeBytes + memory.WeightsBytes + memory.GradientsBytes + memory.OptimizerBytes + memory.ActivationsBytes + memory.LogitsBytes, memory.TotalBytes);
    }

    /// <summary>Bfloat16: weights and gradients 2 bytes, a float32 copy of what trains 4, the moments float32.</summary>
    [Fact]
    public void Memory_of_full_fine_tuning_in_bfloat16()
    {
        var memory = Estimate.For(SpecModels.Spec("""  "adapter": { "type": "full" }, "precision": "bfloat16" """), SpecModels.Stories260K).Memory;

        const long Count = 260_032;
        Assert.Equal((Count * 2, Count * 4, Count * 2, Count * 8), (memory.WeightsBytes, memory.TrainedBytes, memory.GradientsBytes, memory.OptimizerBytes));
    }

    [Fact]
    public void Auto_precision_means_bfloat16_on_a_GPU_only()
    {
        var spec = SpecModels.Spec("");

        Assert.Equal(260_032 * 4, Estimate.For(spec, SpecModels.Stories260K).Memory.WeightsBytes);
        Assert.Equal(260_032 * 2, Estimate.For(spec, SpecModels.Stories260K, onGpu: true).Memory.WeightsBytes);
    }

    [Theory]
    [InlineData("0", 0)]
    [InlineData("0.9", 92_480 * 4)]
    public void SGD_remembers_only_its_momentum(string momentum, long bytes)
    {
        var spec = SpecModels.Spec($$"""  "optimizer": { "type": "sgd", "momentum": {{momentum}} } """);

        Assert.Equal(bytes, Estimate.For(spec, SpecModels.Stories260K).Memory.OptimizerBytes);
    }

    [Theory]
    [InlineData("""  "schedule": { "max_steps": 7 } """, 7, true)]
    [InlineData("""  "schedule": { "epochs": 3 } """, null, false)]                                       // packing: tokens decide, and are not known
    [InlineData("""  "schedule": { "epochs": 1.5, "batch_size": 4, "gradient_accumulation_steps": 3 } """, null, false)]
    public void Steps_without_a_count_of_tokens(string members, int? steps, bool exact)
    {
        var estimate = Estimate.For(SpecModels.Spec(members), SpecModels.Stories260K, new DataSize(Rows: 100));

        Assert.Equal((steps, exact), ((int?)estimate.Steps, estimate.StepsAreExact));
    }

    /// <summary>100 rows in batches of 4 are 25 batches, 9 steps of up to 3; 1.5 epochs are 13.5 steps.</summary>
    [Fact]
    public void Steps_of_rows_that_are_not_packed()
    {
        var spec = SpecModels.Spec("""  "schedule": { "epochs": 1.5, "batch_size": 4, "gradient_accumulation_steps": 3 } """);
        spec = spec with { Data = spec.Data with { Packing = false } };

        Assert.Equal(14, Estimate.For(spec, SpecModels.Stories260K, new DataSize(Rows: 100)).Steps);
    }

    /// <summary>10,240 tokens fill 10 sequences of 1,024: 2 batches of 8.</summary>
    [Fact]
    public void Steps_of_packed_rows() => Assert.Equal(
        2, Estimate.For(SpecModels.Spec("""  "schedule": { "epochs": 1 } """), SpecModels.Stories260K, new DataSize(Tokens: 10_240)).Steps);

    /// <summary>10,240 tokens in two steps of 5,120; packed rows are as long as the model allows, 512.</summary>
    [Fact]
    public void Operations_of_a_step_are_those_of_its_tokens()
    {
        var spec = SpecModels.Spec("""  "schedule": { "epochs": 3 } """);

        Assert.Equal(
            5_120 * StepOperations.PerToken(spec, SpecModels.Stories260K, 512),
            Estimate.For(spec, SpecModels.Stories260K, new DataSize(Tokens: 10_240)).OperationsPerStep);
    }

    [Fact]
    public void Operations_of_a_step_without_a_count_are_those_of_full_rows()
    {
        var spec = SpecModels.Spec("""  "schedule": { "batch_size": 4, "gradient_accumulation_steps": 3 } """);

        Assert.Equal(
            4 * 3 * 512 * StepOperations.PerToken(spec, SpecModels.Stories260K, 512), Estimate.For(spec, SpecModels.Stories260K).OperationsPerStep);
    }

    [Fact]
    public void Its_wire_names_are_snake_case()
    {
        var json = JsonSerializer.Serialize(Estimate.For(SpecModels.Spec(""), SpecModels.Stories260K), SpecJson.Options);

        Assert.Contains("\"trainable_parameters\": 92480", json, StringComparison.Ordinal);
        Assert.Contains("\"total_bytes\":", json, StringComparison.Ordinal);
    }
}
