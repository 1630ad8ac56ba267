using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class NolaTests : AdapterContract
{
    private const string Query = "model.layers.0.self_attn.q_proj";

    protected override LayerAdapterConfig Config => new NolaConfig { Rank = 4, Alpha = 16, NumBases = 30 };

    protected override double LearningRate => 1;

    [Fact]
    public void The_random_numbers_are_those_of_the_public_formula()
    {
        // k = upper 24 bits of SplitMix64 from FNV-1a of the key; the numbers were made by another program.
        using var scope = NewDisposeScope();
        using var document = JsonDocument.Parse(File.ReadAllText(SharedData.Path("golden", "inputs.json")));
        var expected = document.RootElement.GetProperty("unit_check").GetProperty("k").EnumerateArray().Select(k => k.GetInt64() / 8_388_608f - 1).ToArray();

        Assert.Equal(9443188008722762343UL, CounterRandom.Key("check"));
        Assert.Equal(expected, CounterRandom.Uniform(CounterRandom.Key("check"), 0, expected.Length, CPU).data<float>().ToArray());
    }

    [Theory]
    [InlineData(0, 5000)]
    [InlineData(4_294_967_290, 100)]
    public void They_are_the_same_where_tensors_compute_them_and_wherever_they_begin(long first, long count)
    {
        using var scope = NewDisposeScope();
        var key = CounterRandom.Key("another");
        var values = CounterRandom.Uniform(key, first, count, CPU);

        Assert.True(values.equal(CounterRandom.OnDevice(key, first, count, CPU)).all().item<bool>());
        Assert.True(values.narrow(0, 40, 7).equal(CounterRandom.Uniform(key, first + 40, 7, CPU)).all().item<bool>());
    }

    [Fact]
    public void The_factors_are_the_sums_of_the_random_matrices()
    {
        // A = A₀ + Σ aᵢAᵢ with A₀ over √in and Aᵢ over √K, numbered from place i·r·in; B the same without a first matrix.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Filled.ByFormula(adapter, 0.7);
        Tensor Random(string factor, long count) =>
            CounterRandom.Uniform(CounterRandom.Key($"nola|0|{Query}|{factor}"), 0, count, CPU).to_type(ScalarType.Float64);
        Tensor Mixed(string factor) => (Filled.Of(adapter, $"{Query}.nola_{factor.ToLowerInvariant()}").to_type(ScalarType.Float64).unsqueeze(1)
            * Random(factor, 30 * 4 * 64).view(30, 4 * 64) / Math.Sqrt(30)).sum(dim: 0);

        var a = Random("A0", 4 * 64).view(4, 64) / 8 + Mixed("A").view(4, 64);
        var b = Mixed("B").view(64, 4);

        Assert.InRange(Numbers.RelativeError(adapter.Updates[0].Delta, b.mm(a) * 4), 0, 1e-5);
    }

    [Fact]
    public void A_gradient_of_a_mixture_is_the_one_of_the_whole_sum()
    {
        // 5 matrices of 1200 x 1000 do not fit into one chunk of 2²² numbers.
        using var scope = NewDisposeScope();
        var mix = arange(1, 6, dtype: ScalarType.Float32).sin();
        var (ours, plain) = (mix.clone().requires_grad_(), mix.clone().requires_grad_());
        var weights = arange(1_200_000, dtype: ScalarType.Float32).sin().view(1200, 1000);
        var matrices = CounterRandom.Uniform(7, 0, 5 * 1_200_000, CPU).view(5, 1200, 1000);

        var sum = RandomMixture.Of(ours, 7, [1200, 1000]);
        var expected = (plain.view(5, 1, 1) * matrices).sum(dim: 0) / Math.Sqrt(5);
        (sum * weights).sum().backward();
        (expected * weights).sum().backward();

        Assert.InRange(Numbers.RelativeError(sum.detach(), expected.detach()), 0, 1e-6);
        Assert.InRange(Numbers.RelativeError(ours.grad!, plain.grad!), 0, 1e-4);   // sums of 1.2 million numbers of both signs
    }

    [Fact]
    public void It_trains_fewer_numbers_than_lora_of_rank_one_and_as_many_as_the_authors_count()
    {
        // GPT-2 medium, query and value of 24 layers of width 1024, K = 1000: 0.096 M, LoRA with rank 1 has 98,304.
        var layer = new LinearShape("layer", 1024, 1024);
        long Count(LayerAdapterConfig config) => 48 * config.TensorsOf(layer).Sum(tensor => tensor.Shape.Aggregate(1L, (product, side) => product * side));

        Assert.Equal(96_000, Count(new NolaConfig { NumBases = 1000, Rank = 8 }));
        Assert.Equal(98_304, Count(new LoraConfig { Rank = 1 }));
    }

    [Fact]
    public void The_first_step_moves_the_mixture_of_B_alone()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);

        Step(model, adapter, LearningRate, steps: 1);

        Assert.Equal(0, Filled.Of(adapter, Query + ".nola_a").abs().sum().item<float>());
        Assert.NotEqual(0, Filled.Of(adapter, Query + ".nola_b").abs().sum().item<float>());
    }
}
