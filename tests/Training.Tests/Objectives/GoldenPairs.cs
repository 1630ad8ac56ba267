using System.Text.Json;
using TrainingService.Training.Data;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>The preference pairs that the golden numbers were made with.</summary>
internal static class GoldenPairs
{
    /// <param name="margins">One for each pair; null: none.</param>
    /// <returns>The chosen answers, then the rejected ones.</returns>
    public static Batch Batch(IReadOnlyList<float>? margins = null)
    {
        var plan = new BatchPlan(Examples(margins), batchSize: 4, padId: 0, packTo: null, shuffleSeed: null);
        return plan.Collate(plan.ForEpoch(0)[0]);
    }

    public static IReadOnlyList<Example> Examples(IReadOnlyList<float>? margins = null)
    {
        using var document = JsonDocument.Parse(File.ReadAllText(SharedData.Path("golden", "inputs.json")));
        var pairs = document.RootElement.GetProperty("pairs");
        var (ids, mask, labels) = (Rows(pairs, "input_ids"), Rows(pairs, "attention_mask"), Rows(pairs, "labels"));
        var count = ids.Length / 2;
        return
        [
            .. Enumerable.Range(0, count).Select(pair =>
            {
                var (chosen, rejected) = (mask[pair].Sum(), mask[count + pair].Sum());
                return new Example(
                    [.. ids[pair].Take(chosen), .. ids[count + pair].Take(rejected)], [.. labels[pair].Take(chosen), .. labels[count + pair].Take(rejected)], pair + 1)
                {
                    Ends = [chosen, chosen + rejected],
                    Value = margins?[pair],
                };
            }),
        ];
    }

    private static int[][] Rows(JsonElement pairs, string name) =>
        [.. pairs.GetProperty(name).EnumerateArray().Select(row => row.EnumerateArray().Select(value => value.GetInt32()).ToArray())];
}
