namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>What a test needs from its machine. Missing: skipped on a laptop, a failure where CI promises it.</summary>
internal static class TestNeeds
{
    /// <summary>Connection string of a Postgres in which tests may create databases.</summary>
    public static string Postgres => Get("TRAINING_TEST_POSTGRES");

    /// <summary>Whether a variable is set.</summary>
    public static bool Has(string name) => !string.IsNullOrEmpty(Environment.GetEnvironmentVariable(name));

    public static string Get(string name)
    {
        var value = Environment.GetEnvironmentVariable(name);
        if (!string.IsNullOrEmpty(value))
        {
            return value;
        }

        var message = $"{name} is not set: start the services with scripts/services.sh, or run scripts/test.sh.";
        Assert.SkipUnless(Environment.GetEnvironmentVariable("CI") == "true", message);
        throw new InvalidOperationException(message);
    }
}
