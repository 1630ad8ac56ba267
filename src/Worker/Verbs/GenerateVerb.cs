using System.CommandLine;
using System.Text.Encodings.Web;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Models;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Worker.Verbs;

/// <summary><c>generate</c>: greedy answers to prompts, many at a time.</summary>
internal static class GenerateVerb
{
    private const int BatchSize = 64;
    private static readonly JsonSerializerOptions Line = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static Command Create()
    {
        var prompts = new Option<FileInfo>("--prompts")
        {
            Required = true,
            Description = "JSONL: a prompt (text), or messages that the model's chat template renders, per line.",
        };
        var output = new Option<FileInfo>("--out") { Required = true, Description = "JSONL to write: {\"completion\": …} per line, in the same order." };
        var longest = new Option<int>("--max-new-tokens") { DefaultValueFactory = _ => 128, Description = "Longest completion in tokens." };
        var command = new Command("generate", "Greedy completions of prompts.")
        {
            LoadedModel.ModelOption, LoadedModel.AdapterOption, LoadedModel.ClassOption, prompts, output, longest,
        };
        command.SetAction(parsed => Failures.Guard(() => Run(
            parsed.GetRequiredValue(LoadedModel.ModelOption), parsed.GetValue(LoadedModel.AdapterOption), parsed.GetValue(LoadedModel.ClassOption),
            parsed.GetRequiredValue(prompts), parsed.GetRequiredValue(output), parsed.GetValue(longest))));
        return command;
    }

    private static void Run(DirectoryInfo modelFolder, DirectoryInfo? adapterFolder, string? activeClass, FileInfo promptsFile, FileInfo output, int longest)
    {
        LoadedModel.CheckFolders(("--model", modelFolder), ("--adapter", adapterFolder));
        if ((adapterFolder is null ? null : ScoreHead.Of(adapterFolder.FullName)) is { KeepsTokens: false }
            || !HuggingFaceFolder.ReadConfig(modelFolder.FullName).PredictsTokens)
        {
            throw TrainingException.InvalidData("The model scores answers and writes none: its head gives rewards. Use the verb score.", adapterFolder is null ? "--model" : "--adapter");
        }

        var tokenizer = Tokenizer.Load(modelFolder.FullName);
        var prompts = File.ReadLines(promptsFile.FullName)
            .Select((line, index) => (Line: line, Row: index + 1))
            .Where(row => !string.IsNullOrWhiteSpace(row.Line))
            .Select(row => Encode(row.Line, $"{promptsFile.Name}:{row.Row}", tokenizer))
            .ToArray();

        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        using var loaded = LoadedModel.Open(modelFolder, adapterFolder, activeClass);
        var stops = new HashSet<int>(loaded.Model.Config.EosIds);
        if (tokenizer.EosId is { } eos)
        {
            stops.Add(eos);
        }

        // Neighbours of equal length waste no padding.
        var completions = new string[prompts.Length];
        foreach (var batch in Enumerable.Range(0, prompts.Length).OrderBy(index => prompts[index].Count).Chunk(BatchSize))
        {
            var answers = Generation.GreedyBatch(loaded.Model, [.. batch.Select(index => prompts[index])], longest, stops);
            foreach (var (index, answer) in batch.Zip(answers))
            {
                completions[index] = Text(tokenizer, prompts[index], answer);
            }
        }

        Directory.CreateDirectory(output.DirectoryName!);
        File.WriteAllLines(output.FullName, completions.Select(completion => JsonSerializer.Serialize(new { completion }, Line)));
    }

    /// <summary>The text that follows the prompt. A tokenizer may drop the space at the start of a text, so the whole is decoded.</summary>
    private static string Text(Tokenizer tokenizer, IReadOnlyList<int> prompt, IReadOnlyList<int> answer)
    {
        var before = tokenizer.Decode(prompt);
        var whole = tokenizer.Decode(prompt.Concat(answer));
        return whole.StartsWith(before, StringComparison.Ordinal) ? whole[before.Length..] : tokenizer.Decode(answer);
    }

    private static IReadOnlyList<int> Encode(string line, string place, Tokenizer tokenizer)
    {
        try
        {
            using var document = JsonDocument.Parse(line);
            if (document.RootElement.TryGetProperty("prompt", out var prompt) && prompt.ValueKind == JsonValueKind.String)
            {
                var ids = tokenizer.Encode(prompt.GetString()!);
                return ids is [.., var last] && last == tokenizer.EosId && ids.Count > 1 ? [.. ids.SkipLast(1)] : ids;
            }

            if (document.RootElement.TryGetProperty("messages", out var messages) && messages.ValueKind == JsonValueKind.Array)
            {
                var template = tokenizer.ChatTemplate
                    ?? throw TrainingException.InvalidData("The model has no chat template; give prompt in place of messages.", place);
                var turns = messages.EnumerateArray()
                    .Select(turn => new ChatMessage(turn.GetProperty("role").GetString() ?? "", turn.GetProperty("content").GetString() ?? ""));
                return tokenizer.Encode(template.Render([.. turns], addGenerationPrompt: true), addSpecialTokens: false);
            }

            throw TrainingException.InvalidData("A row needs prompt (text) or messages.", place);
        }
        catch (Exception error) when (error is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw TrainingException.InvalidData($"The row is not a JSON object with prompt or messages: {error.Message}", place, error);
        }
    }
}
