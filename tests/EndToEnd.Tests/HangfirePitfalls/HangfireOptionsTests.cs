using System.Reflection;
using System.Transactions;
using Hangfire;
using Hangfire.PostgreSql;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using TrainingService.Api;
using TrainingService.Domain.Jobs;
using TrainingService.EndToEnd.Tests.Infrastructure;
using TrainingService.EndToEnd.Tests.Running;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Queue;
using TrainingService.Worker;

namespace TrainingService.EndToEnd.Tests.HangfirePitfalls;

/// <summary>
/// The documented ways in which Hangfire on Postgres runs a long job twice, drops it or aborts it, as far as settings decide. The letters are
/// those of docs/decisions/0005-hangfire-is-only-the-courier.md; <see cref="HangfireDeliveryTests"/> has the others.
/// </summary>
public sealed class HangfireOptionsTests
{
    private static readonly string[] Production =
    [
        "--Profile=production", "--ConnectionStrings:Postgres=Host=127.0.0.1;Port=1;Database=none;Username=none", "--S3:Endpoint=127.0.0.1:1",
        "--S3:AccessKey=unused", "--S3:SecretKey=unused",
    ];

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_and_l_Options_that_were_given_are_in_force_and_long_polling_is_off()
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Production);
        var storage = Assert.IsType<PostgreSqlStorage>(service.Services.GetRequiredService<JobStorage>());
        var options = (PostgreSqlStorageOptions)typeof(PostgreSqlStorage)
            .GetProperty("Options", BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)!.GetValue(storage)!;

        Assert.True(options.UseSlidingInvisibilityTimeout);
        Assert.Equal(TimeSpan.FromMinutes(10), options.InvisibilityTimeout);
        Assert.InRange(options.QueuePollInterval, TimeSpan.FromMilliseconds(100), TimeSpan.FromSeconds(5));
        Assert.False(options.EnableTransactionScopeEnlistment);
        Assert.False(options.AllowDegradedModeWithoutStorage);
        Assert.False(options.PrepareSchemaIfNecessary);
        Assert.False(options.EnableLongPolling);
    }

    [Fact]
    public async Task D_The_switch_for_legacy_timestamps_is_never_set()
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Production);

        Assert.False(AppContext.TryGetSwitch("Npgsql.EnableLegacyTimestampBehavior", out var isOn) && isOn);
        Assert.Empty(Sources("EnableLegacyTimestampBehavior"));
    }

    [Fact]
    public async Task D_Reconciling_does_not_grow_the_queue()
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Production, ("Reconciler:IntervalSeconds", "0.1"));
        for (var i = 0; i < 20; i++)
        {
            await service.SubmitAsync();
        }

        var reconciler = service.Services.GetServices<IHostedService>().Single(hosted => hosted.GetType().Name == "Reconciler");
        await reconciler.StartAsync(Cancel);
        var counts = new List<long>();
        for (var pass = 0; pass < 15; pass++)
        {
            await Task.Delay(100, Cancel);
            counts.Add(await NumberAsync(service, "SELECT count(*) AS \"Value\" FROM hangfire.jobqueue"));
        }

        await reconciler.StopAsync(Cancel);
        Assert.InRange(counts.Max(), 1, 16);
    }

    [Fact]
    public void F_and_h_Every_server_waits_longer_than_a_checkpoint_takes_and_forgives_an_outage_of_hours()
    {
        var (host, server) = Worker(("Worker:ShutdownGraceSeconds", "90"));
        using (host)
        {
            Assert.Equal(TimeSpan.FromHours(12), server.ServerTimeout);
            Assert.Equal(TimeSpan.FromSeconds(30), server.HeartbeatInterval);
            Assert.True(server.ShutdownTimeout > TimeSpan.FromSeconds(90));
            Assert.True(host.Services.GetRequiredService<IOptions<HostOptions>>().Value.ShutdownTimeout > server.ShutdownTimeout);
            Assert.Equal([HangfireJobQueue.QueueName], server.Queues);
        }
    }

    [Fact]
    public async Task H_The_API_runs_no_server_whose_watchdog_could_judge_by_another_timeout()
    {
        await using var api = ApiApplication.Build(["--urls=http://127.0.0.1:0", .. Production]);

        Assert.DoesNotContain(api.Services.GetServices<IHostedService>(), hosted => hosted is BackgroundJobServerHostedService);
    }

    [Fact]
    public void I_No_lock_of_Hangfire_is_used()
    {
        Assert.Empty(Sources("DisableConcurrentExecution"));
        Assert.Empty(Sources("AcquireDistributedLock"));
        Assert.DoesNotContain(GlobalJobFilters.Filters, filter => filter.Instance is DisableConcurrentExecutionAttribute);
        var attributes = new[] { typeof(ServiceOptions), typeof(WorkerOptions), typeof(ApiApplication) }
            .SelectMany(type => type.Assembly.GetTypes())
            .SelectMany(type => type.GetMembers(BindingFlags.Instance | BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic).Append(type))
            .SelectMany(member => member.GetCustomAttributesData())
            .Select(attribute => attribute.AttributeType);
        Assert.DoesNotContain(typeof(DisableConcurrentExecutionAttribute), attributes);
    }

    [Fact]
    public void No_job_is_retried_by_Hangfire()
    {
        // Read and not made: the attribute's constructor asks for a logger, which may be that of a host that another test has disposed.
        var retry = typeof(ITrainingJobRunner).GetMethod(nameof(ITrainingJobRunner.RunAsync))!.GetCustomAttributesData()
            .Single(data => data.AttributeType == typeof(AutomaticRetryAttribute));

        Assert.Equal(0, retry.NamedArguments.Single(argument => argument.MemberName == nameof(AutomaticRetryAttribute.Attempts)).TypedValue.Value);
    }

    [Fact]
    public async Task K_A_wake_up_joins_no_ambient_transaction_and_a_lost_one_fails_nobody()
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Production);
        var queue = service.Services.GetRequiredService<IJobQueue>();
        using (new TransactionScope(TransactionScopeAsyncFlowOption.Enabled))
        {
            queue.Wake(Guid.NewGuid());   // the scope is never completed
        }

        Assert.Equal(1, await NumberAsync(service, "SELECT count(*) AS \"Value\" FROM hangfire.jobqueue"));
        await using var away = ApiApplication.Build(["--urls=http://127.0.0.1:0", "--Logging:LogLevel:Default=None", .. Production]);
        away.Services.GetRequiredService<IJobQueue>().Wake(Guid.NewGuid());
    }

    [Fact]
    public async Task M_A_wake_up_holds_the_id_of_a_job_and_nothing_else()
    {
        await using var service = await TestService.CreateAsync(ServiceProfile.Production);
        var id = await service.SubmitAsync();
        service.Services.GetRequiredService<IJobQueue>().Wake(id);

        await using var db = await service.OpenAsync();
        var arguments = await db.Database.SqlQueryRaw<string>("SELECT arguments::text AS \"Value\" FROM hangfire.job").SingleAsync(Cancel);
        Assert.Equal($"[\"\\\"{id}\\\"\",null]", string.Concat(arguments.Where(c => c != ' ')));
        var parameters = await db.Database.SqlQueryRaw<string>("SELECT name || '=' || value AS \"Value\" FROM hangfire.jobparameter").ToListAsync(Cancel);
        Assert.All(parameters, parameter => Assert.Matches("^(CurrentCulture|CurrentUICulture)=", parameter));
    }

    [Fact]
    public async Task M_The_dashboard_is_not_served()
    {
        var folder = Directory.CreateTempSubdirectory("dashboard-");
        await using (var app = ApiApplication.Build(
            ["--urls=http://127.0.0.1:0", $"--DataFolder={folder.FullName}", "--Worker:Enabled=false", "--Logging:LogLevel:Default=Error"]))
        {
            await app.StartAsync(Cancel);
            using var http = new HttpClient { BaseAddress = new Uri(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First()) };
            Assert.Equal(404, (int)(await http.GetAsync(new Uri("/hangfire", UriKind.Relative), Cancel)).StatusCode);
            await app.StopAsync(Cancel);
        }

        Assert.Empty(Sources("HangfireDashboard"));
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        folder.Delete(recursive: true);
    }

    private static (IHost Host, BackgroundJobServerOptions Server) Worker(params (string Name, string Value)[] settings)
    {
        var builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        builder.Configuration.AddInMemoryCollection(settings.ToDictionary(pair => pair.Name, pair => (string?)pair.Value));
        builder.Services.AddTrainingServiceInfrastructure(builder.Configuration);
        builder.Services.AddTrainingWorker(builder.Configuration);
        var host = builder.Build();
        var server = host.Services.GetServices<IHostedService>().OfType<BackgroundJobServerHostedService>().Single();
        var options = typeof(BackgroundJobServerHostedService).GetFields(BindingFlags.Instance | BindingFlags.NonPublic)
            .Single(field => field.FieldType == typeof(BackgroundJobServerOptions));
        return (host, (BackgroundJobServerOptions)options.GetValue(server)!);
    }

    private static async Task<long> NumberAsync(TestService service, string sql)
    {
        await using var db = await service.OpenAsync();
        return await db.Database.SqlQueryRaw<long>(sql).SingleAsync(Cancel);
    }

    private static IEnumerable<string> Sources(string word) => Directory
        .EnumerateFiles(Path.Combine(Repository.Root, "src"), "*.cs", SearchOption.AllDirectories)
        .Where(file => File.ReadAllText(file).Contains(word, StringComparison.Ordinal));
}
