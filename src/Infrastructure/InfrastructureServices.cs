using Hangfire;
using Hangfire.AspNetCore;
using Hangfire.InMemory;
using Hangfire.PostgreSql;
using Hangfire.PostgreSql.Factories;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Npgsql;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Data;
using TrainingService.Infrastructure.Health;
using TrainingService.Infrastructure.Hub;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Infrastructure.Queue;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.Infrastructure;

/// <summary>Registers database, courier and artifact store as the configured profile wants them.</summary>
public static class InfrastructureServices
{
    /// <summary>
    /// Adds <see cref="AppDbContext"/> (scoped) and its factory, <see cref="IArtifactStore"/>, <see cref="IJobQueue"/>,
    /// <see cref="JobStore"/>, <see cref="DatabaseMigrator"/>, Hangfire's storage, health checks and the reconciler. On the embedded profile the
    /// migrations are applied when the host starts.
    /// </summary>
    public static IServiceCollection AddTrainingServiceInfrastructure(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<ServiceOptions>().Bind(configuration).ValidateDataAnnotations().ValidateOnStart();
        services.AddOptions<ReconcilerOptions>().Bind(configuration.GetSection(ReconcilerOptions.Section)).ValidateDataAnnotations().ValidateOnStart();
        services.AddOptions<StoreSweepOptions>().Bind(configuration.GetSection(StoreSweepOptions.Section)).ValidateDataAnnotations().ValidateOnStart();
        services.AddSingleton<StoreSweep>();
        services.TryAddSingleton(TimeProvider.System);
        services.AddSingleton<JobStore>();
        services.AddSingleton<IJobQueue, HangfireJobQueue>();
        services.AddSingleton<DatabaseMigrator>();
        services.AddHealth();
        var options = configuration.Get<ServiceOptions>() ?? new ServiceOptions();
        if (options.Profile == ServiceProfile.Embedded)
        {
            AddEmbedded(services, options);
        }
        else
        {
            AddProduction(services, configuration);
        }

        AddHub(services, configuration);
        services.AddHostedService<Reconciler>();
        services.AddHostedService<StoreSweeper>();
        return services;
    }

    private static void AddHub(IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<HubOptions>().Bind(configuration.GetSection(HubOptions.Section)).ValidateDataAnnotations().ValidateOnStart();
        services.AddSingleton(HubNetwork.Default);
        services.AddSingleton<HubHttp>();
        services.AddSingleton<HubClient>();
        services.AddSingleton<HubDownload>();
    }

    private static void AddEmbedded(IServiceCollection services, ServiceOptions options)
    {
        var connection = $"Data Source={Path.Combine(options.DataPath, "service.db")};Foreign Keys=True;Default Timeout=30";
        services.AddDatabase<SqliteDbContext>(db => db.UseSqlite(connection));
        services.AddSingleton<IArtifactStore>(_ => new FolderArtifactStore(Path.Combine(options.DataPath, "artifacts")));
        services.AddCourier(() => new InMemoryStorage(new InMemoryStorageOptions { MaxExpirationTime = TimeSpan.FromHours(1) }));
        services.AddHostedService<EmbeddedStart>();
    }

    private static void AddProduction(IServiceCollection services, IConfiguration configuration)
    {
        services.AddOptions<DatabaseOptions>()
            .Bind(configuration.GetSection(DatabaseOptions.Section))
            .Validate(o => !string.IsNullOrWhiteSpace(o.Postgres), "ConnectionStrings:Postgres is empty: the production profile needs a database.")
            .ValidateOnStart();
        services.AddOptions<S3Options>().Bind(configuration.GetSection(S3Options.Section)).ValidateDataAnnotations().ValidateOnStart();
        var connection = configuration.GetConnectionString("Postgres") ?? "";
        services.AddDatabase<PostgresDbContext>(db => db.UseNpgsql(WithoutIdleLocks(connection)));
        services.AddSingleton<IArtifactStore, S3ArtifactStore>();

        // Both arguments: without the second one every setting stays at its default, and a long run starts a second time.
        var options = new PostgreSqlStorageOptions
        {
            UseSlidingInvisibilityTimeout = true,
            InvisibilityTimeout = TimeSpan.FromMinutes(10),
            QueuePollInterval = TimeSpan.FromSeconds(2),
            EnableTransactionScopeEnlistment = false,
            AllowDegradedModeWithoutStorage = false,
            PrepareSchemaIfNecessary = false,
        };
        services.AddCourier(() => new PostgreSqlStorage(
            new NpgsqlConnectionFactory(new NpgsqlConnectionStringBuilder(connection) { Enlist = false }.ConnectionString, options), options));
    }

    /// <summary>
    /// Hangfire keeps the storage and the activator that were configured last in static fields, and hands those out unless a host has its
    /// own: two hosts of one process would run each other's jobs, and not wait for their own when they stop.
    /// </summary>
    private static void AddCourier(this IServiceCollection services, Func<JobStorage> storage)
    {
        services.AddSingleton(provider =>
        {
            provider.GetRequiredService<IGlobalConfiguration>();   // its settings hold for whatever the storage serializes
            return storage();
        });
        services.AddSingleton<JobActivator>(provider => new AspNetCoreJobActivator(provider.GetRequiredService<IServiceScopeFactory>()));
        services.AddHangfire(hangfire => hangfire
            .SetDataCompatibilityLevel(CompatibilityLevel.Version_180)
            .UseSimpleAssemblyNameTypeSerializer()
            .UseRecommendedSerializerSettings());
    }

    /// <summary>
    /// A process that is stopped in the middle of a transaction keeps its row locks, and nobody could take its job back. Postgres ends
    /// such a transaction after ten seconds; a process that lives needs milliseconds between two statements.
    /// </summary>
    private static string WithoutIdleLocks(string connection)
    {
        var settings = new NpgsqlConnectionStringBuilder(connection);
        settings.Options = $"{settings.Options} -c idle_in_transaction_session_timeout=10000".TrimStart();
        return settings.ConnectionString;
    }

    private static void AddDatabase<T>(this IServiceCollection services, Action<DbContextOptionsBuilder> configure)
        where T : AppDbContext
    {
        services.AddDbContextFactory<T>(configure);
        services.AddSingleton<IDbContextFactory<AppDbContext>, AppDbContextFactory<T>>();
        services.AddScoped<AppDbContext>(provider => provider.GetRequiredService<T>());
    }

    /// <summary>Hands the provider's context out under the name that everybody asks for.</summary>
    private sealed class AppDbContextFactory<T>(IDbContextFactory<T> inner) : IDbContextFactory<AppDbContext>
        where T : AppDbContext
    {
        public AppDbContext CreateDbContext() => inner.CreateDbContext();
    }
}
