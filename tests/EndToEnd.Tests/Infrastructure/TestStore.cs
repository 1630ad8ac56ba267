using Microsoft.Extensions.Options;
using TrainingService.Infrastructure.Storage;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>A bucket of its own on the S3 server of the tests.</summary>
internal static class TestStore
{
    public static string Endpoint => TestNeeds.Get("TRAINING_TEST_S3_ENDPOINT");

    /// <param name="endpoint">What the store connects to, such as a proxy; null: the server.</param>
    public static S3ArtifactStore Open(
        string bucket, string? endpoint = null, double idleSeconds = 60, bool verify = false) => new(Options.Create(new S3Options
        {
            Endpoint = endpoint ?? Endpoint,
            AccessKey = TestNeeds.Get("TRAINING_TEST_S3_ACCESS_KEY"),
            SecretKey = TestNeeds.Get("TRAINING_TEST_S3_SECRET_KEY"),
            Bucket = bucket,
            UseTls = false,
            ConnectTimeoutSeconds = 2,
            IdleTimeoutSeconds = idleSeconds,
            RetryDelaySeconds = 0.2,
            VerifyByReading = verify,
        }));

    public static string NewBucket() => $"store-{Guid.NewGuid():N}";
}
