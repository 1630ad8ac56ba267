using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Answers of different lengths with a number each, and a tiny model with the score head of an objective.</summary>
internal static class ScoredBatch
{
    /// <summary>The chosen answers of the golden pairs.</summary>
    public static IReadOnlyList<Example> Examples(params float[] values) =>
    [
        .. GoldenPairs.Examples().Take(values.Length).Select((pair, index) => new Example(pair.InputIds[..pair.Ends![0]], pair.Labels[..pair.Ends[0]], index + 1)
        {
            Value = values[index],
        }),
    ];

    public static Batch Of(IReadOnlyList<Example> examples)
    {
        var plan = BatchPlan.ForEvaluation(examples, examples.Count, padId: 0);
        return plan.Collate(plan.ForEpoch(0)[0]);
    }

    public static CausalLm Model(ObjectiveConfig objective) =>
        CausalLm.Load(SharedData.Path("golden", "models", "llama_untied"), ScalarType.Float32, CPU, score: objective.Score, seed: 3);

    /// <summary>Outputs of the score head as rows of numbers.</summary>
    public static float[][] Outputs(CausalLm model, Batch batch)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var outputs = BatchInput.Scores(model, batch, CPU);
        return [.. outputs.data<float>().ToArray().Chunk((int)outputs.shape[1])];
    }
}
