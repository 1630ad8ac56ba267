using System.Globalization;
using System.Text.Json;
using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Tests.Runs;

/// <summary>The training process under SIGKILL: what it leaves is enough to end in the bytes of a run that was left alone.</summary>
public sealed class KillTests
{
    private const string DefaultKills = "8";

    /// <summary>A long run takes more: <c>TRAINING_KILLS=200</c>.</summary>
    private static readonly int Kills =
        int.Parse(Environment.GetEnvironmentVariable("TRAINING_KILLS") ?? DefaultKills, CultureInfo.InvariantCulture);

    [Fact]
    public void A_run_that_is_killed_again_and_again_ends_in_the_bytes_of_one_that_was_not()
    {
        using var folder = new RunFolder();
        WriteSpec(folder);
        var moments = new Random(20);
        using (var unbroken = WorkerProcess.Start(Arguments(folder, "unbroken"), _ => { }))
        {
            unbroken.WaitForExit();
            Assert.Equal(0, unbroken.ExitCode);
        }

        var (killed, inTraining) = (0, 0);
        while (true)
        {
            using var stepped = new ManualResetEventSlim();
            using var process = WorkerProcess.Start(Arguments(folder, "broken"), line =>
            {
                if (line.StartsWith("{\"type\":\"step\"", StringComparison.Ordinal))
                {
                    stepped.Set();
                }
            });

            // Every other kill waits for a step, so that not all of them fall into the start of the process.
            if (killed < Kills && killed % 2 == 0)
            {
                stepped.Wait(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken);
            }

            if (killed == Kills || process.WaitForExit(moments.Next(killed % 2 == 0 ? 150 : 1500)))
            {
                process.WaitForExit();
                Assert.Equal(0, process.ExitCode);
                break;
            }

            process.Kill();
            process.WaitForExit();
            killed++;
            inTraining += stepped.IsSet ? 1 : 0;
        }

        TestContext.Current.SendDiagnosticMessage($"{killed} kills, {inTraining} of them in training");
        Assert.InRange(inTraining, Math.Min(Kills / 4, 3), Kills);
        AssertSameArtifacts(folder);
    }

    [Theory]
    [InlineData("\"phase\":\"tokenizing\"", 400_000, 2)]
    [InlineData("\"type\":\"step\"", 2_000, 1_000)]   // a step of many batches, which native code is busy with
    public void A_run_ends_when_its_supervisor_is_killed(string moment, int rows, int accumulation)
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "needs a named pipe of a Unix system");
        using var folder = new RunFolder();
        WriteSpec(folder, rows, accumulation);
        using var reached = new ManualResetEventSlim();
        using var process = WorkerProcess.StartHeld(
            folder.Path, [.. Arguments(folder, "work"), "--supervised"],
            line =>
            {
                if (line.Contains(moment, StringComparison.Ordinal))
                {
                    reached.Set();
                }
            });

        Assert.True(reached.Wait(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken));
        Assert.False(process.HasExited);
        using (var holder = System.Diagnostics.Process.GetProcessById(int.Parse(File.ReadAllText(folder.In("holder")), CultureInfo.InvariantCulture)))
        {
            holder.Kill();
        }

        Assert.True(process.WaitForExit(TimeSpan.FromSeconds(20)));
        Assert.Equal(128 + 9, process.ExitCode);
        Assert.False(File.Exists(folder.In("work", "manifest.json")));
    }

    private static string[] Arguments(RunFolder folder, string work) => ["train", "--spec", folder.In("spec.json"), "--work", folder.In(work)];

    /// <summary>Dropout, packing, accumulation, evaluation, spectra on the way and a checkpoint of every step.</summary>
    private static void WriteSpec(RunFolder folder, int rows = 24, int accumulation = 2) => File.WriteAllText(folder.In("spec.json"), JsonSerializer.Serialize(new
    {
        model = SharedData.Path("golden", "models", "llama_untied"),
        data = new { train = folder.TokenRows("rows.jsonl", rows), validation_split = 0.2, max_length = 24, packing = true },
        adapter = new { type = "lora", rank = 2, dropout = 0.2 },
        schedule = new { max_steps = 60 + 2 * Kills, batch_size = 2, gradient_accumulation_steps = accumulation },
        evaluation = new { every_steps = 3 },
        checkpoints = new { every_steps = 1, keep = 2 },
        spectra = new { every_steps = 20 },
        seed = 7,
    }));

    private static void AssertSameArtifacts(RunFolder folder)
    {
        var files = Files(folder.In("unbroken"));
        Assert.Equal(files, Files(folder.In("broken")));
        foreach (var file in files.Where(file => Path.GetFileName(file) is not ("metrics.jsonl" or Manifest.FileName)))
        {
            Assert.True(
                File.ReadAllBytes(folder.In("unbroken", file)).AsSpan().SequenceEqual(File.ReadAllBytes(folder.In("broken", file))), file);
        }

        Assert.Equal(Untimed(folder.In("unbroken")), Untimed(folder.In("broken")));
        Assert.True(Manifest.Verify(folder.In("broken"), out var problem), problem);
        Assert.Equal(
            File.ReadLines(folder.In("unbroken", "metrics", "metrics.jsonl")).Count(),
            File.ReadLines(folder.In("broken", "metrics", "metrics.jsonl")).Count());
    }

    /// <summary>A manifest without what holds times, and without what holds a hash of those.</summary>
    private static IEnumerable<ManifestFile> Untimed(string folder) =>
        Manifest.Read(folder).Files.Where(file => !file.Path.EndsWith("metrics.jsonl", StringComparison.Ordinal) && !file.Path.EndsWith(Manifest.FileName, StringComparison.Ordinal));

    private static string[] Files(string folder) =>
        [.. Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Select(path => Path.GetRelativePath(folder, path)).Order()];
}
