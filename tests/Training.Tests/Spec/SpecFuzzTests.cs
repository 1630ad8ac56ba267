using System.Text.Json;
using System.Text.Json.Nodes;
using CsCheck;

namespace TrainingService.Training.Tests.Spec;

/// <summary>Whatever arrives is answered: a spec, or errors. Nothing is thrown.</summary>
public class SpecFuzzTests
{
    private static readonly string Valid = SpecJson.Serialize(SpecJson.Parse(SpecParseTests.With(
        """
        "adapter": { "type": "lora", "target_modules": ["q_proj"], "rank_pattern": { "q_proj": 4 }, "modules_to_save": ["lm_head"] },
        "evaluation": { "metrics": ["loss"] }
        """)).Spec!);

    private static readonly string[] Values =
    [
        "null", "true", "0", "-0", "-1", "1.5", "1e308", "-1e308", "1e400", "1e-400", "9223372036854775808", "18446744073709551616", "1e9999999999",
        "\"\"", "\" \"", "\"lora\"", "\"NaN\"", "\"\\u0000\"", "\"\\ud800\"", "\"(\"", "\"all-linear\"", "\"💥\"", "[]", "[null]", "[[]]",
        "{}", "{\"\":1}", "{\"type\":null}", "{\"type\":\"full\"}", "{\"a\":1,\"a\":2}", "[0.5,0.5,0.5]", "{\"\\ud800\":1}", "{\"(\":1}",
    ];

    [Fact]
    public void A_value_in_any_place_of_a_spec() => Gen.Select(Gen.Int[0, 999], Gen.Int[0, Values.Length - 1], Gen.Int[0, 3]).Sample(
        (place, value, kind) => Check(Mutate(Valid, place, Values[value], kind)), iter: 1_000, threads: 1);

    [Fact]
    public void Characters_changed_in_a_spec() => Gen.Select(Gen.Int[0, Valid.Length - 1], Gen.Char, Gen.Int[0, 2]).List[1, 4].Sample(
        changes => Check(changes.Aggregate(Valid, Change)), iter: 1_000, threads: 1);

    [Fact]
    public void Any_text() => Gen.String.Sample(Check, iter: 500, threads: 1);

    private static string Change(string text, (int At, char Letter, int Kind) change)
    {
        var at = Math.Min(change.At, text.Length - 1);
        return change.Kind switch
        {
            0 => text.Remove(at, 1),
            1 => text.Insert(at, change.Letter.ToString()),
            _ => text[..at] + change.Letter + text[(at + 1)..],
        };
    }

    /// <summary>Replaces, removes, renames or adds at one of the places of a document.</summary>
    private static string Mutate(string json, int place, string value, int kind)
    {
        const string Mark = "\"@here@\"";
        var root = JsonNode.Parse(json)!.AsObject();
        var places = Objects(root).SelectMany(owner => owner.Select(member => (Owner: owner, member.Key))).ToList();
        var (owner, key) = places[place % places.Count];
        switch (kind)
        {
            case 0:
                owner.Remove(key);
                break;
            case 1:
                var moved = owner[key]?.DeepClone();
                owner.Remove(key);
                owner[key + "x"] = moved;
                break;
            case 2:
                owner["extra"] = "@here@";
                break;
            default:
                owner[key] = "@here@";
                break;
        }

        return root.ToJsonString(SpecJson.Options).Replace(Mark, value, StringComparison.Ordinal);
    }

    private static IEnumerable<JsonObject> Objects(JsonObject node) =>
        node.Select(member => member.Value).OfType<JsonObject>().SelectMany(Objects).Prepend(node);

    private static void Check(string json)
    {
        var result = SpecJson.Parse(json);
        Assert.Equal(result.Spec is null, result.Errors.Count > 0);
        Assert.All(result.Errors, error =>
        {
            Assert.InRange(error.Message.Length, 10, 1_000);
            Assert.Contains(error.Code, SpecCodes);
        });
        if (result.Spec is { } spec)
        {
            var written = SpecJson.Serialize(spec);
            Assert.Equal(written, SpecJson.Serialize(JsonSerializer.Deserialize<TrainingSpec>(written, SpecJson.Options)!));
            Assert.Empty(SpecJson.Parse(written).Errors);
        }
    }

    private static readonly HashSet<string> SpecCodes =
        [.. typeof(SpecErrorCodes).GetFields().Select(field => (string)field.GetRawConstantValue()!)];
}
