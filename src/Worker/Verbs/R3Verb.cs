using System.CommandLine;
using System.Globalization;
using TrainingService.Training;
using TrainingService.Training.Rewards;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Worker.Verbs;

/// <summary><c>r3</c>: rewards of candidate answers without preference data, and the preference file that follows from them.</summary>
internal static class R3Verb
{
    public static Command Create()
    {
        var rows = new Option<FileInfo>("--candidates")
        {
            Required = true,
            Description = "JSONL: {\"prompt\": text, \"candidates\": [texts]} per line, optionally \"reference\" (a good answer) and \"type\" (open or constrained).",
        };
        var model = new Option<DirectoryInfo?>("--model")
        {
            Description = "Model folder whose hidden states say how relevant texts are to each other, best one trained for retrieval; without it: by their shared words.",
        };
        var range = new Option<double?>("--range") { Description = "Relevance that counts as full in constrained rows; without it: fitted to their references." };
        var pairs = new Option<CandidatePairs>("--pairs") { Description = "extremes (the best with the worst candidate, the default) or all." };
        var output = new Option<FileInfo>("--out") { Required = true, Description = "JSONL to write: prompt, chosen, rejected and their rewards, per line." };
        var scores = new Option<FileInfo?>("--scores") { Description = "JSONL to write besides: {\"rewards\": [numbers]} per line, in the order of the candidates." };
        range.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<double?>() is { } value && !(value > 0 && double.IsFinite(value)))
            {
                result.AddError("--range must be a number above 0.");
            }
        });
        var command = new Command("r3", "Labels candidate answers by relevance, length and repetition (R³): a preference file without preference data.")
        {
            rows, model, range, pairs, output, scores,
        };
        command.SetAction(parsed => Failures.Guard(() => Run(
            parsed.GetRequiredValue(rows), parsed.GetValue(model), parsed.GetValue(range), parsed.GetValue(pairs), parsed.GetRequiredValue(output),
            parsed.GetValue(scores))));
        return command;
    }

    private static void Run(FileInfo file, DirectoryInfo? modelFolder, double? range, CandidatePairs pairs, FileInfo output, FileInfo? scores)
    {
        LoadedModel.CheckFolders(("--model", modelFolder));
        var rows = PreferenceLabeller.Read(file.FullName);
        if (rows.Count == 0)
        {
            throw TrainingException.InvalidData("The file holds no rows.", file.Name);
        }

        using var loaded = modelFolder is null ? null : LoadedModel.Open(modelFolder, adapter: null);
        using var scope = NewDisposeScope();
        var embed = loaded is null
            ? TextEmbeddings.OfWords(rows.SelectMany(row => row.Candidates.Append(row.Reference ?? "").Append(row.Prompt)))
            : TextEmbeddings.OfHiddenStates(loaded.Model, Tokenizer.Load(modelFolder!.FullName));
        var labeller = new PreferenceLabeller(embed, range);
        var labelled = labeller.Label(rows, pairs).ToList();
        Directory.CreateDirectory(output.DirectoryName!);
        File.WriteAllLines(output.FullName, labelled.Select(PreferenceLabeller.Write));
        if (scores is not null)
        {
            Directory.CreateDirectory(scores.DirectoryName!);
            File.WriteAllLines(scores.FullName, labeller.Score(rows).Select(rewards => PreferenceLabeller.Write(new { rewards })));
        }

        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{labelled.Count} pairs of {rows.Count} rows; rows whose candidates have equal rewards give none."));
    }
}
