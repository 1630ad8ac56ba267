using System.CommandLine;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Worker.Verbs;

/// <summary><c>logits</c>: next-token logits of given token ids, for comparison with other implementations.</summary>
internal static class LogitsVerb
{
    public static Command Create()
    {
        var tokens = new Option<FileInfo>("--tokens") { Required = true, Description = "A JSON array of equally long arrays of token ids." };
        var output = new Option<FileInfo>("--out") { Required = true, Description = "Safetensors file to write: logits, float32, [B, T, V]." };
        var command = new Command("logits", "Next-token logits of a batch of token ids, in float32.")
        {
            LoadedModel.ModelOption, LoadedModel.AdapterOption, LoadedModel.ClassOption, tokens, output,
        };
        command.SetAction(parsed => Failures.Guard(() => Run(
            parsed.GetRequiredValue(LoadedModel.ModelOption), parsed.GetValue(LoadedModel.AdapterOption), parsed.GetValue(LoadedModel.ClassOption),
            parsed.GetRequiredValue(tokens), parsed.GetRequiredValue(output))));
        return command;
    }

    private static void Run(DirectoryInfo modelFolder, DirectoryInfo? adapterFolder, string? activeClass, FileInfo tokensFile, FileInfo output)
    {
        LoadedModel.CheckFolders(("--model", modelFolder), ("--adapter", adapterFolder));
        var rows = Read(tokensFile);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        using var loaded = LoadedModel.Open(modelFolder, adapterFolder, activeClass);
        var (size, length) = (rows.Length, rows[0].Length);
        var vocabulary = loaded.Model.Config.VocabularySize;
        if (rows.SelectMany(row => row).FirstOrDefault(id => id < 0 || id >= vocabulary, -1) is var bad and not -1
            || rows.Any(row => row.Any(id => id < 0)))
        {
            throw TrainingException.InvalidData($"{tokensFile.Name} holds an id outside the model's vocabulary of {vocabulary}.", tokensFile.Name);
        }

        var inputIds = tensor(rows.SelectMany(row => row).ToArray(), [size, length], device: loaded.Model.Device);
        var positions = arange(length, ScalarType.Int64, loaded.Model.Device).expand(size, length);
        var logits = loaded.Model.Forward(inputIds, positions).to_type(ScalarType.Float32).cpu();
        Directory.CreateDirectory(output.DirectoryName!);
        SafeTensorsWriter.Write(output.FullName, [("logits", logits)]);
    }

    private static long[][] Read(FileInfo file)
    {
        try
        {
            var rows = JsonSerializer.Deserialize<long[][]>(File.ReadAllBytes(file.FullName));
            return rows is { Length: > 0 } && rows[0] is { Length: > 0 } && rows.All(row => row?.Length == rows[0].Length)
                ? rows
                : throw TrainingException.InvalidData(
                    $"{file.Name} must hold a JSON array of equally long, non-empty arrays of token ids.", file.Name);
        }
        catch (JsonException error)
        {
            throw TrainingException.InvalidData(
                $"{file.Name} is not a JSON array of arrays of token ids (line {error.LineNumber + 1}).", file.Name, error);
        }
    }
}
