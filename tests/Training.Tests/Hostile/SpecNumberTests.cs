using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Spec;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>Every number of a spec at every extreme: refused by its path, or accepted and estimated without overflow.</summary>
public class SpecNumberTests
{
    private static readonly string[] Extremes =
    [
        "NaN", "Infinity", "-Infinity", "\"NaN\"", "\"Infinity\"", "\"1\"", "1e308", "-1e308", "1e-320", "-1e-320", "1e400", "-1e400", "1e-400", "9223372036854775807",
        "9223372036854775808", "-9223372036854775809", "18446744073709551616", "2147483647", "2147483648", "-2147483649", "-0", "0", "-0.0", "-1", "1.5", "0.1", "1e0",
        new('9', 100), "-" + new string('9', 100), "0." + new string('3', 100), "1e99999999999", "[1]", "true", "null", "{}",
    ];

    // What stands for a name that the owner of a spec gives.
    private const string AnyName = "q_proj";

    // The largest that a configuration may say, and an ordinary one.
    private static readonly ModelConfig[] Models =
    [
        SpecModels.Stories260K,
        ModelConfig.Parse("""
            {"architectures": ["LlamaForCausalLM"], "hidden_size": 131072, "intermediate_size": 1048576, "num_hidden_layers": 40, "num_attention_heads": 1024,
             "num_key_value_heads": 1024, "vocab_size": 1000000, "max_position_embeddings": 1073741824, "tie_word_embeddings": false}
            """),
    ];

    public static TheoryData<string> Numbers => [.. Paths()];

    [Theory]
    [MemberData(nameof(Numbers))]
    public void A_number_at_every_extreme(string path)
    {
        foreach (var extreme in Extremes)
        {
            var result = SpecJson.Parse(With(path, extreme));

            if (result.Spec is null)
            {
                // What only contradicts another member is reported at one of the two, and names both.
                var error = result.Errors[0];
                var named = error.Code == SpecErrorCodes.Conflict && error.Message.Contains(path.Split('.')[^1], StringComparison.Ordinal);
                Assert.True(
                    named || IsWithin(error.Path, path) || error.Code == SpecErrorCodes.MalformedJson, $"{path} = {extreme}: {error.Path} {error.Message}");
                Assert.InRange(error.Message.Length, 10, 600);
                continue;
            }

            foreach (var model in Models)
            {
                Sane(result.Spec, model, $"{path} = {extreme}");
            }
        }
    }

    /// <summary>All numbers at their largest together, which no bound of one alone keeps from overflowing.</summary>
    [Fact]
    public void All_numbers_at_their_largest()
    {
        foreach (var largest in new[] { "maximum", "exclusiveMaximum", "minimum" })
        {
            var spec = JsonNode.Parse(SpecParseTests.With(""))!.AsObject();
            foreach (var (path, bounds) in Walk(SpecJson.Schema(), ""))
            {
                if (bounds[largest] is { } bound && !path.Contains('*') && !path.StartsWith("schedule.max_steps", StringComparison.Ordinal))
                {
                    Put(spec, path, bound.DeepClone());
                }
            }

            spec["adapter"] = new JsonObject { ["type"] = "full" };
            if (SpecJson.Parse(spec.ToJsonString()).Spec is { } parsed)
            {
                Sane(parsed, Models[1], largest);
            }
        }
    }

    private static void Sane(TrainingSpec spec, ModelConfig model, string what)
    {
        if (spec.Adapter.Check(model).Count > 0)
        {
            return;   // refused with its path before anything is counted
        }

        var estimate = Estimate.For(spec, model, new DataSize(long.MaxValue / 4, long.MaxValue / 2));
        Assert.True(estimate.TotalParameters >= spec.Objective.On(model).ParameterCount, what);
        Assert.InRange(estimate.TrainableShare, 0, 1);
        foreach (var bytes in new[]
        {
            estimate.Memory.WeightsBytes, estimate.Memory.TrainedBytes, estimate.Memory.GradientsBytes, estimate.Memory.OptimizerBytes,
            estimate.Memory.ActivationsBytes, estimate.Memory.LogitsBytes, estimate.ArtifactBytes,
        })
        {
            Assert.True(bytes >= 0, $"{what}: {estimate}");
            Assert.True(estimate.Memory.TotalBytes >= bytes, $"{what}: {estimate}");
        }

        Assert.True(estimate.Steps is null or >= 1, $"{what}: {estimate.Steps} steps");
    }

    /// <summary>Whether an error's path names the member, or what it belongs to.</summary>
    private static bool IsWithin(string path, string part)
    {
        var wanted = string.Join('.', part.Split('.').Select(name => name == "*" ? AnyName : name.Split('(', '[')[0]));
        return path.StartsWith(wanted, StringComparison.Ordinal) || (path.Length > 0 && wanted.StartsWith(path, StringComparison.Ordinal));
    }

    private static string With(string path, string value)
    {
        var spec = JsonNode.Parse(SpecParseTests.With(""))!.AsObject();
        Put(spec, path, "@here@");
        if (spec["adapter"] is JsonObject adapter)
        {
            // What these methods cannot do without.
            _ = (string?)adapter["type"] switch
            {
                "atlas" => adapter["task_vectors"] = new JsonArray("vector"),
                "kind" => adapter["classes"] = new JsonArray("one"),
                _ => null,
            };
        }

        if (spec["evaluation"]?["sections"]?[AnyName] is JsonObject section)
        {
            section["subsets"] ??= new JsonObject { [AnyName] = 1 };
        }

        if (spec["objective"] is JsonObject objective && (string?)objective["type"] == "dmoe_reward")
        {
            objective["categories"] = new JsonArray("one", "other");
            objective["capabilities"] = new JsonArray("this", "that");
        }

        return spec.ToJsonString().Replace("\"@here@\"", value, StringComparison.Ordinal);
    }

    /// <summary>Paths of all numbers, with the type of each part that has one in front: <c>adapter(lora).rank</c>.</summary>
    private static IEnumerable<string> Paths() => Walk(SpecJson.Schema(), "").Select(number => number.Path).Distinct();

    private static IEnumerable<(string Path, JsonObject Bounds)> Walk(JsonNode schema, string path)
    {
        if (schema is not JsonObject node)
        {
            yield break;
        }

        foreach (var alternatives in new[] { node["oneOf"], node["anyOf"] }.OfType<JsonArray>())
        {
            foreach (var found in alternatives.SelectMany(one => Walk(one!, path + Tag(one!))))
            {
                yield return found;
            }
        }

        var types = node["type"] switch { JsonArray several => several.Select(one => (string)one!), JsonValue one => [(string)one!], _ => [] };
        if (types.Any(type => type is "number" or "integer"))
        {
            yield return (path, node);
        }

        foreach (var (name, member) in (node["properties"] as JsonObject) ?? [])
        {
            foreach (var found in Walk(member!, path.Length == 0 ? name : $"{path}.{name}"))
            {
                yield return found;
            }
        }

        foreach (var (item, mark) in new[] { (node["items"], "[0]"), (node["additionalProperties"], ".*") })
        {
            if (item is JsonObject)
            {
                foreach (var found in Walk(item, path + mark))
                {
                    yield return found;
                }
            }
        }
    }

    private static string Tag(JsonNode alternative) => alternative["properties"]?["type"]?["const"] is { } type ? $"({type})" : "";

    private static void Put(JsonObject spec, string path, JsonNode value)
    {
        JsonNode parent = spec;
        var parts = path.Split('.');
        for (var i = 0; i < parts.Length; i++)
        {
            var name = parts[i];
            var owner = (JsonObject)parent;
            if (name.EndsWith("[0]", StringComparison.Ordinal))
            {
                owner[name[..^3]] = i == parts.Length - 1 ? new JsonArray(value, value.DeepClone(), value.DeepClone()) : throw new NotSupportedException(path);
                return;
            }

            var tag = name.IndexOf('(', StringComparison.Ordinal);
            var key = tag >= 0 ? name[..tag] : name == "*" ? AnyName : name;
            if (i == parts.Length - 1)
            {
                owner[key] = value;
                return;
            }

            owner[key] ??= tag >= 0 ? new JsonObject { ["type"] = name[(tag + 1)..^1] } : new JsonObject();
            parent = owner[key]!;
        }
    }
}
