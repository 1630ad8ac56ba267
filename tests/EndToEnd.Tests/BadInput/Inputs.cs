using System.Text.Json.Nodes;

namespace TrainingService.EndToEnd.Tests.BadInput;

/// <summary>Everything that one run takes, on disk and right until a test spoils it.</summary>
internal sealed class Inputs : IDisposable
{
    public Inputs()
    {
        TinyModel.Write(Model);
        File.WriteAllLines(Rows, Enumerable.Range(0, 8).Select(row =>
            $$"""{"input_ids": [{{string.Join(", ", Enumerable.Range(0, 6 + row).Select(t => 3 + (row * 31 + t * 17) % 60))}}]}"""));
    }

    public string Folder { get; } = Directory.CreateTempSubdirectory("training-bad-input-").FullName;

    public string Model => Path.Combine(Folder, "model");

    public string Weights => Path.Combine(Model, "model.safetensors");

    public string Rows => Path.Combine(Folder, "rows.jsonl");

    public string Adapter => Path.Combine(Folder, "adapter");

    /// <summary>Without <c>model</c> and <c>data.train</c>, which are paths for the verb and ids for the service.</summary>
    public JsonObject Spec { get; } = JsonNode.Parse("""
        {
          "data": {"max_length": 32},
          "adapter": {"type": "lora", "rank": 2},
          "optimizer": {"type": "adamw"},
          "schedule": {"max_steps": 2, "batch_size": 2},
          "spectra": {"enabled": false}
        }
        """)!.AsObject();

    /// <summary>The spec with these as model and rows, where a test has not put something else there.</summary>
    public JsonObject SpecFor(string model, string rows)
    {
        var spec = Spec.DeepClone().AsObject();
        spec["model"] ??= model;
        spec["data"]!["train"] ??= rows;
        return spec;
    }

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}
