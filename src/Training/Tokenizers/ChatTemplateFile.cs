using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tokenizers.Jinja;

namespace TrainingService.Training.Tokenizers;

/// <summary>Finds the chat template of a model folder.</summary>
internal static class ChatTemplateFile
{
    /// <summary>
    /// The file <c>chat_template.jinja</c>, else the member <c>chat_template</c> of <c>tokenizer_config.json</c>: one template, or
    /// several with names, of which "default" is used, and "tool_use" where tools are given.
    /// </summary>
    public static (string? Template, string? WithTools) Read(string folder, JsonElement? config)
    {
        var path = Path.Combine(folder, "chat_template.jinja");
        if (File.Exists(path))
        {
            var bytes = PlainFile.LengthOf(path);
            return bytes <= 4L * JinjaParser.LongestTemplate ? (File.ReadAllText(path), null) : throw JinjaParser.TooLong(bytes);
        }

        if (config is not { } settings || TokenizerJson.Member(settings, "chat_template") is not { } template)
        {
            return (null, null);
        }

        if (template.ValueKind == JsonValueKind.String)
        {
            return (template.GetString(), null);
        }

        var named = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var entry in TokenizerJson.Items(settings, "chat_template"))
        {
            if (TokenizerJson.Text(entry, "name") is { } name && TokenizerJson.Text(entry, "template") is { } text)
            {
                named[name] = text;
            }
        }

        return named.TryGetValue("default", out var main)
            ? (main, named.GetValueOrDefault("tool_use"))
            : throw TrainingException.InvalidData(
                "tokenizer_config.json has chat templates but none named \"default\"; name one so, or add chat_template.jinja.",
                "tokenizer_config.json: chat_template");
    }
}
