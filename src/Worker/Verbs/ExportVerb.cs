using System.CommandLine;
using System.Globalization;
using TrainingService.Training.Exports;

namespace TrainingService.Worker.Verbs;

/// <summary><c>export</c>: an adapter in another form, written only when its logits are those of the adapted model.</summary>
internal static class ExportVerb
{
    public static Command Create()
    {
        var adapter = new Option<DirectoryInfo>("--adapter") { Required = true, Description = "Adapter folder in PEFT layout." };
        var format = new Option<string>("--format") { Required = true, Description = "peft: a clean adapter folder; merged: a model with the adapter folded in." };
        format.AcceptOnlyFromAmong("peft", "merged");
        var output = new Option<DirectoryInfo>("--out") { Required = true, Description = "Folder to write; it must not hold files." };
        var command = new Command("export", "A verified export of an adapter.") { LoadedModel.ModelOption, adapter, format, output };
        command.SetAction(parsed => Failures.Guard(() =>
        {
            var model = parsed.GetRequiredValue(LoadedModel.ModelOption);
            var from = parsed.GetRequiredValue(adapter);
            var to = parsed.GetRequiredValue(output).FullName;
            LoadedModel.CheckFolders(("--model", model), ("--adapter", from));
            var report = parsed.GetRequiredValue(format) == "merged"
                ? Exporter.Merged(model.FullName, from.FullName, to)
                : Exporter.Peft(model.FullName, from.FullName, to);
            Console.Error.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{to}: logits differ by {report.RelativeError:E1} (allowed {report.Bound:E1}), relative L2"));
        }));
        return command;
    }
}
