using System.Text.Json.Nodes;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tests.Spec;

namespace TrainingService.Training.Tests.Quantization;

public class QuantizationSpecTests
{
    [Fact]
    public void It_is_off_unless_asked_for()
    {
        Assert.Null(SpecModels.Spec("").Quantization);
        Assert.Null(SpecModels.Spec(""" "quantization": null """).Quantization);
        Assert.Equal(new Nf4Config { BlockSize = 64, DoubleQuantization = true }, SpecModels.Spec(""" "quantization": { "type": "nf4" } """).Quantization);
        Assert.Equal(
            new Int8Config { BlockSize = 128, DoubleQuantization = false, Map = Int8Map.Dynamic },
            SpecModels.Spec(""" "quantization": { "map": "dynamic", "block_size": 128, "type": "int8" } """).Quantization);
    }

    [Theory]
    [InlineData(""" "quantization": { "type": "nf4", "block_size": 96 } """, "quantization.block_size", "power of two")]
    [InlineData(""" "quantization": { "type": "nf4", "block_size": 16 } """, "quantization.block_size", "from 32 to 4096")]
    [InlineData(""" "quantization": { "type": "nf3" } """, "quantization.type", "did you mean nf4?")]
    [InlineData(""" "quantization": { "type": "nf4" }, "adapter": { "type": "full" } """, "quantization", "use adapter lora")]
    public void What_cannot_be_is_refused(string members, string path, string words)
    {
        var error = Assert.Single(SpecJson.Parse(SpecParseTests.With(members)).Errors);

        Assert.Equal(path, error.Path);
        Assert.Contains(words, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_layer_that_trains_in_full_is_refused()
    {
        var spec = SpecModels.Spec(""" "quantization": { "type": "nf4" }, "adapter": { "type": "lora", "target_modules": ["q_proj"], "modules_to_save": ["up_proj", "embed_tokens"] } """);

        var error = Assert.Single(SpecChecks.AgainstModel(spec, SpecModels.Stories260K));

        Assert.Equal(("adapter.modules_to_save", SpecErrorCodes.Conflict), (error.Path, error.Code));
        Assert.Contains("model.layers.0.mlp.up_proj", error.Message, StringComparison.Ordinal);
        Assert.Empty(SpecChecks.AgainstModel(spec with { Quantization = null }, SpecModels.Stories260K));
    }

    /// <summary>Null satisfies both descriptions of an object, so the alternatives must not exclude each other.</summary>
    [Fact]
    public void The_schema_offers_each_type_and_null()
    {
        var schema = SpecJson.Schema()["properties"]!["quantization"]!.AsObject();

        Assert.Equal(["object", "null"], schema["type"]!.AsArray().Select(type => (string?)type));
        Assert.Equal(["nf4", "int8"], schema["anyOf"]!.AsArray().Select(Type));
        Assert.False(schema.ContainsKey("oneOf"));
    }

    private static string? Type(JsonNode? choice) => (string?)choice!["properties"]?["type"]?["const"];
}
