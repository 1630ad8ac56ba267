using Npgsql;

namespace TrainingService.EndToEnd.Tests.Running;

/// <summary>The production profile: an API process and a worker process on Postgres, Hangfire and S3.</summary>
public class ProductionService : RunningService
{
    private readonly string _name = $"e2e{Guid.NewGuid():N}";
    private bool _created;

    protected override IReadOnlyDictionary<string, string> Settings => new Dictionary<string, string>
    {
        ["Profile"] = "production",
        ["ASPNETCORE_URLS"] = Url,
        ["DataFolder"] = Path.Combine(Folder, "data"),
        ["ConnectionStrings__Postgres"] = new NpgsqlConnectionStringBuilder(Required("TRAINING_TEST_POSTGRES")) { Database = _name }.ConnectionString,
        ["S3__Endpoint"] = Required("TRAINING_TEST_S3_ENDPOINT"),
        ["S3__AccessKey"] = Required("TRAINING_TEST_S3_ACCESS_KEY"),
        ["S3__SecretKey"] = Required("TRAINING_TEST_S3_SECRET_KEY"),
        ["S3__Bucket"] = _name,
        ["S3__UseTls"] = "false",
        ["Worker__WorkFolder"] = Path.Combine(Folder, "work"),
        ["Models__Roots__0"] = Repository.Root,
        ["Models__Roots__1"] = Folder,
    };

    /// <summary>Where Postgres keeps the tables.</summary>
    protected virtual string Tablespace => "pg_default";

    public override async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await base.DisposeAsync();
        NpgsqlConnection.ClearAllPools();
        if (_created)
        {
            await AdministerAsync($"DROP DATABASE {_name} WITH (FORCE)");
        }
    }

    protected override async Task StartProcesses()
    {
        await AdministerAsync($"CREATE DATABASE {_name} TABLESPACE {Tablespace}");
        _created = true;
        var migration = Start("Api", null, "migrate");
        await migration.WaitForExitAsync(TimeSpan.FromMinutes(2));
        if (migration.ExitCode != 0)
        {
            throw new InvalidOperationException($"The migration failed.\n{Logs}");
        }

        StartServers();
    }

    protected virtual void StartServers()
    {
        Start("Api", null);
        Start("Worker", null, "run");
    }

    private static async Task AdministerAsync(string sql)
    {
        await using var server = new NpgsqlConnection(Required("TRAINING_TEST_POSTGRES"));
        await server.OpenAsync();
        await using var command = new NpgsqlCommand(sql, server);
        await command.ExecuteNonQueryAsync();
    }

    /// <summary>A server that the tests need: absent, the test skips on a laptop and fails on CI.</summary>
    private static string Required(string variable)
    {
        if (Environment.GetEnvironmentVariable(variable) is { Length: > 0 } value)
        {
            return value;
        }

        var message = $"{variable} is not set: run scripts/test.sh, which starts PostgreSQL and an S3 server.";
        if (Environment.GetEnvironmentVariable("CI") == "true")
        {
            throw new InvalidOperationException(message);
        }

        Assert.Skip(message);
        throw new InvalidOperationException(message);
    }
}
