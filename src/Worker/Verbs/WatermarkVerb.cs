using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Adapters;

namespace TrainingService.Worker.Verbs;

/// <summary><c>watermark</c>: reads the message that adapter <c>watermark</c> has embedded. Standard output is one JSON object in one line.</summary>
internal static class WatermarkVerb
{
    private static readonly JsonSerializerOptions Line = new(SpecJson.Options) { WriteIndented = false };

    public static Command Create()
    {
        var merged = new Option<DirectoryInfo?>("--merged") { Description = "Model folder to read instead of an adapter, by its difference to --model." };
        var key = new Option<int>("--key") { Required = true, Description = "The key of the training spec." };
        var message = new Option<string?>("--message") { Description = "The bits to look for, a text of 0 and 1; otherwise the 48 that follow from the key." };
        message.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<string?>() is { } bits && (bits.Length is 0 or > WatermarkReader.MostBits || bits.Any(bit => bit is not ('0' or '1'))))
            {
                result.AddError($"--message must be a text of 1 to {WatermarkReader.MostBits} characters 0 and 1.");
            }
        });
        var command = new Command("watermark", "Reads the message in an adapter or a merged model, and how likely it is by chance.")
        {
            LoadedModel.ModelOption, LoadedModel.AdapterOption, merged, key, message,
        };
        command.Validators.Add(result =>
        {
            if (result.GetValue(LoadedModel.AdapterOption) is null == result.GetValue(merged) is null)
            {
                result.AddError("Give one of --adapter and --merged.");
            }
        });
        command.SetAction(parsed => Failures.Guard(() =>
        {
            var (model, adapter, other) = (parsed.GetRequiredValue(LoadedModel.ModelOption), parsed.GetValue(LoadedModel.AdapterOption), parsed.GetValue(merged));
            LoadedModel.CheckFolders(("--model", model), ("--adapter", adapter), ("--merged", other));
            var secret = parsed.GetValue(key);
            var expected = parsed.GetValue(message) ?? WatermarkReader.MessageOf(secret);
            WatermarkReading reading;
            if (other is null)
            {
                using var loaded = LoadedModel.Open(model, adapter);
                reading = WatermarkReader.Read(loaded.Adapter!, secret, expected);
            }
            else
            {
                reading = WatermarkReader.Read(model.FullName, other.FullName, secret, expected);
            }

            Console.Out.WriteLine(JsonSerializer.Serialize(reading, Line));
            Console.Error.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{reading.Matches} of {expected.Length} bits match; by chance that many do with a probability of {reading.TailProbability:E1}."));
        }));
        return command;
    }
}
