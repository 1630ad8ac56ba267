using System.Text.Json;
using Microsoft.Extensions.Options;
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
internal sealed class FileReader(IArtifactStore store, IOptions<ServiceOptions> service)
{
    private static readonly string[] TokenizerFiles = ["tokenizer.json", "tokenizer.model", "vocab.json"];

    /// <param name="model">Whose tokenizer counts; null: only the structure of the rows is checked.</param>
    public async Task<DataReport> ReportAsync(
        DataFile file, BaseModel? model, DataConfig settings, bool isPretraining, CancellationToken cancellationToken)
    {
        var folder = Path.Combine(service.Value.DataPath, "incoming", $"check-{Guid.NewGuid():N}");
        Directory.CreateDirectory(folder);
        try
        {
            var path = Path.Combine(folder, "data" + EndingOf(file.FileName));
            await CopyAsync(file.StorageKey, file.Bytes, file.Sha256, path, cancellationToken);
            var tokenizer = model is null ? null : await TokenizerOf(model, folder, cancellationToken);
            int? vocabulary = model is null ? null : ModelConfig.Parse(model.ConfigJson).VocabularySize;
            return await Task.Run(
                () => DataSets.Validate(path, settings, tokenizer, vocabulary, isPretraining, cancellationToken), cancellationToken);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
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
