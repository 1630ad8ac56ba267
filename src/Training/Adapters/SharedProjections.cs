using System.Text.Json.Nodes;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Adapters;

/// <summary>PEFT's fields about random tensors that all layers share and that never train.</summary>
/// <remarks>
/// They are always saved: PEFT can leave them out and draw them again from <c>projection_prng_key</c>, but what torch draws for a key depends
/// on its version, the device and the number format.
/// </remarks>
internal static class SharedProjections
{
    private const string Saved = "save_projection";
    private const string Key = "projection_prng_key";
    private const string Start = "init_weights";

    public static void ToPeft(JsonObject fields)
    {
        fields[Saved] = true;
        fields[Key] = 0;
        fields[Start] = true;
    }

    /// <exception cref="TrainingException">The tensors were not saved.</exception>
    public static void FromPeft(JsonObject fields)
    {
        if (fields[Saved] is { } saved && !saved.GetValue<bool>())
        {
            throw PeftConfig.Refuse(
                Saved, "false",
                "the random matrices are not in the file, and drawing them again may give others; load the adapter where it was trained and "
                + "save it with save_projection = True");
        }

        foreach (var name in (string[])[Saved, Key, Start])
        {
            fields.Remove(name);
        }
    }
}
