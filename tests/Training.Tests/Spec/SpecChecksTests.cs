namespace TrainingService.Training.Tests.Spec;

public class SpecChecksTests
{
    [Theory]
    [InlineData(""" "rank": 65 """, "adapter.rank", "rank_too_large", "adapter.rank is 65, larger than layer 'model.layers.0.self_attn.k_proj' allows, whose weight is 32 x 64")]
    [InlineData(""" "rank_pattern": { "v_proj": 33 } """, "adapter.rank_pattern.v_proj", "rank_too_large", "'model.layers.0.self_attn.v_proj' allows, whose weight is 32 x 64 (and 4 more layers allow less than 33); use at most 32")]
    [InlineData(""" "target_modules": ["q_proj", "query_proj"] """, "adapter.target_modules[1]", "unknown_module", "there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj.")]
    [InlineData(""" "target_modules": ["q_porj"] """, "adapter.target_modules[0]", "unknown_module", "did you mean q_proj?")]
    [InlineData(""" "target_modules": "attn" """, "adapter.target_modules", "unknown_module", "adapter.target_modules is 'attn', which no module of this model matches")]
    [InlineData(""" "target_modules": ["lm_head"] """, "adapter.target_modules[0]", "unknown_module", "put lm_head into adapter.modules_to_save")]
    [InlineData(""" "exclude_modules": ["q_pro"] """, "adapter.exclude_modules[0]", "unknown_module", "did you mean q_proj?")]
    [InlineData(""" "exclude_modules": "all-linear" """, "adapter.exclude_modules", "conflict", "leave no layer to adapt")]
    [InlineData(""" "modules_to_save": ["embed_token"] """, "adapter.modules_to_save[0]", "unknown_module", "did you mean embed_tokens?")]
    [InlineData(""" "modules_to_save": ["lm_head"] """, "adapter.modules_to_save[0]", "unknown_module", "shares its weights with the embedding")]
    [InlineData(""" "target_modules": ["q_proj", "k_proj"], "modules_to_save": ["q_proj"] """, "adapter.modules_to_save", "conflict", "both select layer 'model.layers.0.self_attn.q_proj'")]
    [InlineData(""" "rank_pattern": { "c_attn": 4 } """, "adapter.rank_pattern.c_attn", "unknown_module", "which no module of this model matches")]
    [InlineData(""" "target_modules": "(?!x)(.*.*.*.*.*.*.*.*)*y" """, "adapter.target_modules", "invalid_value", "takes too long on module")]
    public void An_adapter_that_does_not_fit(string members, string path, string code, string words)
    {
        var spec = SpecModels.Spec($$"""  "adapter": { "type": "lora",{{members}} } """);
        spec = spec with { Data = spec.Data with { MaxLength = 512 } };

        var error = Assert.Single(SpecChecks.AgainstModel(spec, SpecModels.Stories260K));

        Assert.Equal((path, code), (error.Path, error.Code));
        Assert.Contains(words, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void All_errors_come_at_once()
    {
        var spec = SpecModels.Spec("""  "adapter": { "type": "lora", "target_modules": ["a", "q_proj", "b"], "modules_to_save": ["c"] } """);
        spec = spec with { Data = spec.Data with { MaxLength = 2048 } };

        var paths = SpecChecks.AgainstModel(spec, SpecModels.Stories260K).Select(error => error.Path);

        Assert.Equal(["adapter.target_modules[0]", "adapter.target_modules[2]", "adapter.modules_to_save[0]", "data.max_length"], paths);
    }

    [Fact]
    public void Sequences_longer_than_the_model_are_refused()
    {
        var spec = SpecModels.Spec("");
        var error = Assert.Single(SpecChecks.AgainstModel(spec with { Data = spec.Data with { MaxLength = 2048 } }, SpecModels.Stories260K));

        Assert.Empty(SpecChecks.AgainstModel(spec, SpecModels.Stories260K));   // the default is lowered, not refused
        Assert.Equal("data.max_length is 2048, more than the 512 positions of the model; use at most 512.", error.Message);
    }

    [Fact]
    public void A_model_that_does_not_fit_into_memory_is_refused()
    {
        var spec = SpecModels.Spec("""  "adapter": { "type": "full" } """);
        var error = Assert.Single(SpecChecks.AgainstModel(spec, SpecModels.Llama32Of3B, memoryBytes: 16L << 30));

        Assert.Equal((SpecErrorCodes.TooLarge, "model"), (error.Code, error.Path));
        Assert.Contains("16.0 GiB are at hand", error.Message, StringComparison.Ordinal);
        Assert.Empty(SpecChecks.AgainstModel(spec, SpecModels.Llama32Of3B, memoryBytes: 1L << 40));
    }
}
