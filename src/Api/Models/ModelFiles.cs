using System.Security.Cryptography;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;
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
        var config = Check(folder);
        var files = new List<ModelFile>();
        foreach (var path in Directory.EnumerateFiles(folder).Order(StringComparer.Ordinal).Where(IsPartOfModel))
        {
            files.Add(await HashAsync(path, cancellationToken));
        }

        return new InspectedModel(config.SourceJson, files);
    }

    /// <summary>Configuration, names and shapes of the weights, and tokenizer fit each other; no file's content is hashed.</summary>
    /// <exception cref="TrainingException">They do not.</exception>
    public static ModelConfig Check(string folder)
    {
        var config = HuggingFaceFolder.Check(folder);
        if (Tokenizer.IsIn(folder))
        {
            DataSets.CheckVocabularies(Tokenizer.Load(folder), config.VocabularySize);
        }

        return config;
    }

    /// <exception cref="TrainingException">It is a pipe, a socket or a device.</exception>
    public static async Task<ModelFile> HashAsync(string path, CancellationToken cancellationToken)
    {
        PlainFile.LengthOf(path);
        await using var stream = new FileStream(
            path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16, FileOptions.Asynchronous | FileOptions.SequentialScan);
        var hash = await SHA256.HashDataAsync(stream, cancellationToken);
        return new ModelFile(Path.GetFileName(path), stream.Length, Convert.ToHexStringLower(hash));
    }

    /// <summary>The files that the worker needs; a pickle is left where it is, and never opened.</summary>
    private static bool IsPartOfModel(string path) =>
        !Path.GetFileName(path).StartsWith('.')
        && !PickleEndings.Contains(Path.GetExtension(path), StringComparer.OrdinalIgnoreCase);
}
