using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>The ends that all others are compared with: made once per test run, on the embedded profile, by a service that nothing happens to.</summary>
internal static class UndisturbedRun
{
    /// <summary>Seeds of the jobs that are broken.</summary>
    public static readonly IReadOnlyList<int> Seeds = [7, 11];

    private static readonly Lazy<Task<IReadOnlyDictionary<int, IReadOnlyDictionary<string, byte[]>>>> Made = new(MakeAsync);

    public static async Task<IReadOnlyDictionary<string, byte[]>> ResultAsync(int seed) => (await Made.Value)[seed];

    private static async Task<IReadOnlyDictionary<int, IReadOnlyDictionary<string, byte[]>>> MakeAsync()
    {
        await using var service = new SingleProcess(leaseSeconds: 600);
        await service.InitializeAsync();
        var data = await ChaosJob.UploadAsync(service);
        var results = new Dictionary<int, IReadOnlyDictionary<string, byte[]>>();
        foreach (var seed in Seeds)
        {
            var job = await ChaosJob.SubmitAsync(service, ChaosJob.Spec(service, data, seed));
            var state = await service.WaitForEnd(job);
            Assert.True((string)state["status"]! == "succeeded", $"{state}\n{service.Logs}");
            Assert.Equal(1, (int)state["attempt"]!);
            results[seed] = await ChaosJob.ResultAsync(service, job);
        }

        return results;
    }
}
