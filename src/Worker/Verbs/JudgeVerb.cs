using System.CommandLine;
using TrainingService.Training;
using TrainingService.Training.Data;
using TrainingService.Training.Objectives;
using TrainingService.Training.Rewards;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Worker.Verbs;

/// <summary><c>judge</c>: what a reward model does on pairs of answers, with the report that a training run writes on its validation rows.</summary>
internal static class JudgeVerb
{
    private const string RewardBenchName = "rewardbench";

    public static Command Create()
    {
        var rows = new Option<FileInfo>("--pairs") { Required = true, Description = "Preference rows in any layout, with critiques for a model that writes them; category or subset names their kind." };
        var sections = new Option<string?>("--sections")
        {
            Description = $"JSON file that says which categories make up which section, and their weights; {RewardBenchName}: those of RewardBench 1.",
        };
        var longest = new Option<int>("--max-length") { DefaultValueFactory = _ => DataConfig.DefaultMaxLength, Description = "Longest prompt and answer in tokens; longer pairs are left out." };
        var batchSize = new Option<int>("--batch-size") { DefaultValueFactory = _ => 8, Description = "Pairs scored at a time." };
        var output = new Option<DirectoryInfo>("--out") { Required = true, Description = "Folder for reward.json, reward.md and drawings." };
        foreach (var number in new[] { longest, batchSize })
        {
            number.Validators.Add(result =>
            {
                if (result.GetValueOrDefault<int>() < 1)
                {
                    result.AddError($"{number.Name} must be at least 1.");
                }
            });
        }

        var command = new Command("judge", "Accuracy, calibration and length bias of a reward model on pairs of answers.")
        {
            LoadedModel.ModelOption, LoadedModel.AdapterOption, rows, sections, longest, batchSize, output,
        };
        command.SetAction(parsed => Failures.Guard(() => Run(
            parsed.GetRequiredValue(LoadedModel.ModelOption), parsed.GetValue(LoadedModel.AdapterOption), parsed.GetRequiredValue(rows),
            parsed.GetValue(sections), parsed.GetValue(longest), parsed.GetValue(batchSize), parsed.GetRequiredValue(output))));
        return command;
    }

    private static void Run(
        DirectoryInfo model, DirectoryInfo? adapter, FileInfo rows, string? sectionsName, int longest, int batchSize, DirectoryInfo output)
    {
        LoadedModel.CheckFolders(("--model", model), ("--adapter", adapter));
        var sections = sectionsName switch
        {
            null => null,
            RewardBenchName => RewardSections.RewardBench,
            _ => RewardSections.Read(sectionsName),
        };
        using var loaded = LoadedModel.Open(model, adapter);
        if (loaded.Model.Config.Score is null)
        {
            throw TrainingException.InvalidSpec("The model has no score head: give the adapter of a reward model, or a merged one.", "--adapter");
        }

        var objective = SavedObjective.Read((adapter ?? model).FullName) ?? new RewardConfig();
        var use = objective is CritiqueRewardConfig ? RowUse.Critiques : RowUse.Pairs;
        using var scope = NewDisposeScope();
        var tokenizer = Tokenizer.Load(model.FullName);
        using var data = DataSets.Prepare(
            new DataConfig { Train = rows.FullName, MaxLength = Math.Min(longest, loaded.Model.MostTokens) }, use, tokenizer,
            loaded.Model.Config.VocabularySize, seed: 0, progress: null, CancellationToken.None);
        var padId = tokenizer.PadId is { } id && id >= 0 && id < loaded.Model.Config.VocabularySize ? id : 0;
        var pairs = RewardWriter.Score(loaded.Model, loaded.Adapter, objective, data.Train, batchSize, padId, loaded.Model.Device, CancellationToken.None);
        if (pairs.Count == 0)
        {
            throw TrainingException.InvalidData("All rows are marked as ties; there is nothing to judge.", rows.Name);
        }

        foreach (var finding in RewardWriter.Write(pairs, output.FullName, sections, use == RowUse.Critiques).Findings)
        {
            Console.Error.WriteLine(SafeText.Escape(finding.Text));
        }
    }
}
