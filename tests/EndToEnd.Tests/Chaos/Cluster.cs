using System.Globalization;
using Npgsql;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>A production service whose processes, database and store can be taken away and given back.</summary>
/// <param name="workers">Worker processes to start with.</param>
/// <param name="proxied">Whether database and store are reached through proxies.</param>
/// <param name="more">Settings of all processes; they win.</param>
/// <param name="workFolder">Where worker 0 keeps its files; null: below the service's own folder.</param>
/// <param name="tablespace">Where Postgres keeps the tables; null: where it keeps others.</param>
internal sealed class Cluster(
    int workers, bool proxied = false, IReadOnlyDictionary<string, string>? more = null, string? workFolder = null, string? tablespace = null)
    : ProductionService, IChaosService
{
    private readonly List<ServiceProcess> _workers = [];
    private TcpProxy? _database;
    private TcpProxy? _store;

    public ServiceProcess Api { get; private set; } = null!;

    /// <summary>Stands before Postgres.</summary>
    public TcpProxy Database => _database ?? throw new InvalidOperationException("This cluster has no proxies.");

    /// <summary>Stands before the S3 server.</summary>
    public TcpProxy Store => _store ?? throw new InvalidOperationException("This cluster has no proxies.");

    /// <summary>Connection string of the service's database that no proxy stands before.</summary>
    public string DirectDatabase => base.Settings["ConnectionStrings__Postgres"];

    /// <summary>Host and port of the S3 server that no proxy stands before.</summary>
    public string DirectStore => base.Settings["S3__Endpoint"];

    /// <summary>Every object of the service, read past it.</summary>
    public Task<IReadOnlyDictionary<string, string>> BucketAsync()
    {
        var settings = base.Settings;
        return Snapshot.OfBucketAsync(DirectStore, settings["S3__AccessKey"], settings["S3__SecretKey"], settings["S3__Bucket"]);
    }

    /// <summary>Where worker <paramref name="number"/> keeps its files.</summary>
    public string WorkFolder(int number) => number == 0 && workFolder is not null ? workFolder : Path.Combine(Folder, string.Create(CultureInfo.InvariantCulture, $"worker-{number}"));

    /// <summary>Work folders of the attempts that worker <paramref name="number"/> is busy with, or was when it was killed.</summary>
    public IReadOnlyList<string> Attempts(int number)
    {
        var folder = Path.Combine(WorkFolder(number), "jobs");
        return Directory.Exists(folder) ? Directory.GetDirectories(folder) : [];
    }

    /// <summary>Whether worker <paramref name="number"/> has an attempt whose training is over: what is left is to store it.</summary>
    public bool HasCompleteRun(int number) => Attempts(number).Any(folder => File.Exists(Path.Combine(folder, "manifest.json")));

    public string DataFolder => Folder;

    protected override IReadOnlyDictionary<string, string> Settings
    {
        get
        {
            var settings = new Dictionary<string, string>(base.Settings);
            ChaosSettings.AddTo(settings);
            if (_database is not null && _store is not null)
            {
                settings["ConnectionStrings__Postgres"] = new NpgsqlConnectionStringBuilder(DirectDatabase)
                {
                    Host = "127.0.0.1",
                    Port = _database.Port,
                    Timeout = 3,
                    CommandTimeout = 5,
                    CancellationTimeout = 500,
                }.ConnectionString;
                settings["S3__Endpoint"] = _store.Endpoint;
            }

            foreach (var (name, value) in more ?? new Dictionary<string, string>())
            {
                settings[name] = value;
            }

            return settings;
        }
    }

    public IReadOnlyList<int> TrainingProcesses => [.. _workers.SelectMany(worker => worker.TrainingProcesses)];

    public ServiceProcess Worker(int number) => _workers[number];

    /// <summary>Starts a worker on the work folder of worker <paramref name="number"/>, in the place of the one before it.</summary>
    public ServiceProcess StartWorker(int number)
    {
        var worker = Start("Worker", new Dictionary<string, string> { ["Worker__WorkFolder"] = WorkFolder(number) }, "run");
        if (number == _workers.Count)
        {
            _workers.Add(worker);
        }
        else
        {
            _workers[number] = worker;
        }

        return worker;
    }

    /// <summary>Kills a worker as a power cut would; its training process ends by itself.</summary>
    public Task KillWorkerAsync(int number) => _workers[number].KillAsync();

    /// <summary>Kills the API and starts it on the same address.</summary>
    public async Task RestartApiAsync()
    {
        await Api.KillAsync();
        Api = Start("Api", null);
        await WaitUntilReady();
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        foreach (var proxy in new[] { _database, _store })
        {
            if (proxy is not null)
            {
                await proxy.DisposeAsync();
            }
        }
    }

    protected override string Tablespace => tablespace ?? base.Tablespace;

    protected override void StartServers()
    {
        Api = Start("Api", null);
        for (var number = 0; number < workers; number++)
        {
            StartWorker(number);
        }
    }

    protected override Task StartProcesses()
    {
        if (proxied)
        {
            var database = new NpgsqlConnectionStringBuilder(DirectDatabase);
            _database = TcpProxy.Start(database.Host!, database.Port);
            _store = TcpProxy.Start(DirectStore);
        }

        return base.StartProcesses();
    }
}

/// <summary>An embedded service whose one process can be killed.</summary>
/// <param name="dataFolder">Its data folder; null: below the service's own folder.</param>
/// <param name="leaseSeconds">After how long it loses a job, also to itself when the machine is busy.</param>
internal sealed class SingleProcess(string? dataFolder = null, int leaseSeconds = 3) : EmbeddedService, IChaosService
{
    private ServiceProcess _process = null!;

    protected override IReadOnlyDictionary<string, string> Settings
    {
        get
        {
            var settings = new Dictionary<string, string>(base.Settings);
            ChaosSettings.AddTo(settings);
            settings["Worker__LeaseSeconds"] = leaseSeconds.ToString(CultureInfo.InvariantCulture);
            if (dataFolder is not null)
            {
                settings["DataFolder"] = dataFolder;
                settings["Worker__WorkFolder"] = Path.Combine(Folder, "work");
            }

            return settings;
        }
    }

    public IReadOnlyList<int> TrainingProcesses => _process.TrainingProcesses;

    public async Task RestartAsync()
    {
        await _process.KillAsync();
        _process = Start("Api", null);
        await WaitUntilReady();
    }

    protected override Task StartProcesses()
    {
        _process = Start("Api", null);
        return Task.CompletedTask;
    }
}

/// <summary>What the tests here ask of a service on either profile.</summary>
internal interface IChaosService
{
    IReadOnlyList<int> TrainingProcesses { get; }
}

/// <summary>Settings under which trouble is met, and mended, within seconds.</summary>
internal static class ChaosSettings
{
    public static void AddTo(Dictionary<string, string> settings)
    {
        settings["Worker__LeaseSeconds"] = "3";
        settings["Worker__RetrySeconds"] = "0";
        settings["Health__TimeoutSeconds"] = "15";   // the machine may have more to do than these tests
        settings["Health__LeastFreeBytes"] = "65536";   // the small disks of these tests have room
        settings["Worker__MaxAttempts"] = "100";
        settings["Reconciler__IntervalSeconds"] = "0.5";
        settings["Reconciler__BackOffSeconds"] = "0";
        settings["Reconciler__MaxRecoveries"] = "1000";

        settings["Logging__LogLevel__Default"] = "Warning";

        // Sums are taken in another order with other threads; bytes are compared here.
        settings["OMP_NUM_THREADS"] = "1";
    }
}
