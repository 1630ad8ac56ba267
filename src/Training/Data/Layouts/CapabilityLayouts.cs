using System.Text.Json;
using TrainingService.Training.Data.Rows;

namespace TrainingService.Training.Data.Layouts;

/// <summary>Pairs of answers of a category that were compared as wholes, or by single capabilities.</summary>
/// <remarks>
/// Beside the columns of any pair stands <c>category</c>. A row with <c>capability</c> was compared by that alone. <c>labels</c> holds comparisons of the
/// same two answers by several: <c>{"clarity": 1, "warmth": 2, "safety": "tie"}</c>, where 1 is the chosen answer and 2 the rejected one.
/// </remarks>
internal static class CapabilityLayouts
{
    private const string Capability = "capability";
    private const string Labels = "labels";
    private const int LongestName = 200;

    public static IReadOnlyList<RowLayout> All { get; } =
    [
        .. PreferenceLayouts.Pairs.Select(pair => pair with
        {
            Name = pair.Name + "_by_capability",
            Required = [.. pair.Required, PreferenceLayouts.Category],
            Optional = [.. pair.Optional.Where(column => column != PreferenceLayouts.Category), Capability, Labels],
            Read = fields => Read(fields, pair.Read(fields)),
        }),
    ];

    private static Judgements Read(Fields fields, Sample row)
    {
        IReadOnlyList<JudgedAnswers> pairs = row is Judgements many ? many.All : [(JudgedAnswers)row];
        if (!fields.Has(Labels))
        {
            return new([.. pairs.Select(pair => pair with { Capability = fields.Has(Capability) ? Name(fields.Text(Capability), Capability) : null })]);
        }

        return pairs is [var only] && !fields.Has(Capability)
            ? new([only, .. Labelled(fields[Labels], only)])
            : throw new RowException("wrong_value", "stands for two answers alone, and not beside a capability", Labels);
    }

    private static IEnumerable<JudgedAnswers> Labelled(JsonElement labels, JudgedAnswers pair)
    {
        var parsed = labels.ValueKind == JsonValueKind.String ? Fields.ParseCell(Fields.Text(labels, Labels), Labels) : labels;
        if (parsed.ValueKind != JsonValueKind.Object)
        {
            throw new RowException("wrong_type", $"must be an object of capabilities, found {Fields.Describe(parsed)}", Labels);
        }

        foreach (var label in parsed.EnumerateObject())
        {
            var judged = pair with { Capability = Name(label.Name, Labels) };
            switch (label.Value.ToString())
            {
                case "1":
                    yield return judged;
                    break;
                case "2":
                    yield return judged with { Answers = [pair.Answers[1], pair.Answers[0]] };
                    break;
                case "tie":
                    break;   // says nothing of which is better
                default:
                    throw new RowException("wrong_value", $"must be 1, 2 or \"tie\", found {Fields.Describe(label.Value)}", $"{Labels}.{label.Name}");
            }
        }
    }

    private static string Name(string name, string field) => name.Length is > 0 and <= LongestName
        ? name
        : throw new RowException("wrong_value", $"holds a name of {name.Length} characters; a capability has 1 to {LongestName}", field);
}
