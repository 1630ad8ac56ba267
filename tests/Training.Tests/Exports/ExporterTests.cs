using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Exports;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Exports;

public class ExporterTests
{
    private static string Adapter => SharedData.Path("golden", "peft", "lora", "adapter");

    [Fact]
    public void A_merged_model_has_the_weights_of_peft_and_the_logits_of_the_adapter()
    {
        using var scope = NewDisposeScope();
        var target = Path.Combine(TinyModel.NewFolder(), "merged");

        var report = Exporter.Merged(TinyModel.Folder(), Adapter, target);

        Assert.InRange(report.RelativeError, 0, 1e-5);
        Assert.InRange(report.AlgebraError!.Value, 1e-12, 1e-5);
        Assert.True(report.AdapterEffect > 0.01, $"{report.AdapterEffect}");
        Assert.True(File.Exists(Path.Combine(target, "export.json")));
        using var golden = SafeTensorsFile.Open(SharedData.Path("golden", "peft", "lora", "tensors.safetensors"));
        using var merged = CheckpointFolder.Open(target);
        const string Name = "model.layers.0.self_attn.q_proj.weight";
        Assert.InRange(Numbers.RelativeError(merged.Read(Name), golden.Read("merged|" + Name)), 0, 1e-6);
    }

    [Fact]
    public void Shards_and_number_format_of_the_base_model_are_kept()
    {
        using var scope = NewDisposeScope();
        var source = TinyModel.NewFolder();
        using (var model = TinyModel.Load(dtype: ScalarType.BFloat16))
        {
            HuggingFaceFolder.Save(model, source, copyTokenizerFrom: null, shardBytes: 60_000);
        }

        File.WriteAllText(Path.Combine(source, "tokenizer.json"), "{}");
        var target = Path.Combine(TinyModel.NewFolder(), "merged");

        var report = Exporter.Merged(source, Adapter, target);

        Assert.Equal("BF16", report.DType);
        Assert.InRange(report.RelativeError, 1e-5, report.Bound);
        Assert.Equal(
            Directory.GetFiles(source).Select(Path.GetFileName).Append("export.json").Order(StringComparer.Ordinal),
            Directory.GetFiles(target).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        using var merged = CheckpointFolder.Open(target);
        Assert.All(merged.Entries.Values, entry => Assert.Equal(SafeTensorType.BF16, entry.DType));
    }

    [Fact]
    public void A_peft_export_reads_back_to_equal_logits_under_the_name_of_its_base()
    {
        var target = Path.Combine(TinyModel.NewFolder(), "adapter");

        var report = Exporter.Peft(TinyModel.Folder(), Adapter, target);

        Assert.Equal(0, report.RelativeError);
        Assert.Contains("\"base_model_name_or_path\": \"models/llama_untied\"", File.ReadAllText(Path.Combine(target, "adapter_config.json")), StringComparison.Ordinal);
        Assert.Contains("library_name: peft", File.ReadAllText(Path.Combine(target, "README.md")), StringComparison.Ordinal);
    }

    [Fact]
    public void A_failed_export_leaves_nothing_behind()
    {
        var parent = TinyModel.NewFolder();

        Assert.Throws<TrainingException>(() =>
            Exporter.Merged(TinyModel.Folder(), SharedData.Path("data", "adapters", "gpt2-lora"), Path.Combine(parent, "merged")));

        Assert.Empty(Directory.GetFileSystemEntries(parent));
    }

    [Fact]
    public void Files_of_somebody_else_are_not_overwritten()
    {
        var target = TinyModel.NewFolder();
        File.WriteAllText(Path.Combine(target, "mine.txt"), "");

        Assert.Throws<TrainingException>(() => Exporter.Merged(TinyModel.Folder(), Adapter, target));
    }
}
