using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Npgsql;
using TrainingService.Infrastructure;

namespace TrainingService.Bench;

/// <summary>The service's own parts on the production profile, with a database and a bucket of their own; nothing runs in the background.</summary>
internal sealed class Production : IAsyncDisposable
{
    private readonly IHost _host;
    private readonly string _folder;
    private readonly string _server;
    private readonly string _name;

    private Production(IHost host, string folder, string server, string name) => (_host, _folder, _server, _name) = (host, folder, server, name);

    public IServiceProvider Services => _host.Services;

    /// <exception cref="InvalidOperationException">A server is not named.</exception>
    public static async Task<Production> CreateAsync(CancellationToken cancellationToken)
    {
        var server = Variable("TRAINING_TEST_POSTGRES");
        var name = $"bench{Guid.NewGuid():N}"[..20];
        await AdministerAsync(server, $"CREATE DATABASE {name}", cancellationToken);
        var folder = Directory.CreateTempSubdirectory("training-bench-").FullName;
        var builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        builder.Configuration.AddInMemoryCollection(new Dictionary<string, string?>
        {
            ["Profile"] = "production",
            ["DataFolder"] = folder,
            ["ConnectionStrings:Postgres"] = new NpgsqlConnectionStringBuilder(server) { Database = name }.ConnectionString,
            ["S3:Endpoint"] = Variable("TRAINING_TEST_S3_ENDPOINT"),
            ["S3:AccessKey"] = Variable("TRAINING_TEST_S3_ACCESS_KEY"),
            ["S3:SecretKey"] = Variable("TRAINING_TEST_S3_SECRET_KEY"),
            ["S3:Bucket"] = name,
            ["S3:UseTls"] = "false",
        });
        builder.Services.AddTrainingServiceInfrastructure(builder.Configuration);
        var host = builder.Build();
        await host.Services.GetRequiredService<DatabaseMigrator>().MigrateAsync(cancellationToken);
        return new Production(host, folder, server, name);
    }

    public Task<AppDbContext> OpenAsync(CancellationToken cancellationToken) =>
        Services.GetRequiredService<IDbContextFactory<AppDbContext>>().CreateDbContextAsync(cancellationToken);

    public async ValueTask DisposeAsync()
    {
        _host.Dispose();
        NpgsqlConnection.ClearAllPools();
        await AdministerAsync(_server, $"DROP DATABASE {_name} WITH (FORCE)", CancellationToken.None);
        Directory.Delete(_folder, recursive: true);
    }

    private static string Variable(string name) =>
        Environment.GetEnvironmentVariable(name) ?? throw new InvalidOperationException($"{name} is not set; bench/run.sh sets it.");

    private static async Task AdministerAsync(string server, string sql, CancellationToken cancellationToken)
    {
        await using var connection = new NpgsqlConnection(server);
        await connection.OpenAsync(cancellationToken);
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }
}
