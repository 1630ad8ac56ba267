using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;

namespace TrainingService.Training.Adapters;

/// <summary>A LoRA that says beside its files how its modules were chosen.</summary>
internal sealed class DifforaAdapter(CausalLm model, DifforaConfig config, LayerPlan plan) : LayerAdapter(model, config, plan)
{
    /// <summary>The scores of all modules and the choice; a folder may lack it.</summary>
    internal const string ChoiceFile = "dam.json";

    private const long LargestBytes = 4 << 20;

    private IReadOnlyList<ScoredModule>? _scores = config.Scores;

    public override void Save(string folder, ModelCard card)
    {
        base.Save(folder, card);
        var path = Path.Combine(folder, ChoiceFile);
        if (_scores is null)
        {
            File.Delete(path);
            return;
        }

        File.WriteAllText(path, JsonSerializer.Serialize(_scores, SpecJson.Options) + "\n");
    }

    public override void Load(string folder)
    {
        base.Load(folder);
        var path = Path.Combine(folder, ChoiceFile);
        _scores = File.Exists(path) ? Read(path) : _scores;
    }

    private static List<ScoredModule> Read(string path)
    {
        try
        {
            return PlainFile.LengthOf(path) <= LargestBytes && JsonSerializer.Deserialize<List<ScoredModule>>(File.ReadAllText(path), SpecJson.Options) is { } scores
                ? scores
                : throw new JsonException("it is too large or null.");
        }
        catch (JsonException error)
        {
            throw TrainingException.InvalidData(
                $"{ChoiceFile} is not what this service writes ({error.Message.TrimEnd('.')}); take the file away, the adapter works without it.", ChoiceFile, error);
        }
    }
}
