using System.Text.Json.Nodes;
using TrainingService.Tests;
using TrainingService.Training.Adapters;

namespace TrainingService.Training.Tests.Spec;

public class SpecSchemaTests
{
    [Fact]
    public void The_published_schema_is_the_declared_one() =>
        GeneratedFile.Check(SpecJson.Schema().ToJsonString(SpecJson.Options) + "\n", "docs", "schema", "training-spec.json");

    [Fact]
    public void A_member_has_its_description_bounds_and_default()
    {
        var rank = Member(SpecJson.SchemaOf(typeof(LoraConfig)), "rank");

        Assert.Equal("Rank r of the update.", (string?)rank["description"]);
        Assert.Equal((1, 65_536, 16), ((int)rank["minimum"]!, (int)rank["maximum"]!, (int)rank["default"]!));
        Assert.Equal("integer", (string?)rank["type"]);
    }

    [Fact]
    public void A_family_is_a_choice_between_types()
    {
        var adapter = Member(SpecJson.Schema(), "adapter");

        var types = adapter["oneOf"]!.AsArray().Select(choice => (string?)choice!["properties"]!["type"]!["const"]);
        Assert.Equal(["full", "lora"], types.Take(2));
        Assert.Equal(MethodCatalogue.All.Where(method => method.Family == "adapter").Select(method => method.Name), types);
    }

    [Fact]
    public void Unknown_members_are_refused_everywhere()
    {
        var objects = Objects(SpecJson.Schema()).ToList();

        Assert.True(objects.Count >= 12);
        Assert.All(objects, node => Assert.NotNull(node["additionalProperties"]));
    }

    [Fact]
    public void A_schema_needs_no_other_place_of_the_document() =>
        Assert.DoesNotContain("\"$ref\"", SpecJson.Schema().ToJsonString(), StringComparison.Ordinal);

    private static JsonObject Member(JsonObject schema, string name) => schema["properties"]![name]!.AsObject();

    private static IEnumerable<JsonObject> Objects(JsonNode? node) => node switch
    {
        JsonObject schema when schema.ContainsKey("properties") => schema.SelectMany(pair => Objects(pair.Value)).Prepend(schema),
        JsonObject schema => schema.SelectMany(pair => Objects(pair.Value)),
        JsonArray items => items.SelectMany(Objects),
        _ => [],
    };
}
