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
        var format = new Option<string>("--format") { Required = true, Description = "peft: a clean adapter folder; merged: a model with the adapter folded in; lora: a plain LoRA, the nearest of its rank." };
        format.AcceptOnlyFromAmong("peft", "merged", "lora");
        var rank = new Option<int>("--rank") { DefaultValueFactory = _ => 16, Description = "Largest rank of a layer of format lora; a change within it is exact." };
        rank.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<int>() is < 1 or > 65_536)
            {
                result.AddError("--rank must be a whole number from 1 to 65536.");
            }
        });
        var output = new Option<DirectoryInfo>("--out") { Required = true, Description = "Folder to write; it must not hold files." };
        var command = new Command("export", "A verified export of an adapter.") { LoadedModel.ModelOption, adapter, LoadedModel.ClassOption, format, rank, output };
        command.SetAction(parsed => Failures.Guard(() =>
        {
            var model = parsed.GetRequiredValue(LoadedModel.ModelOption);
            var from = parsed.GetRequiredValue(adapter);
            var to = parsed.GetRequiredValue(output).FullName;
            LoadedModel.CheckFolders(("--model", model), ("--adapter", from));
            var report = parsed.GetRequiredValue(format) switch
            {
                "merged" => Exporter.Merged(model.FullName, from.FullName, to, parsed.GetValue(LoadedModel.ClassOption)),
                "lora" => LoraExporter.Write(model.FullName, from.FullName, to, parsed.GetValue(rank), parsed.GetValue(LoadedModel.ClassOption)),
                _ => Exporter.Peft(model.FullName, from.FullName, to, parsed.GetValue(LoadedModel.ClassOption)),
            };
            Console.Error.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{to}: logits differ by {report.RelativeError:E1} (allowed {report.Bound:E1}), relative L2"));
            if (report is { ApproximationError: { } error, Layers: { } layers })
            {
                Console.Error.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"From the adapter's own logits they differ by {error:E1}; of its layers the farthest is off by {layers.Max(layer => layer.RelativeError):P1} of its change."));
            }

        }));
        return command;
    }
}
