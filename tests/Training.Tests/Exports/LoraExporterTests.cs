using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Exports;
using TrainingService.Training.Tests.Adapters;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Exports;

[Collection(nameof(RandomNumbers))]
public class LoraExporterTests
{
    [Fact]
    public void A_change_of_low_rank_is_exact()
    {
        // MiSS of 8 strides is a product of rank 8.
        var report = Export(new MissConfig { Rank = 8 }, rank: 8, out _);

        Assert.Equal("lora", report.Format);
        Assert.InRange(report.ApproximationError!.Value, 0, 1e-5);
        Assert.All(report.Layers!, layer => Assert.Equal((8, true), (layer.Rank, layer.RelativeError < 1e-6)));
        Assert.True(report.AdapterEffect > 1e-3);
    }

    [Fact]
    public void A_change_of_full_rank_becomes_the_nearest_of_the_rank()
    {
        // The error of the nearest matrix of rank r is the norm of the singular values after the first r (Eckart and Young).
        using var scope = NewDisposeScope();
        var report = Export(new DoraConfig { Rank = 4, Alpha = 8 }, rank: 6, out var folder);

        using var model = TinyModel.Load();
        using var adapter = AdapterConfig.Saved(folder).Attach(model, seed: 0);
        using var off = no_grad();
        foreach (var (update, layer) in adapter.Updates.Zip(report.Layers!))
        {
            var values = linalg.svdvals(update.Delta.to_type(ScalarType.Float64));
            var rest = values.narrow(0, 6, values.shape[0] - 6).norm() / values.norm();
            Assert.Equal((update.Module, 6), (layer.Module, layer.Rank));
            Assert.Equal(rest.item<double>(), layer.RelativeError, 1e-4);
        }

        Assert.Contains(report.Layers!, layer => layer.RelativeError > 1e-3);
        Assert.InRange(report.ApproximationError!.Value, 1e-6, report.AdapterEffect);
    }

    [Fact]
    public void A_higher_rank_than_a_layer_has_is_cut_to_it_and_then_exact()
    {
        var report = Export(new DoraConfig { Rank = 4 }, rank: 64, out _);

        Assert.InRange(report.ApproximationError!.Value, 0, 1e-5);
        Assert.Contains(report.Layers!, layer => layer.Rank == 32);   // k_proj is 32 x 64
    }

    [Fact]
    public void What_factors_cannot_hold_is_refused()
    {
        var error = Assert.Throws<TrainingException>(() => Export(new LoraConfig { Rank = 2, ModulesToSave = ["norm"] }, rank: 2, out _));

        Assert.Contains("export it as merged", error.Message, StringComparison.Ordinal);
    }

    private static ExportReport Export(LayerAdapterConfig config, int rank, out string adapterFolder)
    {
        using var scope = NewDisposeScope();
        adapterFolder = TinyModel.NewFolder();
        using (var model = TinyModel.Load())
        {
            using var adapter = config.Attach(model, seed: 1);
            using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 0.1);
            var (ids, labels) = TinyModel.Batch();
            for (var step = 0; step < 2; step++)
            {
                optimizer.zero_grad();
                TinyModel.Loss(model, ids, labels).backward();
                optimizer.step();
            }

            adapter.Save(adapterFolder, new ModelCard("base"));
        }

        var target = Path.Combine(TinyModel.NewFolder(), "lora");
        var report = LoraExporter.Write(TinyModel.Folder(), adapterFolder, target, rank);
        using var json = JsonDocument.Parse(File.ReadAllText(Path.Combine(target, ExportReport.FileName)));
        Assert.Equal(report.Layers!.Count, json.RootElement.GetProperty("layers").GetArrayLength());
        return report;
    }
}
