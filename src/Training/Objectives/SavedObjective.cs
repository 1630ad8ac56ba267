using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Objectives;

/// <summary><c>objective.json</c> beside weights with a score head: the objective that they were trained with, which says how the head's outputs are read.</summary>
public static class SavedObjective
{
    public const string FileName = "objective.json";

    /// <summary>Writes it where the card names a run whose objective has a score head.</summary>
    internal static void Write(string folder, ModelCard card)
    {
        var path = Path.Combine(folder, FileName);
        if (card.Spec?.Objective is { Score: not null } objective)
        {
            File.WriteAllText(path, JsonSerializer.Serialize(objective, SpecJson.Options) + "\n");
        }
        else
        {
            File.Delete(path);
        }
    }

    /// <summary>The objective that a folder tells; null where it tells none: then its outputs are rewards, of as many heads as there are.</summary>
    /// <exception cref="TrainingException">The file is damaged.</exception>
    public static ObjectiveConfig? Read(string folder)
    {
        var path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            return null;
        }

        try
        {
            using var document = JsonDocument.Parse(PeftFolder.ReadText(path), new JsonDocumentOptions { MaxDepth = 16 });
            var reader = new SpecReader(SpecJson.Options);
            return reader.Read(document.RootElement, typeof(ObjectiveConfig)) is ObjectiveConfig objective && reader.Errors.Count == 0
                ? objective
                : throw TrainingException.InvalidData($"{FileName} cannot be used: {(reader.Errors.Count > 0 ? reader.Errors[0].Message : "it names no objective.")}", FileName);
        }
        catch (JsonException error)
        {
            throw TrainingException.InvalidData($"{FileName} is not JSON ({error.Message.TrimEnd('.')}).", FileName, error);
        }
    }
}
