using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class FourierFtTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new FourierFtConfig { Frequencies = 100 };

    protected override double LearningRate => 10;

    [Theory]
    [InlineData(777, 4096)]
    [InlineData(0, 7)]
    [InlineData(2026, 300_000)]   // more than the twister makes at a time
    public void The_places_are_those_that_torch_draws(int seed, int items)
    {
        // PEFT saves the seed alone; the places are the first of torch.randperm(out·in) from a generator with that seed.
        using var scope = NewDisposeScope();
        using var generator = new Generator((ulong)seed, CPU);
        var expected = randperm(items, dtype: ScalarType.Int64, device: CPU, generator: generator).data<long>().ToArray();

        Assert.Equal(expected, RandomPermutation.First(items, items, (uint)seed));
        Assert.Equal(expected[..5], RandomPermutation.First(5, items, (uint)seed));
    }

    [Fact]
    public void One_coefficient_is_a_cosine()
    {
        // S has c at (j, k) alone: ΔW[p, q] = s·c/(m·n)·cos(2π(j·p/m + k·q/n)).
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new FourierFtConfig { Frequencies = 1, Scaling = 300 }.Attach(model, seed: 1);
        foreach (var update in adapter.Updates)
        {
            var (m, n) = (update.Weight.shape[0], update.Weight.shape[1]);
            Filled.Of(adapter, update.Module + ".fourierft_spectrum").fill_(2);
            var (j, k) = Math.DivRem(RandomPermutation.First(1, m * n, 777)[0], n);
            var rows = arange(m, dtype: ScalarType.Float64).mul(2 * Math.PI * j / m).unsqueeze(1);
            var columns = arange(n, dtype: ScalarType.Float64).mul(2 * Math.PI * k / n);

            Assert.InRange(Numbers.RelativeError(update.Delta, (rows + columns).cos() * (300.0 * 2 / (m * n))), 0, 1e-5);
        }
    }

    [Theory]
    [InlineData(24, 24_000)]    // RoBERTa base, query and value: 0.024 M in table 2 of the paper
    [InlineData(48, 48_000)]    // RoBERTa large: 0.048 M
    [InlineData(64, 64_000)]    // LLaMA2 7B: 0.064 M in table 4
    public void It_trains_as_many_numbers_as_the_paper_counts(int layers, int expected) =>
        Assert.Equal(expected, layers * new FourierFtConfig().TensorsOf(new("layer", 4096, 4096)).Sum(tensor => tensor.Shape[0]));

    [Fact]
    public void Its_folder_has_the_keys_and_fields_of_peft()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();

        adapter.Save(folder, Card);

        Assert.Equal("base_model.model.model.layers.0.self_attn.q_proj.fourierft_spectrum", adapter.Trainable[0].Name);
        var fields = Filled.Fields(folder);

        // The fields of FourierFTConfig in PEFT 0.20.0, tuners/fourierft/config.py, and those of its base classes.
        Assert.Equal(
            ["auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_weights", "layers_pattern",
             "layers_to_transform", "modules_to_save", "n_frequency", "n_frequency_pattern", "peft_type", "peft_version", "random_loc_seed", "revision",
             "scaling", "target_modules", "task_type"],
            fields.Keys.Order(StringComparer.Ordinal));
        Assert.Equal((100, 777), (fields["n_frequency"].GetInt32(), fields["random_loc_seed"].GetInt32()));
    }

    [Fact]
    public void More_coefficients_than_a_spectrum_has_are_refused_with_the_layer()
    {
        var error = new FourierFtConfig { Frequencies = 3000 }.Check(Spec.SpecModels.Stories260K)[0];

        Assert.Equal("adapter.frequencies", error.Path);
        Assert.Contains("is 3000, more than the spectrum of layer", error.Message, StringComparison.Ordinal);
    }
}

/// <summary>The paper's start: random coefficients, so the first update is not zero.</summary>
[Collection(nameof(RandomNumbers))]
public class RandomStartFourierFtTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new FourierFtConfig { Frequencies = 100, ZeroStart = false, Scaling = 10 };

    protected override double StartError => 1;

    protected override double LearningRate => 100;
}
