using System.Text.Json;
using System.Xml.Linq;
using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using TrainingService.Training.Spectra;
using TrainingService.Training.Tests.Adapters;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Spectra;

public class SpectraTests
{
    [Fact]
    public void A_matrix_worked_by_hand()
    {
        using var scope = NewDisposeScope();

        // MᵀM = [[25, 20], [20, 25]] has the eigenvalues 45 and 5.
        var spectrum = Spectrum.Of(tensor(new float[,] { { 3, 0 }, { 4, 5 } }), SpectraLimits.Default);

        Assert.Equal(Math.Sqrt(45), spectrum.SingularValues[0], 10);
        Assert.Equal(Math.Sqrt(5), spectrum.SingularValues[1], 10);
        Assert.Equal(Math.Sqrt(50), spectrum.FrobeniusNorm, 10);
        Assert.Equal(50.0 / 45, spectrum.StableRank, 10);
        Assert.Equal(1.75477, spectrum.EffectiveRank!.Value, 5);   // shares 3/4 and 1/4
    }

    [Theory]
    [InlineData(new double[] { 1, 1, 1 }, 3)]
    [InlineData(new double[] { 10, 1, 0.1 }, 1.42374)]
    [InlineData(new double[] { 0, 0 }, 0)]
    public void Effective_rank_is_the_exponential_of_the_entropy(double[] values, double expected) =>
        Assert.Equal(expected, Spectrum.FromValues(values).EffectiveRank!.Value, 5);

    [Fact]
    public void Values_of_a_product_come_from_its_factors()
    {
        using var scope = NewDisposeScope();
        var left = Formula(40, 5);
        var right = Formula(5, 30);

        var values = SingularValues.OfProduct(left, right, scale: -1.5);

        var dense = SingularValues.Of(left.matmul(right) * -1.5);
        Assert.Equal(5, values.Length);
        Assert.All(values.Zip(dense), pair => Assert.Equal(pair.Second, pair.First, 1e-5 * dense[0]));
        Assert.All(dense[5..], value => Assert.True(value < 1e-5 * dense[0]));
    }

    [Fact]
    public void Leading_values_agree_with_the_full_decomposition()
    {
        using var scope = NewDisposeScope();
        var matrix = Formula(300, 200) + diag(linspace(3, 1, 200)).repeat(2, 1).narrow(0, 0, 300);

        var leading = Spectrum.Of(matrix, new SpectraLimits { ExactSize = 100, LeadingValues = 10 });

        var all = Spectrum.Of(matrix, SpectraLimits.Default);
        Assert.False(leading.Exact);
        Assert.Null(leading.EffectiveRank);
        Assert.Equal(all.FrobeniusNorm, leading.FrobeniusNorm, 1e-4 * all.FrobeniusNorm);
        Assert.Equal(all.StableRank, leading.StableRank, 1e-3 * all.StableRank);
        Assert.All(leading.SingularValues.Zip(all.SingularValues), pair => Assert.Equal(pair.Second, pair.First, 0.01 * pair.Second));
    }

    [Fact]
    public void An_adapter_is_described_before_in_and_after_its_change()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig { From = SharedData.Path("golden", "peft", "lora", "adapter") }.Attach(model, seed: 0);
        var folder = TinyModel.NewFolder();

        var report = SpectraWriter.Write(adapter, folder);

        Assert.Equal(21, report.Layers.Count);
        foreach (var (layer, update) in report.Layers.Zip(adapter.Updates))
        {
            var change = update.Factors!.Left.matmul(update.Factors.Right) * update.Factors.Scale;
            Assert.Equal(update.Module, layer.Name);
            Assert.Equal(4, layer.Update!.SingularValues.Length);
            Assert.Equal(change.norm().item<float>(), layer.Update.FrobeniusNorm, 1e-5 * layer.Update.FrobeniusNorm);
            Assert.Equal(
                (update.Weight + change).norm().item<float>(), layer.Sum!.FrobeniusNorm, 1e-5 * layer.Sum.FrobeniusNorm);
            Assert.Equal(layer.Update.FrobeniusNorm / layer.Weight.FrobeniusNorm, layer.RelativeUpdate!.Value, 10);
        }

        using var json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "spectra.json")));
        Assert.Equal("training-service/spectra/1", json.RootElement.GetProperty("format").GetString());
        Assert.Equal(4, json.RootElement.GetProperty("layers")[0].GetProperty("update").GetProperty("singular_values").GetArrayLength());
        Assert.Equal(
            ["relative-update.svg", "update-heatmap.svg", "update-rank.svg", "update-singular-values.svg", "weight-rank.svg", "weight-singular-values.svg"],
            Directory.GetFiles(folder, "*.svg").Select(Path.GetFileName).Order(StringComparer.Ordinal));
        Assert.All(Directory.GetFiles(folder, "*.svg"), path => Assert.Equal("svg", XDocument.Load(path).Root!.Name.LocalName));
    }

    [Fact]
    public void A_fresh_adapter_has_a_zero_update()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 0);

        var report = SpectraWriter.Write(adapter, TinyModel.NewFolder());

        Assert.All(report.Layers, layer => Assert.Equal((0.0, 0.0, 0.0), (layer.RelativeUpdate!.Value, layer.Update!.StableRank, layer.Update.EffectiveRank!.Value)));
    }

    [Fact]
    public void Full_fine_tuning_is_measured_against_the_base_model_and_analysis_of_both_folders_agrees()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new FullConfig().Attach(model, seed: 0);
        using (no_grad())
        {
            adapter.Updates[0].Weight.add_(0.5);   // 0.5·1·1ᵀ: one singular value, 0.5·√(64·64)
        }

        var report = SpectraWriter.Write(adapter, TinyModel.NewFolder(), TinyModel.Folder());
        var tuned = TinyModel.NewFolder();
        adapter.Save(tuned, new ModelCard("base"));
        var analysed = SpectraWriter.Analyze(TinyModel.Folder(), adapterFolder: null, tuned, TinyModel.NewFolder());

        Assert.Equal(32, report.Layers[0].Update!.SpectralNorm, 3);
        Assert.Equal(1, report.Layers[0].Update!.StableRank, 5);
        Assert.All(report.Layers.Skip(1), layer => Assert.Equal(0, layer.Update!.FrobeniusNorm));
        Assert.Equal(report.Layers[0].Update!.SingularValues, analysed.Layers.Single(layer => layer.Name == report.Layers[0].Name).Update!.SingularValues);
        Assert.Contains(analysed.Layers, layer => layer.Name == "lm_head");
    }

    [Fact]
    public void A_model_alone_is_described_with_its_head()
    {
        var folder = TinyModel.NewFolder();

        var report = SpectraWriter.Analyze(TinyModel.Folder("qwen2"), adapterFolder: null, againstFolder: null, folder);

        Assert.Equal(22, report.Layers.Count);
        Assert.All(report.Layers, layer => Assert.Null(layer.Update));
        Assert.True(File.Exists(Path.Combine(folder, "weight-heatmap.svg")));
    }

    [Fact]
    public void Five_descriptions_leave_no_tensor_behind()
    {
        using var model = TinyModel.Load();
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 0);
        var folder = TinyModel.NewFolder();
        var limits = new SpectraLimits { ExactSize = 40, LeadingValues = 8 };
        SpectraWriter.Write(adapter, folder, limits: limits);
        var before = TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        for (var i = 0; i < 5; i++)
        {
            SpectraWriter.Write(adapter, folder, limits: limits);
        }

        Assert.Equal(before, TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    // sin(0), sin(1.3), … : no generator, the same everywhere.
    private static Tensor Formula(int rows, int columns) =>
        arange(rows * columns, ScalarType.Float32).mul(1.3).add(arange(rows * columns, ScalarType.Float32).pow(2).mul(0.01)).sin().reshape(rows, columns);
}
