using System.Globalization;
using System.Text;
using TrainingService.Training.Adapters;

namespace TrainingService.Training.Checkpoints;

/// <summary>The <c>README.md</c> beside saved weights, with the front matter that model hubs read.</summary>
internal static class ModelCardText
{
    /// <summary>Card of a PEFT folder.</summary>
    /// <param name="method">Name of the method in a spec, such as <c>lora</c>.</param>
    /// <param name="title">Its name as people say it.</param>
    public static string ForAdapter(ModelCard card, string method, string title) => Write(card, "peft", [method], $"A {title} adapter for");

    /// <summary>Card of a whole model.</summary>
    public static string ForModel(ModelCard card) => Write(card, "transformers", [], "Weights fine-tuned from");

    private static string Write(ModelCard card, string library, string[] tags, string lead)
    {
        var text = new StringBuilder()
            .Append("---\n")
            .Append(CultureInfo.InvariantCulture, $"base_model: {Quoted(card.BaseModel)}\n")
            .Append(CultureInfo.InvariantCulture, $"library_name: {library}\n")
            .Append("pipeline_tag: text-generation\ntags:\n");
        foreach (var tag in (string[])[$"base_model:{(library == "peft" ? "adapter" : "finetune")}:{card.BaseModel}", .. tags, "training-service"])
        {
            text.Append(CultureInfo.InvariantCulture, $"- {Quoted(tag)}\n");
        }

        text.Append("---\n\n")
            .Append(CultureInfo.InvariantCulture, $"# {OneLine(card.BaseModel)}, fine-tuned\n\n{lead} `{OneLine(card.BaseModel)}`.\n");
        if (card.Data is { } data)
        {
            text.Append(CultureInfo.InvariantCulture, $"\n## Data\n\n{OneLine(data)}\n");
        }

        if (card.Spec is { } spec)
        {
            // Paths of the machine that trained do not belong into a file that is passed on.
            var shown = spec with
            {
                Model = card.BaseModel,
                Adapter = spec.Adapter.Disclosed.WithSources(source => Name(source)!),
                Data = spec.Data with
                {
                    Train = Name(spec.Data.Train)!,
                    Validation = Name(spec.Data.Validation),
                    Calibration = Name(spec.Data.Calibration),
                },
            };
            text.Append(CultureInfo.InvariantCulture, $"\n## Training spec\n\n```json\n{SpecJson.Serialize(shown)}\n```\n");
        }

        if (card.Results.Count > 0)
        {
            text.Append("\n## Results\n\n| figure | value |\n| --- | --- |\n");
            foreach (var (name, value) in card.Results.OrderBy(result => result.Key, StringComparer.Ordinal))
            {
                text.Append(CultureInfo.InvariantCulture, $"| {name} | {value:G6} |\n");
            }
        }

        return text.ToString();
    }

    private static string? Name(string? path) => path is null ? null : Path.GetFileName(path.TrimEnd('/', '\\'));

    private static string Quoted(string value) =>
        "\"" + OneLine(value).Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal) + "\"";

    private static string OneLine(string value) => new(value.Select(letter => char.IsControl(letter) ? ' ' : letter).ToArray());
}
