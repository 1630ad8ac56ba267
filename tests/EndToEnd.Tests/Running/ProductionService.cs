using Npgsql;

namespace TrainingService.EndToEnd.Tests.Running;

/// <summary>The production profile: an API process and a worker process on Postgres, Hangfire and S3.</summary>
public class ProductionService : RunningService
{
    private readonly string _name = $"e2e{Guid.NewGuid():N}";

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
    };

    protected override async Task StartProcesses()
    {
        await using (var server = new NpgsqlConnection(Required("TRAINING_TEST_POSTGRES")))
        {
            await server.OpenAsync();
            await using var create = new NpgsqlCommand($"CREATE DATABASE {_name}", server);
            await create.ExecuteNonQueryAsync();
        }

        var migration = Start("Api", "migrate");
        await migration.WaitForExitAsync();
        if (migration.ExitCode != 0)
        {
            throw new InvalidOperationException($"The migration failed.\n{Logs}");
        }

        Start("Api");
        Start("Worker", "run");
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
