using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Optimizers;

namespace TrainingService.Training.Tests.Runs;

/// <summary>Optimizers in whole runs: all weights of stories260K learn from restaurant sentences of E2E.</summary>
public sealed class OptimizerRunTests
{
    [Fact]
    public void AdamW_with_8_bits_ends_within_a_hundredth_of_the_loss_of_32()
    {
        using var folder = new RunFolder();
        var full = HeldOutLoss(folder, new AdamWConfig { LearningRate = 2e-3 });
        var eight = HeldOutLoss(folder, new AdamWConfig { LearningRate = 2e-3, StateBits = 8 });

        Assert.NotEqual(full.After, eight.After);
        Assert.True(full.After < 0.6 * full.Before, $"{full}");
        Assert.True(Math.Abs(eight.After / full.After - 1) < 0.01, $"{full} {eight}");
    }

    public static TheoryData<OptimizerConfig> Others =>
        [new AdafactorConfig { LearningRate = 0.05 }, new LionConfig { LearningRate = 3e-4 }, new MuonConfig { LearningRate = 2e-3 }];

    [Theory, MemberData(nameof(Others))]
    public void The_others_learn_too(OptimizerConfig optimizer)
    {
        using var folder = new RunFolder();
        var (before, after) = HeldOutLoss(folder, optimizer);

        Assert.True(after < 0.7 * before, $"{optimizer}: {before} → {after}");
    }

    private static (double Before, double After) HeldOutLoss(RunFolder folder, OptimizerConfig optimizer)
    {
        var rows = File.ReadLines(SharedData.Path("data", "instruct", "e2e", "valid.txt")).Take(200).Select(line =>
        {
            var parts = line.Split("||");
            return (object)new { prompt = parts[0] + "\n", completion = parts[1] };
        }).ToArray();
        var done = folder.Run(
            new TrainingSpec
            {
                Model = SharedData.Path("data", "models", "stories260K"),
                Data = new DataConfig
                {
                    Train = folder.Rows("train.jsonl", rows[..184]),
                    Validation = folder.Rows("validation.jsonl", rows[184..]),
                    MaxLength = 192,
                },
                Adapter = new FullConfig(),
                Optimizer = optimizer,
                Schedule = new ScheduleConfig { MaxSteps = 20, BatchSize = 4, WarmupRatio = 0.1 },
                Evaluation = new EvaluationConfig { EverySteps = 20 },
                Spectra = new SpectraConfig { Enabled = false },
            },
            Guid.NewGuid().ToString("N"));
        return (done.Metrics["eval/loss_before"], done.Metrics["eval/loss"]);
    }
}
