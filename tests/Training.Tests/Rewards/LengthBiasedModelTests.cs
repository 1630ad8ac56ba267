using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Rewards;
using TrainingService.Training.Tests.Runs;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Rewards;

/// <summary>A reward model that was trained, on purpose, on labels that follow length alone, and what a person is told of it.</summary>
[Collection(nameof(RandomNumbers))]
public sealed class LengthBiasedModelTests(ITestOutputHelper output)
{
    private static string Stories => SharedData.Path("data", "models", "stories260K");

    [Fact]
    public void Its_own_report_says_that_it_prefers_longer_answers_and_R3_ranks_what_it_gets_wrong()
    {
        using var folder = new RunFolder();
        var good = TopicPairs.OnTopic(120).ToList();
        folder.Run(Spec(folder, good), "work");

        // What its owner reads.
        var report = JsonSerializer.Deserialize<RewardReport>(File.ReadAllBytes(folder.In("work", "evaluation", "reward.json")), SpecJson.Options)!;
        output.WriteLine(string.Join('\n', report.Findings.Select(finding => $"{finding.Level}: {finding.Text}")));
        var finding = Assert.Single(report.Findings, finding => finding.Code == "prefers_longer");
        Assert.Equal(FindingLevel.Problem, finding.Level);
        Assert.True(report.Length.ChosenShorter.Value < 0.1 && report.Length.ChosenLonger.Value > 0.9, finding.Text);
        Assert.Contains(folder.Reports, line => line is WarningReport { Message: var message } && message == finding.Text);
        Assert.Contains(finding.Text, File.ReadAllText(folder.In("work", "evaluation", "reward.md")), StringComparison.Ordinal);
        Assert.Contains(Manifest.Read(folder.In("work")).Files, file => file is { Path: "evaluation/reward.md", ContentType: "text/markdown" });
        Assert.Contains(Manifest.Read(folder.In("work")).Files, file => file is { Path: "evaluation/length.svg", ContentType: "image/svg+xml" });

        // The same figures as those of the training.
        var done = folder.Reports.OfType<MetricReport>().Last();
        Assert.Equal(done.Values["eval/accuracy"], report.Accuracy.Value, 9);
        Assert.Equal(done.Values["eval/margin"], report.Margins.Mean, 4);

        // Held-out rows of the kind that it was trained on hide the fault from the accuracy, and not from the report.
        var blind = Judge(folder, folder.Rows("same.jsonl", TopicPairs.LengthBiased(260).Skip(200)));
        Assert.Equal(1, blind.Sections!.Overall!.Value, 2);
        output.WriteLine(string.Join('\n', blind.Findings.Select(finding => $"{finding.Level}: {finding.Text}")));
        Assert.True(blind.Accuracy.Value > 0.95);
        Assert.Contains(blind.Findings, finding => finding is { Code: "no_better_than_length", Level: FindingLevel.Problem });
        Assert.Contains(blind.Findings, finding => finding.Code == "reward_follows_length");

        // Short and on topic against long and off topic: the model prefers the long answer, R³ the right one.
        var hard = good.Where(pair => pair.Chosen.Length < pair.Rejected.Length)
            .Select(pair => new CandidateRow(pair.Prompt, [pair.Chosen, pair.Rejected])).ToList();
        var words = TextEmbeddings.OfWords(hard.SelectMany(row => row.Candidates.Append(row.Prompt)));
        using var scope = NewDisposeScope();
        using var model = CausalLm.Load(Stories, ScalarType.Float32, CPU);
        var hidden = TextEmbeddings.OfHiddenStates(model, Tokenizer.Load(Stories));
        var (byWords, byHidden) = (Right(words), Right(hidden));
        output.WriteLine(FormattableString.Invariant(
            $"right of {hard.Count}: reward model {report.Length.ChosenShorter.Count}, R³ by words {byWords}, R³ by hidden states {byHidden}"));
        Assert.True(byWords >= 0.95 * hard.Count);
        Assert.True(report.Length.ChosenShorter.Count <= 0.1 * hard.Count);

        int Right(EmbedTexts embed) => new PreferenceLabeller(embed).Score(hard).Count(rewards => rewards[0] > rewards[1]);
    }

    private static TrainingSpec Spec(RunFolder folder, IEnumerable<(string Prompt, string Chosen, string Rejected)> good) => new()
    {
        Model = Stories,
        Data = new()
        {
            Train = folder.Rows("biased.jsonl", TopicPairs.LengthBiased(200)),
            Validation = folder.Rows("good.jsonl", good.Select(pair => new { prompt = pair.Prompt, chosen = pair.Chosen, rejected = pair.Rejected })),
        },
        Objective = new RewardConfig(),
        Adapter = new LoraConfig { Rank = 4 },
        Optimizer = new AdamWConfig { LearningRate = 1e-2 },
        Schedule = new() { MaxSteps = 16, BatchSize = 8 },
        Precision = Precision.Float32,
        Spectra = new() { Enabled = false },
        Seed = 3,
    };

    /// <summary>As a person does it, on rows that are not those of the run.</summary>
    private static RewardReport Judge(RunFolder folder, string rows)
    {
        File.WriteAllText(folder.In("sections.json"), """{"All": {"subsets": {"biased": 1}}}""");
        var (exit, _, errors) = WorkerProcess.Run(
            ["judge", "--model", Stories, "--adapter", folder.In("work", "adapter"), "--pairs", rows, "--sections", folder.In("sections.json"), "--out", folder.In("judged")]);

        Assert.True(exit == 0, errors);
        var report = JsonSerializer.Deserialize<RewardReport>(File.ReadAllBytes(folder.In("judged", "reward.json")), SpecJson.Options)!;
        Assert.Contains(report.Findings[0].Text, errors, StringComparison.Ordinal);
        return report;
    }
}
