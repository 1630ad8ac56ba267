using System.Diagnostics;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Options;
using TrainingService.Infrastructure;
using TrainingService.Training;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Throughput;
using TrainingService.Worker.Supervision;
using static TorchSharp.torch;

namespace TrainingService.Worker.Verbs.Measuring;

/// <summary>The line of <c>measure steps</c>.</summary>
/// <param name="TokensPerSecond">Of the median step, from report to report.</param>
/// <param name="ProductBeforeGflops">Rate of a 2048³ product in the same format, before the steps.</param>
/// <param name="ProductAfterGflops">The same, after them.</param>
/// <param name="FlopsPerToken">What the mathematics of a step needs, as <see cref="StepOperations"/> counts it.</param>
/// <param name="ShareOfProduct">Operations of the steps per second over the mean of the two product rates.</param>
/// <param name="MemoryPeakBytes">Most resident memory of the training process.</param>
/// <param name="MemoryAboveStartBytes">Of that, what came after the runtime, libtorch and the rows.</param>
/// <param name="MemoryEstimatedBytes">The peak that the run was estimated to have.</param>
/// <param name="Allocator">Library that served the process's memory.</param>
internal sealed record StepsResult(
    ModelShape Shape, Precision Precision, int Batch, int Length, int Rank, int Steps, double TokensPerSecond, double SecondsPerStep,
    double ProductBeforeGflops, double ProductAfterGflops, double FlopsPerToken, double AchievedGflops, double ShareOfProduct,
    long MemoryPeakBytes, long MemoryAboveStartBytes, long MemoryEstimatedBytes, string Allocator);

/// <summary>Trains a random model as a job is trained (same program, environment and allocator) and times its steps.</summary>
internal static class MeasuredSteps
{
    private static readonly string[] Allocators = ["tcmalloc", "jemalloc", "mimalloc"];

    public static StepsResult Run(StepsPlan plan)
    {
        var work = Directory.CreateTempSubdirectory("training-measure-").FullName;
        try
        {
            var spec = plan.Spec(Path.Combine(work, "model"), Path.Combine(work, "rows.jsonl"));
            var config = plan.Shape.Config(plan.Length);
            WriteModel(spec.Model, config, plan.Precision);
            WriteRows(spec.Data.Train, plan);
            var specFile = Path.Combine(work, "spec.json");
            File.WriteAllText(specFile, SpecJson.Serialize(spec));

            var paths = Paths();
            var before = Product(paths, plan.Precision, work);
            var (seconds, allocator, estimated, usage) = Train(paths, specFile, Path.Combine(work, "run"), plan);
            var after = Product(paths, plan.Precision, work);

            var perToken = StepOperations.PerToken(spec, config, plan.Length);
            var rate = plan.Batch * plan.Length / seconds;
            return new(
                plan.Shape, plan.Precision, plan.Batch, plan.Length, plan.Rank, plan.Steps, rate, seconds, before, after, perToken,
                rate * perToken / 1e9, rate * perToken / 1e9 / ((before + after) / 2),
                usage.MemoryPeakBytes, usage.MemoryPeakBytes - usage.MemoryAtStartBytes, estimated, allocator);
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }

    /// <summary>As the service would find them with the same settings in the environment.</summary>
    private static WorkerPaths Paths()
    {
        var settings = new ConfigurationBuilder().AddEnvironmentVariables().Build();
        return new(
            Options.Create(settings.GetSection(WorkerOptions.Section).Get<WorkerOptions>() ?? new()), Options.Create(new ServiceOptions()));
    }

    private static void WriteModel(string folder, ModelConfig config, Precision precision)
    {
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "config.json"), config.SourceJson);
        var dtype = precision == Precision.Bfloat16 ? ScalarType.BFloat16 : ScalarType.Float32;
        using var model = CausalLm.Create(config, dtype, CPU, seed: 1);
        SafeTensorsWriter.Write(
            Path.Combine(folder, "model.safetensors"), [.. model.NamedWeights().Select(weight => (weight.Name, (Tensor)weight.Parameter))]);
    }

    private static void WriteRows(string path, StepsPlan plan)
    {
        var random = new Random(1);
        using var writer = new StreamWriter(path) { NewLine = "\n" };
        for (var row = 0; row < plan.Rows; row++)
        {
            var ids = Enumerable.Range(0, plan.Length).Select(_ => random.Next(plan.Shape.Vocabulary));
            writer.WriteLine($$"""{"input_ids":[{{string.Join(',', ids)}}]}""");
        }
    }

    private static (double Seconds, string Allocator, long Estimated, RunUsage Usage) Train(
        WorkerPaths paths, string specFile, string work, StepsPlan plan)
    {
        Directory.CreateDirectory(work);
        var ends = new List<long>();
        var allocator = "";
        var log = new StringBuilder();
        RunUsage? usage = null;
        var estimated = 0L;
        using var process = TrainingProcess.Start(
            paths.Executable, paths.Allocator, specFile, work, Path.Combine(work, ".tokens"), "random", cudaDevice: null);
        void Read(Report report)
        {
            if (report is StepReport)
            {
                ends.Add(Stopwatch.GetTimestamp());
                allocator = ends.Count == 1 ? AllocatorOf(process.Id) : allocator;
            }

            estimated = (report as EstimateReport)?.Cost.MemoryBytes ?? estimated;
            usage = (report as DoneReport)?.Usage ?? usage;
        }

        var exit = process.ReadAsync(Read, line => log.AppendLine(line)).GetAwaiter().GetResult();
        if (exit != ExitCodes.Done || usage is null)
        {
            throw new InvalidOperationException($"The training process ended with {exit}: {log}");
        }

        var seconds = ends.Zip(ends.Skip(1), (from, to) => Stopwatch.GetElapsedTime(from, to).TotalSeconds).TakeLast(plan.Steps);
        return (Median.Of(seconds), allocator, estimated, usage);
    }

    private static double Product(WorkerPaths paths, Precision precision, string work)
    {
        var start = TrainingProcess.StartInfo(
            paths.Executable, paths.Allocator, work, ["measure", "product", "--precision", precision.ToString()]);
        using var process = Process.Start(start) ?? throw new IOException("The measuring process did not start.");
        var log = process.StandardError.ReadToEndAsync();
        var line = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == ExitCodes.Done
            ? JsonSerializer.Deserialize<ProductResult>(line, SpecJson.Options)!.Gflops
            : throw new InvalidOperationException($"The product ended with {process.ExitCode}: {log.GetAwaiter().GetResult()}");
    }

    private static string AllocatorOf(int process)
    {
        var maps = $"/proc/{process}/maps";
        var mapped = File.Exists(maps) ? File.ReadAllText(maps) : "";
        return Allocators.FirstOrDefault(name => mapped.Contains($"/lib{name}", StringComparison.Ordinal)) ?? "the system's";
    }
}
