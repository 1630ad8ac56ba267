using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Runs;

/// <summary>A folder for the rows and artifacts of one test, and short ways to run a spec in it.</summary>
internal sealed class RunFolder : IDisposable
{
    public RunFolder() => Path = Directory.CreateTempSubdirectory("training-test-").FullName;

    public string Path { get; }

    /// <summary>Reports of the last <see cref="Run"/>.</summary>
    public List<Report> Reports { get; } = [];

    public IReadOnlyList<double> Losses => [.. Reports.OfType<StepReport>().Select(step => step.Loss)];

    public string In(params string[] parts) => System.IO.Path.Combine([Path, .. parts]);

    /// <summary>Writes rows as JSONL and gives the path.</summary>
    public string Rows(string name, IEnumerable<object> rows)
    {
        File.WriteAllLines(In(name), rows.Select(row => JsonSerializer.Serialize(row)));
        return In(name);
    }

    /// <summary>Rows of token ids by formula: varied lengths, every token trainable but the first two of each row.</summary>
    /// <param name="classes">Classes that the rows name by turns; null: none.</param>
    public string TokenRows(string name, int count, int vocabulary = 250, int longest = 14, string[]? classes = null) => Rows(name, Enumerable.Range(0, count).Select(row =>
    {
        var length = 5 + row * 7 % (longest - 4);
        var ids = Enumerable.Range(0, length).Select(t => 3 + (row * 31 + t * 17 + t * t) % (vocabulary - 3)).ToArray();
        var labels = ids.Select((id, t) => t < 2 ? Example.Ignored : id);
        return classes is null ? (object)new { input_ids = ids, labels } : new { input_ids = ids, labels, @class = classes[row % classes.Length] };
    }));

    public DoneReport Run(TrainingSpec spec, string work = "work", RunControl? control = null, Action<Report>? report = null)
    {
        set_num_threads(1);   // the same sums on every machine
        Reports.Clear();
        return TrainingRun.Execute(
            spec, In(work),
            line =>
            {
                Reports.Add(line);
                report?.Invoke(line);
            },
            control ?? new RunControl(), TestContext.Current.CancellationToken);
    }

    /// <summary>Tensors of a safetensors file as arrays of numbers.</summary>
    public static Dictionary<string, float[]> Tensors(string path)
    {
        using var scope = NewDisposeScope();
        using var file = SafeTensorsFile.Open(path);
        return file.Entries.Keys.ToDictionary(name => name, name => file.Read(name, ScalarType.Float32).data<float>().ToArray());
    }

    /// <summary>||a - b|| / ||b||.</summary>
    public static double RelativeError(float[] actual, float[] expected)
    {
        Assert.Equal(expected.Length, actual.Length);
        var difference = actual.Zip(expected, (a, b) => Math.Pow((double)a - b, 2)).Sum();
        return Math.Sqrt(difference / Math.Max(1e-30, expected.Sum(b => Math.Pow(b, 2))));
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
