using System.Text.Json;
using TrainingService.Training.Adapters;

namespace TrainingService.Training.Tests.Spec;

/// <summary>The formulas of the catalogue, worked out with every method's defaults for a Llama 3.2 3B, beside what is counted for it.</summary>
public class ParameterFormulaTests
{
    /// <summary>Numbers of one adapted layer, by its outputs and inputs.</summary>
    private static readonly Dictionary<string, Func<long, long, long>> OfLayer = new()
    {
        ["lora"] = Factors(16),
        ["dora"] = (outputs, inputs) => (16 * (inputs + outputs)) + outputs,
        ["pissa"] = Factors(16),
        ["loftq"] = Factors(16),
        ["lq_lora"] = Factors(16),
        ["olora"] = Factors(16),
        ["corda"] = Factors(16),
        ["eva"] = Factors(16),
        ["lora_ga"] = Factors(16),
        ["watermark"] = Factors(16),
        ["hira"] = Factors(32),
        ["loha"] = (outputs, inputs) => 2 * 8 * (inputs + outputs),
        ["adalora"] = (outputs, inputs) => 12 * (inputs + outputs + 1),
        ["increlora"] = (outputs, inputs) => 16 * (inputs + outputs + 1),
        ["miss"] = (outputs, _) => 64 * outputs,
        ["hra"] = (_, inputs) => 8 * inputs,
        ["oft"] = (_, inputs) => inputs * 31 / 2,
        ["boft"] = (outputs, inputs) => (inputs * 4) + outputs,
        ["lokr"] = (outputs, inputs) => (Sides(outputs).Small * Sides(inputs).Small) + (8 * (Sides(outputs).Large + Sides(inputs).Large)),
        ["svfit"] = (_, _) => 768,
        ["loldu"] = (_, _) => 768,
        ["lora_xs"] = (_, _) => 32 * 32,
        ["lora_sb"] = (_, _) => 32 * 32,
        ["vera"] = (outputs, _) => outputs + 256,
        ["nola"] = (_, _) => 2 * 512,
        ["fourierft"] = (_, _) => 1000,
        ["vblora"] = (outputs, inputs) => 256 * 4 * (inputs + outputs) / 256,
        ["randlora"] = (outputs, inputs) => (Math.Min(inputs, outputs) / 32) * (32 + Math.Min(inputs, outputs)),
        ["sara"] = (outputs, inputs) => inputs * outputs / 100,
    };

    /// <summary>The square layers of attention, the narrow keys and values, and the three of the gated block, in each of 28 blocks.</summary>
    private static readonly (long Outputs, long Inputs)[] Layers = [(3072, 3072), (3072, 3072), (1024, 3072), (1024, 3072), (8192, 3072), (8192, 3072), (3072, 8192)];

    public static TheoryData<string> Adapters => [.. MethodCatalogue.All.Where(method => method.Family == "adapter").Select(method => method.Name)];

    public static TheoryData<string> Worked => [.. OfLayer.Keys];

    [Theory]
    [MemberData(nameof(Adapters))]
    public void Every_adapter_tells_its_formula(string name) =>
        Assert.False(string.IsNullOrWhiteSpace(MethodCatalogue.All.Single(method => method.Name == name).Parameters), $"{name} has no Parameters in its [Method].");

    [Theory]
    [MemberData(nameof(Worked))]
    public void The_formula_gives_what_is_counted(string name)
    {
        var shared = name == "vblora" ? 256 * 256 : 0;   // the bank

        Assert.Equal((28 * Layers.Sum(layer => OfLayer[name](layer.Outputs, layer.Inputs))) + shared, Counted(name).Added);
    }

    [Fact]
    public void Those_that_are_no_sum_over_all_linear_layers_are_counted_too()
    {
        // Keys, values and the inputs of down_proj; two norms a block and the last; two task vectors in three groups; of 196 layers the 84 of the
        // gated blocks and 14 square ones; every weight, with the embedding that is the head, too.
        Assert.Equal(28 * (1024 + 1024 + 8192), Counted("ia3").Added);
        Assert.Equal(57 * 3072, Counted("ln_tuning").InPlace);
        Assert.Equal(28 * 7 * 2 * 3, new AtlasConfig { TaskVectors = ["a", "b"], Groups = 3 }.Count(SpecModels.Llama32Of3B).Added);
        Assert.Equal((84 * 16 * (8192 + 3072)) + (14 * 16 * (3072 + 3072)), Counted("diffora").Added);
        Assert.Equal(
            (28 * Layers.Sum(layer => layer.Outputs * layer.Inputs)) + (57 * 3072) + (128_256 * 3072), Counted("full").InPlace);
    }

    private static TrainedCounts Counted(string name) => MethodCatalogue.All
        .Single(method => method.Family == "adapter" && method.Name == name).Defaults.Deserialize<AdapterConfig>(SpecJson.Options)!
        .Count(SpecModels.Llama32Of3B);

    private static Func<long, long, long> Factors(int rank) => (outputs, inputs) => rank * (inputs + outputs);

    /// <summary>The two factors of a side that are nearest to each other.</summary>
    private static (long Small, long Large) Sides(long side) => side switch { 1024 => (32, 32), 3072 => (48, 64), 8192 => (64, 128), _ => throw new ArgumentException(null, nameof(side)) };
}
