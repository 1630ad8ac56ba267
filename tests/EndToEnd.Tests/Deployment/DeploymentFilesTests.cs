using System.Globalization;
using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using TrainingService.Api;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Deployment;

/// <summary>What the files for containers name exists in the programs.</summary>
public sealed partial class DeploymentFilesTests
{
    public static TheoryData<string> Files =>
    [
        "Dockerfile", "Dockerfile.gpu", "docker-compose.yml", "docker-compose.gpu.yml", "deploy/kubernetes/kustomization.yaml",
        "deploy/kubernetes/migrate.yaml", "deploy/kubernetes/api.yaml", "deploy/kubernetes/worker.yaml", "deploy/README.md",
    ];

    [Theory]
    [MemberData(nameof(Files))]
    public void Every_setting_that_is_named_exists(string file)
    {
        var known = SettingsCatalogue.Records.SelectMany(SettingsCatalogue.Of).Select(setting => setting.Variable).ToHashSet();

        Assert.All(SettingName().Matches(Read(file)), match => Assert.Contains(match.Value, known));
    }

    [Fact]
    public void The_production_settings_that_are_demanded_are_all_given()
    {
        string[] demanded = ["Profile", "ConnectionStrings__Postgres", "S3__Endpoint", "S3__AccessKey", "S3__SecretKey", "Auth__ApiKey"];

        Assert.All(demanded, name => Assert.Contains(name, Read("docker-compose.yml"), StringComparison.Ordinal));
        var kubernetes = Read("deploy/kubernetes/kustomization.yaml") + Read("deploy/README.md");
        Assert.All(demanded, name => Assert.Contains(name, kubernetes, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("Dockerfile")]
    [InlineData("Dockerfile.gpu")]
    public void What_is_built_and_started_exists(string file)
    {
        var text = Read(file);
        var published = Published().Matches(text).Select(match => match.Groups[1].Value).ToList();
        var started = Started().Matches(text).Select(match => match.Groups[1].Value).Distinct().ToList();

        Assert.NotEmpty(started);
        Assert.Equal(published, started);
        Assert.All(started, project => Assert.True(File.Exists(Repository.Program(project)), project));
        var projects = string.Concat(published.Select(project => Read($"src/{project}/{project}.csproj")));
        Assert.All(
            Property().Matches(text).Select(match => match.Groups[1].Value).Where(name => name != "RunAnalyzers"),
            name => Assert.Contains($"$({name})", projects, StringComparison.Ordinal));
        var copied = text.Split('\n').Single(line => line.StartsWith("COPY global.json", StringComparison.Ordinal)).Split(' ')[1..^1];
        Assert.All(copied, name => Assert.True(File.Exists(Path.Combine(Repository.Root, name)), name));
        Assert.All(copied, name => Assert.Contains($"!{name}\n", Read(".dockerignore"), StringComparison.Ordinal));
        Assert.DoesNotContain("USER root", text, StringComparison.Ordinal);
        Assert.Contains("USER 1654", text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_grace_periods_are_longer_than_the_programs_take()
    {
        await using var app = ApiApplication.Build(["--urls=http://127.0.0.1:0", "--Worker:ShutdownGraceSeconds=60"]);
        var worker = app.Services.GetRequiredService<IOptions<HostOptions>>().Value.ShutdownTimeout;
        var api = new HostOptions().ShutdownTimeout;

        AssertLonger(worker, Seconds(Section(Read("docker-compose.yml"), "\n  worker:")), Seconds(Read("deploy/kubernetes/worker.yaml")));
        AssertLonger(api, Seconds(Section(Read("docker-compose.yml"), "\n  api:")), Seconds(Read("deploy/kubernetes/api.yaml")));
    }

    [Fact]
    public void The_template_of_secrets_holds_none_and_names_every_variable()
    {
        var template = Read(".env.example").Split('\n').Where(line => line.Contains('=') && !line.StartsWith('#'))
            .ToDictionary(line => line[..line.IndexOf('=', StringComparison.Ordinal)], line => line[(line.IndexOf('=', StringComparison.Ordinal) + 1)..]);

        Assert.All(["POSTGRES_PASSWORD", "S3_SECRET_KEY", "API_KEY"], name => Assert.Equal("", template[name]));
        Assert.Empty(Variable().Matches(Read("docker-compose.yml")).Select(match => match.Groups[1].Value).Except(template.Keys));
        Assert.Contains("\n.env\n", Read(".gitignore"), StringComparison.Ordinal);
    }

    private static void AssertLonger(TimeSpan program, params int[] graces) =>
        Assert.All(graces, grace => Assert.True(grace > program.TotalSeconds, $"{grace} s for a program that may take {program.TotalSeconds} s"));

    private static int Seconds(string text) => int.Parse(Grace().Match(text).Groups[1].Value, CultureInfo.InvariantCulture);

    private static string Section(string text, string heading) => text[text.IndexOf(heading, StringComparison.Ordinal)..];

    private static string Read(string path) => File.ReadAllText(Path.Combine(Repository.Root, path));

    [GeneratedRegex(@"\b[A-Z][A-Za-z0-9]+(?:__[A-Za-z0-9]+)+\b")]
    private static partial Regex SettingName();

    [GeneratedRegex(@"dotnet publish src/(\w+)")]
    private static partial Regex Published();

    [GeneratedRegex(@"ENTRYPOINT \[""dotnet"", ""TrainingService\.(\w+)\.dll""")]
    private static partial Regex Started();

    [GeneratedRegex(@"-p:(\w+)=")]
    private static partial Regex Property();

    [GeneratedRegex(@"(?:stop_grace_period|terminationGracePeriodSeconds): (\d+)")]
    private static partial Regex Grace();

    [GeneratedRegex(@"\$\{(\w+)")]
    private static partial Regex Variable();
}
