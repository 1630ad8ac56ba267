using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using TrainingService.Tests;

namespace TrainingService.Training.Tests.Spec;

/// <summary>What every method, and every member of a spec, owes to its users. A new method is under these tests by its registry line.</summary>
public class MethodCatalogueTests
{
    public static TheoryData<string> Names => [.. MethodCatalogue.All.Select(method => method.Name)];

    [Fact]
    public void Every_family_is_listed()
    {
        var families = MethodCatalogue.All.Select(method => method.Family).Distinct();

        Assert.Equal(["objective", "adapter", "optimizer", "schedule.lr_scheduler", "quantization"], families);
    }

    [Fact]
    public void Names_are_unique_across_families() =>
        Assert.Equal(MethodCatalogue.All.Count, MethodCatalogue.All.Select(method => method.Name).Distinct().Count());

    [Theory]
    [MemberData(nameof(Names))]
    public void It_says_what_it_is_and_what_it_is_good_for(string name)
    {
        var method = Method(name);

        Assert.All([method.Title, method.Summary, method.GoodFor], text => Assert.False(string.IsNullOrWhiteSpace(text)));
        Assert.True(method.Arxiv is null || method.Arxiv.Split('.') is [{ Length: 4 }, { Length: 5 }], method.Arxiv);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Its_defaults_are_valid_where_it_belongs(string name)
    {
        var method = Method(name);
        var members = method.Family.Split('.').Reverse()
            .Aggregate(method.Defaults.DeepClone(), (inner, member) => new JsonObject { [member] = inner }).AsObject();
        members["model"] = "mdl_1";
        members["data"] = new JsonObject { ["train"] = "file-1" };
        if (name == "atlas")
        {
            members["adapter"]!["task_vectors"] = new JsonArray("ftjob_1");   // what to mix has no default
        }

        if (name == "dmoe_reward")
        {
            members["objective"]!["categories"] = new JsonArray("a");   // the rows' own words
            members["objective"]!["capabilities"] = new JsonArray("b");
        }

        if (name == "kind")
        {
            members["adapter"]!["classes"] = new JsonArray("a");   // nor have the classes of somebody's rows
        }

        Assert.Empty(SpecJson.Parse(members.ToJsonString()).Errors);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Its_page_exists_and_its_settings_are_the_declared_ones(string name)
    {
        var method = Method(name);
        var page = GeneratedFile.Locate(method.Documentation.Split('/'));
        Assert.True(File.Exists(page), $"{page} is missing: write what it is, when to choose it, the formula and the expected result.");
        var text = File.ReadAllText(page);
        var expected = SettingsTable.Refresh(text, method);

        Assert.Contains(SettingsTable.Begin(name), text, StringComparison.Ordinal);
        GeneratedFile.Check(expected, method.Documentation.Split('/'));
    }

    [Fact]
    public void The_readme_links_every_adapter()
    {
        const string Begin = "<!-- adapters: generated, run the tests with UPDATE_SCHEMA=1 -->";
        var text = File.ReadAllText(GeneratedFile.Locate("README.md"));
        var start = text.IndexOf(Begin, StringComparison.Ordinal) + Begin.Length;
        var links = MethodCatalogue.All.Where(method => method.Family == "adapter").Select(method => $"[{method.Name}]({method.Documentation})");

        GeneratedFile.Check($"{text[..start]} {string.Join(", ", links)} {text[text.IndexOf("<!-- end of adapters -->", StringComparison.Ordinal)..]}", "README.md");
    }

    [Fact]
    public void Every_member_is_described() =>
        Assert.All(Members(), member => Assert.True(
            member.Property.AttributeProvider!.IsDefined(typeof(DescriptionAttribute), true), $"{member.Path} has no [Description]."));

    [Fact]
    public void Every_number_is_bounded()
    {
        var numbers = Members().Where(member => IsNumber(member.Property.PropertyType)).ToList();
        var lists = Members().Where(member => ItemType(member.Property.PropertyType) is { } item && IsNumber(item)).ToList();

        Assert.NotEmpty(numbers);
        Assert.NotEmpty(lists);
        Assert.All(numbers, member => Assert.True(Has<RangeAttribute>(member.Property), $"{member.Path} has no [Range]."));
        Assert.All(lists, member => Assert.True(Has<ItemRangeAttribute>(member.Property), $"{member.Path} has no [ItemRange]."));
    }

    [Fact]
    public void Rules_are_of_kinds_that_the_parser_and_the_schema_know()
    {
        Type[] known = [typeof(RangeAttribute), typeof(ItemRangeAttribute), typeof(AllowedItemsAttribute), typeof(LengthAttribute), typeof(RequiredAttribute)];

        Assert.All(
            Members().SelectMany(member => member.Property.AttributeProvider!.GetCustomAttributes(typeof(ValidationAttribute), true)),
            rule => Assert.Contains(rule.GetType(), known));
    }

    [Fact]
    public void Types_are_ones_that_the_parser_knows()
    {
        Type[] scalars = [typeof(string), typeof(bool), typeof(int), typeof(double)];

        Assert.All(Members(), member =>
        {
            var type = ItemType(member.Property.PropertyType) ?? member.Property.PropertyType;
            type = Nullable.GetUnderlyingType(type) ?? type;
            Assert.True(
                scalars.Contains(type) || type.IsEnum || type.IsDefined(typeof(WireFormAttribute))
                || SpecJson.Options.GetTypeInfo(type).Kind == JsonTypeInfoKind.Object,
                $"{member.Path} is a {type.Name}.");
        });
    }

    private static Method Method(string name) => MethodCatalogue.All.Single(method => method.Name == name);

    private static bool IsNumber(Type type) =>
        (Nullable.GetUnderlyingType(type) ?? type) is { IsEnum: false } plain && Type.GetTypeCode(plain) is >= TypeCode.SByte and <= TypeCode.Decimal;

    private static bool Has<T>(JsonPropertyInfo property) => property.AttributeProvider!.IsDefined(typeof(T), true);

    private static Type? ItemType(Type type) => SpecJson.Options.GetTypeInfo(type) is { Kind: JsonTypeInfoKind.Enumerable or JsonTypeInfoKind.Dictionary } info
        ? info.ElementType
        : null;

    private static IEnumerable<(string Path, JsonPropertyInfo Property)> Members() => MembersOf(typeof(TrainingSpec), "spec");

    private static IEnumerable<(string Path, JsonPropertyInfo Property)> MembersOf(Type type, string path)
    {
        var info = SpecJson.Options.GetTypeInfo(type);
        if (info.PolymorphismOptions is { } family)
        {
            return family.DerivedTypes.SelectMany(derived => MembersOf(derived.DerivedType, $"{path}({derived.TypeDiscriminator})"));
        }

        return info.Kind != JsonTypeInfoKind.Object ? [] : info.Properties.SelectMany(property =>
            MembersOf(property.PropertyType, $"{path}.{property.Name}").Prepend(($"{path}.{property.Name}", property)));
    }
}
