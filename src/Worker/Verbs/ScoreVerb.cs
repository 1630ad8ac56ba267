using System.CommandLine;
using System.Text.Encodings.Web;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Dmoe;
using TrainingService.Training.Scoring;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Worker.Verbs;

/// <summary><c>score</c>: rewards of answers, many at a time; or the best answer of each row.</summary>
internal static class ScoreVerb
{
    private const int RowsAtOnce = 1024;

    private static readonly JsonSerializerOptions Line = new(SpecJson.Options)
    {
        WriteIndented = false,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    public static Command Create()
    {
        var input = new Option<FileInfo>("--input")
        {
            Required = true,
            Description = "JSONL: prompt with responses, response or completion per line, or messages that end with the answer.",
        };
        var output = new Option<FileInfo?>("--output") { Description = "JSONL to write: {\"scores\": […]} per line, in the same order; without it: standard output." };
        var best = new Option<bool>("--best-of") { Description = "Write the best answer of each row instead: {\"best\": index, \"reward\": …, \"response\": …}." };
        var command = new Command("score", "Rewards of answers by a reward model.") { LoadedModel.ModelOption, LoadedModel.AdapterOption, input, output, best };
        command.SetAction(parsed => Failures.Guard(() => Run(
            parsed.GetRequiredValue(LoadedModel.ModelOption), parsed.GetValue(LoadedModel.AdapterOption), parsed.GetRequiredValue(input),
            parsed.GetValue(output), parsed.GetValue(best))));
        return command;
    }

    private static void Run(DirectoryInfo model, DirectoryInfo? adapter, FileInfo input, FileInfo? output, bool best)
    {
        LoadedModel.CheckFolders(("--model", model), ("--adapter", adapter));
        if (!input.Exists)
        {
            throw TrainingException.InvalidData($"There is no file '{input.FullName}'.", "--input");
        }

        using var experts = adapter is not null && DmoeScorer.IsIn(adapter.FullName)
            ? new DmoeScorer(adapter.FullName, model.FullName, ScalarType.Float32, cuda.is_available() ? CUDA : CPU)
            : null;
        using var scorer = experts is null ? Scorer.Load(new(model.FullName, adapter?.FullName)) : null;
        var tokenizer = experts is null ? null : Tokenizer.Load(model.FullName);
        output?.Directory?.Create();
        var part = output is null ? null : output.FullName + ".part";
        using (var lines = part is null ? new StreamWriter(Console.OpenStandardOutput()) : new StreamWriter(part))
        {
            lines.NewLine = "\n";
            foreach (var rows in File.ReadLines(input.FullName).Index().Where(row => !string.IsNullOrWhiteSpace(row.Item)).Chunk(RowsAtOnce))
            {
                var parsed = rows.Select(row => Parse(row.Item, $"{input.Name}:{row.Index + 1}")).ToList();
                foreach (var (row, scores) in parsed.Zip(Score([.. parsed.Select(row => row.Input)])))
                {
                    lines.WriteLine(best ? Best(row.Json, scores) : JsonSerializer.Serialize(new { scores }, Line));
                }
            }
        }

        IReadOnlyList<IReadOnlyList<AnswerScore>> Score(IReadOnlyList<ScoreInput> rows) => experts?.Score(tokenizer!, rows) ?? scorer!.Score(rows);

        if (part is not null)
        {
            File.Move(part, output!.FullName, overwrite: true);   // a file under this name is whole
        }
    }

    private static (JsonElement Json, ScoreInput Input) Parse(string line, string place)
    {
        try
        {
            var json = JsonElement.Parse(line);
            return (json, ScoreInput.Read(json, place));
        }
        catch (JsonException error)
        {
            throw TrainingException.InvalidData($"{place} is not JSON ({error.Message.TrimEnd('.')}).", place, error);
        }
    }

    /// <summary>The answer with the highest reward; of equal ones the first.</summary>
    private static string Best(JsonElement row, IReadOnlyList<AnswerScore> scores)
    {
        var index = scores.Index().MaxBy(score => score.Item.Reward).Index;
        JsonElement? response = row.TryGetProperty("responses", out var responses) && responses.ValueKind == JsonValueKind.Array ? responses[index] : null;
        return JsonSerializer.Serialize(new { best = index, scores[index].Reward, scores[index].Percentile, response }, Line);
    }
}
