using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Npgsql;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>A database of its own per test, migrated, with what the profile registers; nothing runs in the background.</summary>
internal sealed class TestService : IAsyncDisposable
{
    private readonly IHost _host;
    private readonly string? _database;

    private TestService(IHost host, string folder, string? database)
    {
        _host = host;
        Folder = folder;
        _database = database;
    }

    public string Folder { get; }

    public IServiceProvider Services => _host.Services;

    public JobStore Jobs => Services.GetRequiredService<JobStore>();

    public static Task<TestService> CreateAsync(ServiceProfile profile, params (string Name, string Value)[] more) =>
        CreateAsync(profile, _ => { }, more);

    /// <param name="configure">Puts other parts in the place of the registered ones.</param>
    public static async Task<TestService> CreateAsync(
        ServiceProfile profile, Action<IServiceCollection> configure, params (string Name, string Value)[] more)
    {
        var server = profile == ServiceProfile.Production ? TestNeeds.Postgres : null;   // skips before anything is left behind
        var folder = Directory.CreateTempSubdirectory("training-service-").FullName;
        var settings = new Dictionary<string, string?> { ["Profile"] = profile.ToString(), ["DataFolder"] = folder };
        string? database = null;
        if (server is not null)
        {
            database = $"test_{Guid.NewGuid():N}";
            await AdministerAsync($"CREATE DATABASE {database}");
            settings["ConnectionStrings:Postgres"] =
                new NpgsqlConnectionStringBuilder(server) { Database = database, IncludeErrorDetail = true }.ConnectionString;
            settings["S3:Endpoint"] = "unused";
            settings["S3:AccessKey"] = "unused";
            settings["S3:SecretKey"] = "unused";
        }

        foreach (var (name, value) in more)
        {
            settings[name] = value;
        }

        var builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        builder.Configuration.AddInMemoryCollection(settings);
        builder.Services.AddTrainingServiceInfrastructure(builder.Configuration);
        configure(builder.Services);
        var host = builder.Build();
        await host.Services.GetRequiredService<DatabaseMigrator>().MigrateAsync(TestContext.Current.CancellationToken);
        return new TestService(host, folder, database);
    }

    public Task<AppDbContext> OpenAsync() =>
        Services.GetRequiredService<IDbContextFactory<AppDbContext>>().CreateDbContextAsync(TestContext.Current.CancellationToken);

    public async Task<Guid> SubmitAsync(Guid? project = null, int priority = 0, DateTimeOffset? at = null)
    {
        var owner = project ?? Project.BuiltIn;
        await HaveProjectAsync(owner);
        await using var db = await OpenAsync();
        var request = new NewJob
        {
            ProjectId = owner,
            SpecJson = "{\"seed\": 1}",
            RequestJson = "{}",
            Model = "tiny",
            Priority = priority,
        };
        var job = TrainingJob.Submit(request, at ?? TimeProvider.System.GetUtcNow());
        db.Jobs.Add(job);
        await db.SaveChangesAsync(TestContext.Current.CancellationToken);
        return job.Id;
    }

    /// <summary>Makes a project that is not there yet. Several callers may want one at a time.</summary>
    private async Task HaveProjectAsync(Guid id)
    {
        await using var db = await OpenAsync();
        if (await db.Projects.AnyAsync(p => p.Id == id, TestContext.Current.CancellationToken))
        {
            return;
        }

        db.Projects.Add(new Project { Id = id, Name = id.ToString(), CreatedAt = TimeProvider.System.GetUtcNow() });
        try
        {
            await db.SaveChangesAsync(TestContext.Current.CancellationToken);
        }
        catch (DbUpdateException)
        {
            // Somebody else was faster, unless it is something else.
            await using var again = await OpenAsync();
            Assert.True(await again.Projects.AnyAsync(p => p.Id == id, TestContext.Current.CancellationToken));
        }
    }

    public async Task<TrainingJob> ReadAsync(Guid id)
    {
        await using var db = await OpenAsync();
        return await db.Jobs.AsNoTracking().SingleAsync(j => j.Id == id, TestContext.Current.CancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        _host.Dispose();
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        if (_database is not null)
        {
            NpgsqlConnection.ClearAllPools();
            await AdministerAsync($"DROP DATABASE {_database} WITH (FORCE)");
        }

        Directory.Delete(Folder, recursive: true);
    }

    private static async Task AdministerAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(TestNeeds.Postgres);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }
}
