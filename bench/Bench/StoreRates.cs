using System.Diagnostics;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Bench;

/// <summary>How fast a large artifact goes to S3 and comes back, through the store that workers use: hashed and checked both ways.</summary>
internal static class StoreRates
{
    private const int Megabytes = 256;

    public static async Task RunAsync(CancellationToken cancellationToken)
    {
        await using var service = await Production.CreateAsync(cancellationToken);
        var store = service.Services.GetRequiredService<IArtifactStore>();
        var path = Path.GetTempFileName();
        try
        {
            await WriteAsync(path, cancellationToken);
            await PutAsync(store, "bench/first", path, cancellationToken);   // bucket, connections
            var up = await PutAsync(store, "bench/second", path, cancellationToken);
            var clock = Stopwatch.StartNew();
            await using (var content = await store.OpenReadAsync("bench/second", null, cancellationToken)
                ?? throw new InvalidOperationException("The store has lost the object."))
            {
                await content.CopyToAsync(Stream.Null, cancellationToken);
            }

            var down = clock.Elapsed.TotalSeconds;
            var conditions = $"{Megabytes} MiB, S3 server on the same machine";
            new Figure("upload", Megabytes * 1.048576 / up, "MB/s", conditions).Print();
            new Figure("download", Megabytes * 1.048576 / down, "MB/s", conditions).Print();
            await store.DeleteAsync("bench/first", cancellationToken);
            await store.DeleteAsync("bench/second", cancellationToken);
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static async Task<double> PutAsync(IArtifactStore store, string key, string path, CancellationToken cancellationToken)
    {
        await using var content = File.OpenRead(path);
        var clock = Stopwatch.StartNew();
        await store.PutAsync(key, content, "application/octet-stream", cancellationToken);
        return clock.Elapsed.TotalSeconds;
    }

    private static async Task WriteAsync(string path, CancellationToken cancellationToken)
    {
        var random = new Random(1);
        var block = new byte[1 << 20];
        await using var file = File.Create(path);
        for (var megabyte = 0; megabyte < Megabytes; megabyte++)
        {
            random.NextBytes(block);
            await file.WriteAsync(block, cancellationToken);
        }
    }
}
