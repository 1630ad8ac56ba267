using System.CommandLine;
using TrainingService.Training.Spectra;

namespace TrainingService.Worker.Verbs;

/// <summary><c>analyze</c>: spectra of a model, of what an adapter changes, or of the difference between two models.</summary>
internal static class AnalyzeVerb
{
    public static Command Create()
    {
        var against = new Option<DirectoryInfo?>("--against") { Description = "Model folder of the same shapes; its difference to --model is analysed." };
        var output = new Option<DirectoryInfo>("--out") { Required = true, Description = "Folder for spectra.json and its drawings." };
        var command = new Command("analyze", "Spectra of weights and of their updates.")
        {
            LoadedModel.ModelOption, LoadedModel.AdapterOption, against, output,
        };
        command.SetAction(parsed => Failures.Guard(() =>
        {
            var model = parsed.GetRequiredValue(LoadedModel.ModelOption);
            var adapter = parsed.GetValue(LoadedModel.AdapterOption);
            var other = parsed.GetValue(against);
            LoadedModel.CheckFolders(("--model", model), ("--adapter", adapter), ("--against", other));
            SpectraWriter.Analyze(model.FullName, adapter?.FullName, other?.FullName, parsed.GetRequiredValue(output).FullName);
        }));
        return command;
    }
}
