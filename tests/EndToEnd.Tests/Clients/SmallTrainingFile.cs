using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Clients;

/// <summary>A hundred and sixty of the sample rows: twenty steps of eight.</summary>
internal static class SmallTrainingFile
{
    public static string Path { get; } = Write();

    private static string Write()
    {
        var path = System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"training-service-{Environment.ProcessId}-train.jsonl");
        File.WriteAllLines(path, File.ReadLines(Repository.Sample("data", "train.jsonl")).Take(160));
        return path;
    }
}
