using System.Text.Json;
using Microsoft.Extensions.Options;
using TrainingService.Api.Http;
using TrainingService.Api.Models;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Storage;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Api.Files;

/// <summary>Reads data files as a run would read them, on a copy that lives for one request.</summary>
internal sealed class FileReader(
    IArtifactStore store, CheckPlaces places, IOptions<ServiceOptions> service, IOptions<UploadOptions> options, TimeProvider clock)
{
    private static readonly string[] TokenizerFiles = ["tokenizer.json", "tokenizer.model", "vocab.json"];

    /// <param name="model">Whose tokenizer counts; null: only the structure of the rows is checked.</param>
    /// <exception cref="RequestException">Too many others do so.</exception>
    public async Task<DataReport> ReportAsync(
        DataFile file, BaseModel? model, DataConfig settings, RowUse use, CancellationToken cancellationToken)
    {
        using var place = await places.TakeAsync(cancellationToken);
        var folder = Path.Combine(service.Value.DataPath, "incoming", $"check-{Guid.NewGuid():N}");
        Directory.CreateDirectory(folder);
        try
        {
            var path = Path.Combine(folder, "data" + EndingOf(file.FileName));
            await CopyAsync(file.StorageKey, file.Bytes, file.Sha256, path, cancellationToken);
            var tokenizer = model is null ? null : await TokenizerOf(model, folder, cancellationToken);
            int? vocabulary = model is null ? null : ModelConfig.Parse(model.ConfigJson).VocabularySize;
            using var over = new CancellationTokenSource(TimeSpan.FromSeconds(options.Value.LongestCheckSeconds), clock);
            var limits = new ReadingLimits(options.Value.LargestCheckedBytes, options.Value.MostCheckedRows, over.Token);
            var report = await Task.Run(
                () => DataSets.Validate(path, settings, tokenizer, vocabulary, use, limits, cancellationToken), cancellationToken);
            return report.IsComplete ? report : report with { Warnings = [.. report.Warnings, Incomplete(report)] };
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>A small file may expand to any size, and this process has other things to do.</summary>
    private string Incomplete(DataReport report)
    {
        var limits = options.Value;
        return $"Only the first {report.Train.Rows} rows were read: a check ends after {limits.LargestCheckedBytes} bytes of rows, {limits.MostCheckedRows} rows or "
            + $"{limits.LongestCheckSeconds} seconds (settings Files:LargestCheckedBytes, MostCheckedRows and LongestCheckSeconds); a job reads and checks them all.";
    }

    /// <summary>The end of the name, which tells the container; the rest of it may be longer than a file system takes.</summary>
    private static string EndingOf(string name)
    {
        const int longest = 20;
        var first = Path.GetExtension(name);
        var ending = first.Equals(".gz", StringComparison.OrdinalIgnoreCase) ? Path.GetExtension(name[..^first.Length]) + first : first;
        return ending.Length <= longest ? ending : "";
    }

    /// <summary>The model's tokenizer; null when it has none, and then only rows of token ids can be trained on.</summary>
    private async Task<Tokenizer?> TokenizerOf(BaseModel model, string folder, CancellationToken cancellationToken)
    {
        var files = JsonSerializer.Deserialize<List<ModelFile>>(model.FilesJson, ModelFiles.Json)!;
        if (!files.Any(file => TokenizerFiles.Contains(file.Path)))
        {
            return null;
        }

        if (model.Source == ModelSource.LocalPath)
        {
            return Tokenizer.Load(model.Location);
        }

        var copy = Path.Combine(folder, "model");
        Directory.CreateDirectory(copy);
        foreach (var file in files.Where(file => !file.Path.EndsWith(".safetensors", StringComparison.Ordinal)))
        {
            await CopyAsync($"{model.Location}/{file.Path}", file.Bytes, file.Sha256, Path.Combine(copy, file.Path), cancellationToken);
        }

        return Tokenizer.Load(copy);
    }

    private async Task CopyAsync(string key, long bytes, string sha256, string path, CancellationToken cancellationToken)
    {
        await using var content = await store.OpenVerifiedAsync(key, bytes, sha256, cancellationToken)
            ?? throw new ArtifactStoreException($"The artifact store has lost {key}.");
        await using var target = File.Create(path);
        await content.CopyToAsync(target, cancellationToken);
    }
}
