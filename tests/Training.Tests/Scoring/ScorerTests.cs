using System.Text.Json;
using TrainingService.Tests;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Exports;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Scoring;
using TrainingService.Training.Tests.Objectives;
using TrainingService.Training.Tests.Runs;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Scoring;

/// <summary>A reward model in use: the rewards of training, their place among those of the validation rows, memory, and the forms in which it leaves.</summary>
public sealed class ScorerTests
{
    private static readonly string Held = GeneratedFile.Locate("samples", "data", "preferences-validation.jsonl");

    private static string GoldenModel => SharedData.Path("golden", "models", "llama_rm");

    private static string GoldenAdapter => SharedData.Path("golden", "reward", "adapter");

    [Fact]
    public void Rewards_are_those_of_TRL_in_any_batch()
    {
        using var scorer = Scorer.Load(new(GoldenModel, GoldenAdapter));

        var together = scorer.Score(GoldenAnswers());

        AssertGolden(together);
        Assert.All(GoldenAnswers().Zip(together), pair => Assert.Equal(pair.Second.Reward, Assert.Single(scorer.Score([pair.First])).Reward, 1e-5));
        Assert.All(together, score => Assert.Null(score.Percentile));
        Assert.All(together, score => Assert.Null(score.Disagreement));
    }

    [Fact]
    public void A_merged_model_scores_as_its_adapter_does_and_reads_as_a_sequence_classification()
    {
        using var folder = new RunFolder();
        using var decoder = new RunFolder();

        Exporter.Merged(GoldenModel, GoldenAdapter, folder.In("merged"));
        var adapter = SaveAdapter(decoder.In("adapter"), ScoreLayers.Linear);
        var shards = Sharded(decoder.In("base"));
        Exporter.Merged(shards, adapter, decoder.In("merged"));

        using (var scorer = Scorer.Load(new(folder.In("merged"), null)))
        {
            AssertGolden(scorer.Score(GoldenAnswers()));
        }

        using (var scorer = Scorer.Load(new(decoder.In("merged"), null)))
        using (var adapted = Scorer.Load(new(shards, adapter)))
        {
            Assert.Equal(adapted.Score(GoldenAnswers()).Select(score => score.Reward), scorer.Score(GoldenAnswers()).Select(score => score.Reward), new Near());
        }

        using var config = JsonDocument.Parse(File.ReadAllText(decoder.In("merged", "config.json")));
        Assert.Equal("LlamaForSequenceClassification", config.RootElement.GetProperty("architectures")[0].GetString());
        Assert.Equal(1, config.RootElement.GetProperty("id2label").GetPropertyCount());
        Assert.NotEqual(config.RootElement.GetProperty("eos_token_id").GetInt32(), config.RootElement.GetProperty("pad_token_id").GetInt32());
        using var checkpoint = CheckpointFolder.Open(decoder.In("merged"));
        Assert.Equal([1, 64], checkpoint.Entries["score.weight"].Shape);
        Assert.DoesNotContain("lm_head.weight", checkpoint.Entries.Keys);
        using var index = JsonDocument.Parse(File.ReadAllText(decoder.In("merged", "model.safetensors.index.json")));
        Assert.Equal(checkpoint.Entries.Keys.Order(), index.RootElement.GetProperty("weight_map").EnumerateObject().Select(entry => entry.Name).Order());
    }

    [Fact]
    public void A_head_of_two_layers_is_not_merged_into_what_would_be_read_wrongly()
    {
        using var folder = new RunFolder();
        var adapter = SaveAdapter(folder.In("adapter"), ScoreLayers.Mlp);

        var refused = Assert.Throws<TrainingException>(() => Exporter.Merged(Adapters.TinyModel.Folder(), adapter, folder.In("merged")));

        Assert.Contains("score_layers linear", refused.Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(folder.In("merged")));
        using var scorer = Scorer.Load(new(Adapters.TinyModel.Folder(), adapter));
        Assert.All(scorer.Score(GoldenAnswers()), score => Assert.True(float.IsFinite(score.Reward)));
    }

    [Fact]
    public void A_run_is_scored_as_it_was_evaluated()
    {
        using var folder = new RunFolder();
        var done = folder.Run(Spec(new RewardConfig { EnsembleSize = 2 }));
        var rows = File.ReadLines(Held).Take(20).Select(line => JsonElement.Parse(line)).ToList();
        using var scorer = Scorer.Load(new(GeneratedFile.Locate("samples", "model"), folder.In("work", "adapter")));

        var inputs = rows.Select((row, index) => ScoreInput.Read(
            JsonSerializer.SerializeToElement(new { prompt = row.GetProperty("prompt"), responses = new[] { row.GetProperty("chosen"), row.GetProperty("rejected") } }),
            $"input[{index}]")).ToList();
        var scores = scorer.Score(inputs);

        Assert.Equal(done.Metrics["eval/margin"], scores.Average(row => (double)row[0].Reward - row[1].Reward), 1e-5);
        Assert.Equal(done.Metrics["eval/chosen_reward"], scores.Average(row => (double)row[0].Reward), 1e-5);
        Assert.All(scores, row => Assert.All(row, score => Assert.InRange(score.Disagreement!.Value, 1e-9, 100)));

        // The validation rows are those that are scored: their percentiles are ranks.
        var sorted = scores.SelectMany(row => row).OrderBy(score => score.Reward).ToList();
        Assert.Equal(40, RewardDistribution.Read(folder.In("work", "adapter"))!.Count);
        Assert.InRange(sorted[0].Percentile!.Value, 0, 5);
        Assert.InRange(sorted[^1].Percentile!.Value, 95, 100);
        Assert.Equal(sorted.Select(score => score.Percentile!.Value).Order(), sorted.Select(score => score.Percentile!.Value));

        // What training saw is what scoring sees.
        var tokenizer = Tokenizer.Load(GeneratedFile.Locate("samples", "model"));
        var data = DataSets.Prepare(
            new() { Train = folder.In("held.jsonl") }, RowUse.Pairs, tokenizer, tokenizer.VocabularySize, seed: 0, progress: null, TestContext.Current.CancellationToken);
        Assert.Equal(20, data.Train.Count);
        Assert.All(data.Train.Zip(inputs), pair =>
        {
            var encoded = scorer.Encode(pair.Second);
            Assert.Equal(pair.First.InputIds, encoded[0].Concat(encoded[1]));
        });

        TrainingSpec Spec(ObjectiveConfig objective)
        {
            File.WriteAllLines(folder.In("held.jsonl"), File.ReadLines(Held).Take(20));
            return new()
            {
                Model = GeneratedFile.Locate("samples", "model"),
                Data = new() { Train = GeneratedFile.Locate("samples", "data", "preferences.jsonl"), Validation = folder.In("held.jsonl"), MaxLength = 256 },
                Objective = objective,
                Adapter = new LoraConfig { Rank = 4, Dropout = 0.1 },
                Optimizer = new AdamWConfig { LearningRate = 3e-3 },
                Schedule = new() { MaxSteps = 3, BatchSize = 4 },
                Precision = Precision.Float32,
                Spectra = new() { Enabled = false },
            };
        }
    }

    [Theory]
    [InlineData("""{"prompt": "a"}""", "input[3]", "needs prompt and responses")]
    [InlineData("""{"prompt": "a", "responses": []}""", "input[3].responses", "at least one answer")]
    [InlineData("""{"prompt": "a", "responses": ["b", ""]}""", "input[3].responses[1]", "empty answer")]
    [InlineData("""{"responses": ["b"]}""", "input[3].prompt", "missing or null")]
    [InlineData("""{"prompt": "a", "response": 5}""", "input[3].response", "must be a string")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}]}""", "input[3].messages", "must end with a message of the assistant")]
    [InlineData("[1]", "input[3]", "must be an object")]
    public void A_row_that_cannot_be_scored_is_named(string row, string param, string words)
    {
        var refused = Assert.Throws<TrainingException>(() => ScoreInput.Read(JsonElement.Parse(row), "input[3]"));

        Assert.Equal(param, refused.Param);
        Assert.Contains(words, refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Forms_that_say_the_same_have_the_same_tokens_and_a_long_one_is_named()
    {
        using var folder = new RunFolder();
        var model = GeneratedFile.Locate("samples", "model");
        using var scorer = Scorer.Load(new(model, SaveAdapter(folder.In("adapter"), ScoreLayers.Linear, model)));
        IReadOnlyList<int> Ids(string row, int answer = 0) => scorer.Encode(ScoreInput.Read(JsonElement.Parse(row), "input[0]"))[answer];

        Assert.Equal(Ids("""{"prompt": "p", "completion": " b"}"""), Ids("""{"prompt": "p", "responses": [" a", " b"]}""", 1));
        var talk = Ids("""{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}""");
        Assert.Equal(talk, Ids("""{"prompt": [{"role": "user", "content": "hi"}], "responses": ["ha", [{"role": "assistant", "content": "ho"}]]}""", 1));
        Assert.Equal(talk, Ids("""{"messages": [{"role": "user", "content": "hi"}], "responses": [{"role": "assistant", "content": "ho"}]}"""));

        var words = string.Join(' ', Enumerable.Repeat("word", 4000));
        var refused = Assert.Throws<TrainingException>(() => Ids($$"""{"prompt": "p", "responses": ["a", "{{words}}"]}"""));
        Assert.Equal("input[0].responses[1]", refused.Param);
        Assert.Contains($"takes {scorer.MostTokens} at most", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_verbs_score_answers_name_the_best_and_write_none()
    {
        using var folder = new RunFolder();
        var model = GeneratedFile.Locate("samples", "model");
        var adapter = SaveAdapter(folder.In("adapter"), ScoreLayers.Linear, model);
        File.WriteAllText(folder.In("rows.jsonl"), """
            {"prompt": "p", "responses": [" a", " b", " a long answer"]}

            {"prompt": "p", "response": " b"}
            """);
        string[] words = ["score", "--model", model, "--adapter", adapter, "--input", folder.In("rows.jsonl")];

        var (exit, lines, errors) = WorkerProcess.Run(words);
        var (_, best, _) = WorkerProcess.Run([.. words, "--best-of"]);
        var (refused, _, why) = WorkerProcess.Run(["generate", "--model", model, "--adapter", adapter, "--prompts", folder.In("rows.jsonl"), "--out", folder.In("out.jsonl")]);

        Assert.True(exit == 0, errors);
        var rewards = lines.Select(line => JsonElement.Parse(line).GetProperty("scores").EnumerateArray().Select(score => score.GetProperty("reward").GetSingle()).ToArray()).ToList();
        Assert.Equal([3, 1], rewards.Select(row => row.Length));
        Assert.Equal(rewards[0][1], rewards[1][0], 1e-5);
        Assert.Equal(Array.IndexOf(rewards[0], rewards[0].Max()), JsonElement.Parse(best[0]).GetProperty("best").GetInt32());
        Assert.Equal(1, refused);
        Assert.Contains("Use the verb score.", why, StringComparison.Ordinal);
    }

    [Fact]
    public void Models_give_way_to_others_unless_they_are_in_use()
    {
        using var folder = new RunFolder();
        ScorerSource[] sources =
        [
            new(GoldenModel, null), new(GoldenModel, GoldenAdapter), new(Adapters.TinyModel.Folder(), SaveAdapter(folder.In("adapter"), ScoreLayers.Linear)),
        ];
        var bytes = sources.Select(Scorer.BytesOf).ToList();
        using (var tight = new ScorerPool(bytes.Max() - 1))
        {
            var refused = Assert.Throws<TrainingException>(() => tight.Take(sources[bytes.IndexOf(bytes.Max())]));
            Assert.Contains("Scores:MemoryBytes", refused.Message, StringComparison.Ordinal);
        }

        using var pool = new ScorerPool(bytes.Sum() - bytes.Min());   // two of the three
        pool.Take(sources[0]).Dispose();
        var first = pool.Take(sources[1]);
        pool.Take(sources[0]).Dispose();
        pool.Take(sources[2]).Dispose();

        Assert.Equal([sources[1], sources[2]], pool.Loaded);   // the second was used longer ago, and is in use
        AssertGolden(first.Scorer.Score(GoldenAnswers()));
        first.Dispose();
        pool.Take(sources[0]).Dispose();
        Assert.Equal([sources[2], sources[0]], pool.Loaded);
    }

    [Fact]
    public void Somebody_who_needs_the_memory_of_a_model_in_use_waits_for_it()
    {
        var (one, other) = (new ScorerSource(GoldenModel, null), new ScorerSource(GoldenModel, GoldenAdapter));
        using var pool = new ScorerPool(Scorer.BytesOf(other));
        var held = pool.Take(one);
        using var asked = new ManualResetEventSlim();
        var waiting = new Thread(() =>
        {
            asked.Set();
            using var use = pool.Take(other);
            AssertGolden(use.Scorer.Score(GoldenAnswers()));
        });
        waiting.Start();
        asked.Wait(TestContext.Current.CancellationToken);

        Assert.Equal([one], pool.Loaded);
        Assert.All(held.Scorer.Score(GoldenAnswers()), score => Assert.True(float.IsFinite(score.Reward)));   // it was not taken away
        held.Dispose();
        Assert.True(waiting.Join(TimeSpan.FromSeconds(60)));
        Assert.Equal([other], pool.Loaded);
    }

    [Fact]
    public void The_distribution_keeps_bounded_many_rewards_and_counts_ties_by_half()
    {
        using var folder = new RunFolder();
        RewardDistribution.Of(Enumerable.Range(0, 4000).Select(i => (float)(i * 7 % 4000))).Write(folder.Path);

        var read = RewardDistribution.Read(folder.Path)!;

        Assert.Equal((4000, 1001), (read.Count, read.Rewards.Count));
        Assert.Equal((0f, 3999f), (read.Rewards[0], read.Rewards[^1]));
        Assert.Equal(25, read.PercentileOf(1000), 0.1);
        Assert.Equal((0, 100), (read.PercentileOf(-1), read.PercentileOf(4000)));
        Assert.Equal(50, RewardDistribution.Of([1, 2, 2, 3]).PercentileOf(2));   // one below, two equal: (1 + 2/2) / 4
    }

    private static void AssertGolden(IReadOnlyList<AnswerScore> scores)
    {
        using var facts = JsonDocument.Parse(File.ReadAllText(SharedData.Path("golden", "reward", "golden.json")));
        var expected = facts.RootElement.GetProperty("lora_plain").GetProperty("rewards").EnumerateArray().Select(reward => reward.GetSingle());
        Assert.Equal(expected, scores.Select(score => score.Reward), new Near());
    }

    /// <summary>The golden pairs as single answers, the chosen ones first.</summary>
    private static List<IReadOnlyList<int>> GoldenAnswers()
    {
        var pairs = GoldenPairs.Examples();
        return [.. pairs.Select(pair => pair.InputIds[..pair.Ends![0]]), .. pairs.Select(pair => pair.InputIds[pair.Ends![0]..])];
    }

    /// <summary>An adapter with a head, that changes something.</summary>
    private static string SaveAdapter(string folder, ScoreLayers layers, string? model = null)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var loaded = CausalLm.Load(model ?? Adapters.TinyModel.Folder(), ScalarType.Float32, CPU, score: new(layers), seed: 3);
        using var adapter = new LoraConfig { Rank = 2 }.Attach(loaded, seed: 1);
        foreach (var (tensor, index) in adapter.Trainable.Select((tensor, index) => (tensor.Parameter, index)))
        {
            tensor.add_(arange(tensor.numel(), ScalarType.Float32).add(index).sin().mul(0.05).reshape(tensor.shape));
        }

        adapter.Save(folder, new ModelCard("tiny"));
        return folder;
    }

    /// <summary>The tiny decoder in several files with an index.</summary>
    private static string Sharded(string folder)
    {
        using var model = Adapters.TinyModel.Load();
        HuggingFaceFolder.Save(model, folder, copyTokenizerFrom: null, shardBytes: 60_000);
        return folder;
    }

    private sealed class Near : IEqualityComparer<float>
    {
        public bool Equals(float x, float y) => Math.Abs(x - y) <= 1e-5 * Math.Max(1, Math.Abs(x));

        public int GetHashCode(float number) => 0;
    }
}
