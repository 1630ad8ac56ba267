using System.Text.Json.Nodes;
using TrainingService.Training.Models;

namespace TrainingService.Training.Tests.Models;

public class RopeConfigTests
{
    private static readonly double[] Plain = [1, 0.1, 0.01, 0.001];   // θ = 10^4, K = 8: 10^(-4·2i/8) = 10^-i

    [Fact]
    public void Plain_frequencies_are_a_geometric_series() => Assert.Equal(Plain.Select(f => (float)f), Read("null").Frequencies(8));

    [Theory]
    [InlineData("""{"type":"linear","factor":4.0}""")]
    [InlineData("""{"rope_type":"linear","factor":4}""")]
    [InlineData("""{"rope_type":"linear","type":"linear","factor":4.0}""")]
    public void Linear_scaling_divides_every_frequency(string scaling) =>
        Assert.Equal([0.25f, 0.025f, 0.0025f, 0.00025f], Read(scaling).Frequencies(8));

    [Fact]
    public void Llama3_scaling_keeps_short_waves_stretches_long_ones_and_blends_between()
    {
        // L = 100, low = 1, high = 4, factor = 8. Waves that fit into L: L·f/2π.
        //   f = 1:     15.915  > 4            keeps f                                   = 1
        //   f = 0.1:    1.59155, between:     s = (1.59155 - 1) / 3 = 0.197183;
        //               (1 - 0.197183)·0.1/8 + 0.197183·0.1 = 0.01003522 + 0.01971830   = 0.02975352
        //   f = 0.01:   0.159  < 1            f / 8                                     = 0.00125
        //   f = 0.001:  0.0159 < 1            f / 8                                     = 0.000125
        var frequencies = Read("""
            {"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":100}
            """).Frequencies(8);

        Assert.Equal(1f, frequencies[0]);
        Assert.Equal(0.02975352, frequencies[1], 1e-8);
        Assert.Equal(0.00125f, frequencies[2]);
        Assert.Equal(0.000125f, frequencies[3]);
    }

    [Fact]
    public void The_newer_member_holds_base_and_type()
    {
        var rope = Read("null", """{"rope_type":"linear","factor":2.0,"rope_theta":1000000.0}""", theta: null);

        Assert.Equal(new RopeConfig(1_000_000, new LinearRopeScaling(2)), rope);
        Assert.Equal(new RopeConfig(10_000, null), Read("null", """{"rope_type":"default"}""", theta: null));
        Assert.Equal(new RopeConfig(500_000, null), Read("null", """{"rope_theta":500000}""", theta: 500_000));
    }

    private static RopeConfig Read(string scaling, string parameters = "null", double? theta = 10_000)
    {
        var config = JsonNode.Parse("""
            {
              "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
              "num_attention_heads": 4, "vocab_size": 256
            }
            """)!.AsObject();
        config["rope_theta"] = theta;
        config["rope_scaling"] = JsonNode.Parse(scaling);
        config["rope_parameters"] = JsonNode.Parse(parameters);
        return ((LlamaConfig)ModelConfig.Parse(config.ToJsonString())).Rope;
    }
}
