using TorchSharp;
using TrainingService.Tests;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Scoring;
using TrainingService.Training.Tests.Data;
using TrainingService.Training.Tests.Models;
using TrainingService.Training.Tests.Runs;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Rewards after critiques: loss, rows, both heads on the disk, and scores after critiques that the model wrote itself.</summary>
[Collection(nameof(RandomNumbers))]
public class CritiqueRewardTests
{
    private static readonly string Sample = GeneratedFile.Locate("samples", "model");

    // softplus(-0.9) = 0.341154, and softplus(0.9) = 1.241154; a tie of the same rewards costs 2·0.9².
    [Theory]
    [InlineData(1.2f, 0.3f, false, 0.341154)]
    [InlineData(0.3f, 1.2f, false, 1.241154)]
    [InlineData(1.2f, 0.3f, true, 1.62)]
    [InlineData(0.3f, 1.2f, true, 1.62)]
    public void The_score_loss_of_a_pair(float chosen, float rejected, bool isTie, double expected)
    {
        using var scope = NewDisposeScope();
        var loss = new CritiqueRewardConfig { TieWeight = 2 }.ScoreLosses(
            tensor(new[] { chosen }), tensor(new[] { rejected }), tensor(new[] { 0f }), tensor(new[] { isTie }));

        Assert.Equal(expected, loss.item<float>(), 1e-6);
    }

    // The same loss put together from logits and rewards that are computed apart, for an output head of its own and for one that is the embedding.
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_loss_is_that_of_its_parts_and_trains_both_heads(bool tied)
    {
        using var scope = NewDisposeScope();
        var objective = new CritiqueRewardConfig { ScoreWeight = 0.5, CritiqueWeight = 2, CenterRewardsCoefficient = 0.01 };
        using var model = CausalLm.Load(tied ? Sample : SharedData.Path("golden", "models", "llama_untied"), ScalarType.Float32, CPU, score: objective.Score, seed: 5);
        using var adapter = new FullConfig().Attach(model, seed: 0);
        var batch = GoldenPairs.Batch();
        var measured = objective.Measure(model, adapter, batch, CPU);
        measured.Sum.backward();
        using var off = no_grad();
        var rewards = BatchInput.Scores(model, batch, CPU).squeeze(1);
        var logs = nn.functional.log_softmax(model.Forward(tensor(batch.InputIds, [batch.Size, batch.Length]), tensor(batch.Positions, [batch.Size, batch.Length])), -1);
        var expected = 0.0;
        for (var row = 0; row < batch.Size; row++)
        {
            var at = Enumerable.Range(1, batch.Length - 1).Where(t => batch.Labels[(row * batch.Length) + t] != Example.Ignored).ToList();
            expected += 2 * at.Average(t => -logs[row, t - 1, batch.Labels[(row * batch.Length) + t]].item<float>());
        }

        for (var pair = 0; pair < 4; pair++)
        {
            var (chosen, rejected) = (rewards[pair].item<float>(), rewards[pair + 4].item<float>());
            expected += (0.5 * Math.Log(1 + Math.Exp(rejected - chosen))) + (0.01 * Math.Pow(chosen + rejected, 2));
        }

        Assert.Equal(expected, measured.Sum.item<float>(), 1e-5 * expected);
        Assert.Equal(4, objective.Weight(batch));
        Assert.All(
            adapter.Trainable.Where(tensor => ScoreHead.Owns(tensor.Name) || tensor.Name == "lm_head.weight"),
            tensor => Assert.True(tensor.Parameter.grad!.abs().sum().item<float>() > 0, tensor.Name));
        Assert.NotEqual(tied, adapter.Trainable.Any(tensor => tensor.Name == "lm_head.weight"));
    }

    [Fact]
    public void A_row_is_prompt_answer_and_critique_and_the_critique_alone_carries_loss()
    {
        using var file = new TextFile("rows.jsonl",
            """{"prompt": "Q", "chosen": "good", "rejected": "bad", "chosen_critique": "fine", "rejected_critique": "poor", "is_tie": true, "margin": 0.5}""" + "\n"
            + """{"prompt": "Q", "chosen": "good", "rejected": "bad", "chosen_critique": "fine", "rejected_critique": "poor"}""" + "\n");

        using var data = file.Prepare(use: RowUse.Critiques);

        var example = data.Train[0];
        var ends = example.Ends!;
        Assert.Equal("prompt_preference_critiqued", data.Report.Train.Layout);
        Assert.Equal(["<s>Qgood</s>\nCritique: fine</s>", "<s>Qbad</s>\nCritique: poor</s>"], [Text(example.InputIds[..ends[0]]), Text(example.InputIds[ends[0]..])]);
        Assert.Equal(" fine</s> poor</s>", Text([.. example.Labels.Where(label => label != Example.Ignored)]));
        Assert.Equal((true, 0.5f), (example.IsTie, example.Value));
        Assert.Equal((false, null), (data.Train[1].IsTie, data.Train[1].Value));
        Assert.Equal(2, data.Report.Train.Pairs!.ChosenLonger);
    }

    [Theory]
    [InlineData("""{"prompt": "Q", "chosen": "good", "rejected": "bad", "chosen_critique": "fine", "rejected_critique": ""}""", "no trainable token")]
    [InlineData("""{"prompt": "Q", "chosen": "good", "rejected": "bad", "chosen_critique": "fine"}""", "'rejected_critique'")]
    [InlineData("""{"prompt": "Q", "chosen": "good", "rejected": "bad", "chosen_critique": "fine", "rejected_critique": "x", "is_tie": "maybe"}""", "is_tie: must be true or false")]
    public void A_row_without_what_it_needs_is_refused(string row, string message)
    {
        using var file = new TextFile("rows.jsonl", row + "\n");

        var error = Assert.Throws<TrainingException>(() => { file.Prepare(use: RowUse.Critiques).Dispose(); });

        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Both_heads_come_back_from_the_disk(bool full)
    {
        using var scope = NewDisposeScope();
        using var folder = new RunFolder();
        var objective = new CritiqueRewardConfig { ScoreLayers = ScoreLayers.Mlp };
        var source = SharedData.Path("golden", "models", "llama_untied");
        var (logits, scores) = (Array.Empty<float>(), Array.Empty<float>());
        using (var model = CausalLm.Load(source, ScalarType.Float32, CPU, score: objective.Score, seed: 5))
        {
            using var adapter = (full ? (AdapterConfig)new FullConfig() : new LoraConfig { Rank = 2 }).Attach(model, seed: 1);
            using var parameters = new FlatParameters(adapter.Trainable);
            using var optimizer = new SgdConfig { LearningRate = 0.1 }.Create(parameters);
            TrainingStep.Backward(model, adapter, objective, parameters, [GoldenPairs.Batch()], CPU);
            optimizer.Step(0.1);
            adapter.SetTraining(false);
            (logits, scores) = Outputs(model);
            adapter.Save(folder.In("saved"), new ModelCard("base"));
        }

        var head = full ? HuggingFaceFolder.ReadConfig(folder.In("saved")).Score : ScoreHead.Of(folder.In("saved"));
        Assert.Equal(objective.Score, head);
        using var again = full
            ? CausalLm.Load(folder.In("saved"), ScalarType.Float32, CPU)
            : CausalLm.Load(source, ScalarType.Float32, CPU, score: head);
        using var loaded = full ? null : AdapterConfig.Saved(folder.In("saved")).Attach(again, seed: 9);
        loaded?.SetTraining(false);
        Assert.Equal((logits, scores), Outputs(again), Same);
    }

    [Fact]
    public void A_run_that_was_stopped_ends_in_the_bytes_of_one_that_was_not()
    {
        using var folder = new RunFolder();
        var spec = new TrainingSpec
        {
            Model = Sample,
            Data = new() { Train = folder.Rows("rows.jsonl", Enumerable.Range(0, 12).Select(TextRow)), ValidationSplit = 0.2, MaxLength = 96 },
            Objective = new CritiqueRewardConfig { CenterRewardsCoefficient = 0.01 },
            Adapter = new LoraConfig { Rank = 2, Dropout = 0.2 },
            Schedule = new() { MaxSteps = 4, BatchSize = 2, GradientAccumulationSteps = 2 },
            ActivationCheckpointing = ActivationCheckpointing.Full,
            Spectra = new() { Enabled = false },
            Seed = 7,
        };
        var done = folder.Run(spec, "unbroken");
        var control = new RunControl();
        Assert.Throws<RunStoppedException>(() => folder.Run(spec, "broken", control, report =>
        {
            if (report is StepReport { Step: 2 })
            {
                control.RequestCheckpointAndStop();
            }
        }));
        folder.Run(spec, "broken");

        Assert.Superset(
            new HashSet<string> { "eval/accuracy", "eval/margin", "eval/critique_loss", "eval/critique_loss_before" }, done.Metrics.Keys.ToHashSet());
        Assert.Equal(
            File.ReadAllBytes(folder.In("unbroken", "adapter", "adapter_model.safetensors")), File.ReadAllBytes(folder.In("broken", "adapter", "adapter_model.safetensors")));
        var report = File.ReadAllText(folder.In("broken", "evaluation", "reward.json"));
        Assert.Equal(File.ReadAllText(folder.In("unbroken", "evaluation", "reward.json")), report);
        Assert.Contains("critiques_given", report, StringComparison.Ordinal);
    }

    // An answer of two letters is good when its second is one of four; the critique says so. One answer in five is never trained on.
    [Fact]
    public void The_score_after_its_own_critique_ranks_answers_that_it_has_not_seen()
    {
        using var scope = NewDisposeScope();
        set_num_threads(1);
        var objective = new CritiqueRewardConfig { CenterRewardsCoefficient = 0.01 };
        var config = TinyLlama.Config() with { Score = objective.Score };
        using var model = CausalLm.Create(config, ScalarType.Float32, CPU, seed: 7);
        using var adapter = new FullConfig().Attach(model, seed: 0);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new AdamWConfig { LearningRate = 1e-2 }.Create(parameters);
        var pairs = (from good in Answers where IsGood(good) from bad in Answers where !IsGood(bad) select (good, bad)).ToList();
        var held = pairs.Where(pair => IsHeld(pair.good) && IsHeld(pair.bad)).ToList();
        var trained = pairs.Where(pair => !IsHeld(pair.good) && !IsHeld(pair.bad)).Select(pair => Critiqued(pair.good, pair.bad)).ToList();
        var plan = new BatchPlan(trained, batchSize: 32, padId: 0, packTo: null, shuffleSeed: 3);
        for (var step = 0; step < 80; step++)
        {
            var batches = plan.ForEpoch(step / plan.BatchesPerEpoch);
            TrainingStep.Backward(model, adapter, objective, parameters, [plan.Collate(batches[step % plan.BatchesPerEpoch])], CPU);
            optimizer.Step(1e-2);
        }

        var scores = new CritiqueScorer(model, new HashSet<int> { End }, maxCritiqueTokens: 4)
            .Score([.. Answers.Where(IsHeld).Select(answer => (IReadOnlyList<int>)[.. answer, Mark])]);

        var byAnswer = Answers.Where(IsHeld).Zip(scores).ToDictionary(scored => scored.First, scored => scored.Second);
        var right = held.Average(pair => byAnswer[pair.good].Reward > byAnswer[pair.bad].Reward ? 1.0 : 0);
        Assert.InRange(right, 0.9, 1);
        Assert.InRange(byAnswer.Average(scored => scored.Value.Critique.SequenceEqual(CritiqueOf(scored.Key)) ? 1.0 : 0), 0.9, 1);
    }

    [Fact]
    public void An_answer_is_scored_as_training_would_score_it_with_that_critique()
    {
        using var scope = NewDisposeScope();
        var objective = new CritiqueRewardConfig();
        using var model = CausalLm.Load(Sample, ScalarType.Float32, CPU, score: objective.Score, seed: 5);
        var tokenizer = Tokenizer.Load(Sample);
        var scorer = new CritiqueScorer(model, new HashSet<int> { tokenizer.EosId!.Value }, maxCritiqueTokens: 8);

        var scores = scorer.Score(tokenizer, "What is left of", ["the order", "it"]);

        Assert.Equal(2, scores.Count);
        Assert.Equal(scores[1].Reward, scorer.Score(tokenizer, "What is left of", ["it"])[0].Reward, 1e-5);   // its neighbour makes no difference
        using var file = new TextFile("rows.jsonl", System.Text.Json.JsonSerializer.Serialize(
            new { prompt = "What is left of", chosen = "the order", rejected = "it", chosen_critique = scores[0].Critique, rejected_critique = scores[1].Critique }) + "\n");
        using var data = file.Prepare(tokenizer: tokenizer, use: RowUse.Critiques, vocabulary: 400);
        Assert.Equal("the order", tokenizer.Decode(data.Train[0].InputIds[..data.Train[0].Ends![0]]).Split('\n')[0][^9..]);

        var refused = Assert.Throws<TrainingException>(() => scorer.Score([Enumerable.Repeat(5, 600).ToArray()]));
        Assert.Contains("600 tokens", refused.Message, StringComparison.Ordinal);
    }

    private const int Mark = 30;
    private const int End = 31;
    private const int Letters = 8;

    private static readonly IReadOnlyList<int[]> Answers = [.. from first in Enumerable.Range(1, Letters) from second in Enumerable.Range(1, Letters) select new[] { first, second }];

    private static bool IsGood(int[] answer) => answer[1] % 2 == 1;

    private static bool IsHeld(int[] answer) => (answer[0] + (3 * answer[1])) % 5 == 0;

    private static int[] CritiqueOf(int[] answer) => IsGood(answer) ? [21, 22, End] : [23, 24, End];

    private static Example Critiqued(int[] good, int[] bad)
    {
        int[] chosen = [.. good, Mark, .. CritiqueOf(good)], rejected = [.. bad, Mark, .. CritiqueOf(bad)];
        int[] ids = [.. chosen, .. rejected];
        return new(ids, [.. ids.Select((id, at) => at % chosen.Length < 3 ? Example.Ignored : id)], Row: 1) { Ends = [chosen.Length, ids.Length] };
    }

    private static object TextRow(int row) => new
    {
        prompt = $"How many are left of {row}?",
        chosen = $"There are {row}.",
        rejected = $"Nobody knows {row * 7 % 11}.",
        chosen_critique = "It answers.",
        rejected_critique = "It says nothing.",
        is_tie = row % 5 == 0,
    };

    private static (float[] Logits, float[] Scores) Outputs(CausalLm model)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var batch = GoldenPairs.Batch();
        var hidden = BatchInput.HiddenStates(model, batch, CPU);
        return (model.Head(hidden).data<float>().ToArray(), BatchInput.Scores(model, batch, CPU).data<float>().ToArray());
    }

    private static bool Same((float[] Logits, float[] Scores) left, (float[] Logits, float[] Scores) right) =>
        left.Logits.SequenceEqual(right.Logits) && left.Scores.SequenceEqual(right.Scores);

    private static string Text(int[] ids) => new CharacterTokenizer().Decode(ids, skipSpecialTokens: false);
}
