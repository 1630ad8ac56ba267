using System.Security.Cryptography;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Api.Models;

/// <summary>A model folder that can be trained: its configuration, its files, and their sum.</summary>
internal sealed record InspectedModel(string ConfigJson, IReadOnlyList<ModelFile> Files)
{
    public long Bytes => Files.Sum(file => file.Bytes);
}

/// <summary>Looks at a model folder before anybody relies on it. No tensor is read and no libtorch is loaded.</summary>
internal static class ModelFiles
{
    public static readonly JsonSerializerOptions Json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    private static readonly string[] PickleEndings = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];

    /// <exception cref="TrainingException">The folder is not a model that this service trains; the message says what to change.</exception>
    public static async Task<InspectedModel> InspectAsync(string folder, CancellationToken cancellationToken)
    {
        var config = HuggingFaceFolder.Check(folder);
        if (Tokenizer.IsIn(folder))
        {
            DataSets.CheckVocabularies(Tokenizer.Load(folder), config.VocabularySize);
        }

        var files = new List<ModelFile>();
        foreach (var path in Directory.EnumerateFiles(folder).Order(StringComparer.Ordinal).Where(IsPartOfModel))
        {
            await using var stream = new FileStream(
                path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16, FileOptions.Asynchronous | FileOptions.SequentialScan);
            var hash = await SHA256.HashDataAsync(stream, cancellationToken);
            files.Add(new ModelFile(Path.GetFileName(path), stream.Length, Convert.ToHexStringLower(hash)));
        }

        return new InspectedModel(config.SourceJson, files);
    }

    /// <summary>The files that the worker needs; a pickle is left where it is, and never opened.</summary>
    private static bool IsPartOfModel(string path) =>
        !Path.GetFileName(path).StartsWith('.')
        && !PickleEndings.Contains(Path.GetExtension(path), StringComparer.OrdinalIgnoreCase);
}
