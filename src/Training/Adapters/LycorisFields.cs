using System.Text.Json;
using System.Text.Json.Nodes;

namespace TrainingService.Training.Adapters;

/// <summary>PEFT's fields of LoHa and LoKr that matter in training alone: two dropouts that are not offered here, and the kind of start.</summary>
internal static class LycorisFields
{
    private const string Start = "init_weights";

    private static readonly string[] Dropouts = ["module_dropout", "rank_dropout"];

    public static void ToPeft(JsonObject fields)
    {
        fields[Start] = true;
        foreach (var name in Dropouts)
        {
            fields[name] = 0;
        }
    }

    public static void FromPeft(JsonObject fields)
    {
        // Another start may go with another product (ABBA), and then says so in a word.
        if (fields[Start]?.GetValueKind() is JsonValueKind.True or JsonValueKind.False)
        {
            fields.Remove(Start);
        }

        foreach (var name in Dropouts)
        {
            fields.Remove(name);
        }
    }
}
