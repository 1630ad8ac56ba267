using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using TrainingService.Api;
using TrainingService.Tests;

namespace TrainingService.EndToEnd.Tests.Deployment;

public sealed class SettingsPageTests
{
    private const string Begin = "<!-- settings: generated, run the tests of SettingsPageTests with UPDATE_SCHEMA=1 -->";
    private const string End = "<!-- end of settings -->";

    [Fact]
    public void The_page_lists_every_setting_with_type_default_bounds_and_meaning()
    {
        var page = File.ReadAllText(GeneratedFile.Locate("docs", "configuration.md"));
        var start = page.IndexOf(Begin, StringComparison.Ordinal) + Begin.Length;
        var end = page.IndexOf(End, StringComparison.Ordinal);
        Assert.True(start >= Begin.Length && end > start, "docs/configuration.md has lost the markers of its generated part.");

        GeneratedFile.Check($"{page[..start]}\n{SettingsCatalogue.Page()}{page[end..]}", "docs", "configuration.md");
    }

    [Fact]
    public async Task Whatever_configuration_is_bound_to_is_on_the_page_and_nothing_else()
    {
        await using var embedded = ApiApplication.Build(["--urls=http://127.0.0.1:0"]);
        await using var production = ApiApplication.Build(["--urls=http://127.0.0.1:0", "--Profile=production"]);
        var bound = SettingsCatalogue.Assemblies.SelectMany(assembly => assembly.GetTypes())
            .Where(type => type is { IsClass: true, ContainsGenericParameters: false } && !(type.IsAbstract && type.IsSealed))
            .Where(type => IsBound(embedded.Services, type) || IsBound(production.Services, type))
            .ToHashSet();

        Assert.NotEmpty(bound);
        Assert.Equal(bound.Order(ByName), SettingsCatalogue.Records.Order(ByName));
    }

    private static readonly Comparer<Type> ByName = Comparer<Type>.Create((a, b) => string.CompareOrdinal(a.FullName, b.FullName));

    private static bool IsBound(IServiceProvider services, Type options) =>
        services.GetServices(typeof(IOptionsChangeTokenSource<>).MakeGenericType(options)).Any();
}
