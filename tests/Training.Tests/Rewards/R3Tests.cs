using System.Text.Json;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Rewards;
using TrainingService.Training.Tests.Data;
using TrainingService.Training.Tests.Runs;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Rewards;

/// <summary>R³: the published check values, and what becomes of candidates.</summary>
public class R3Tests
{
    [Fact]
    public void Repetition_penalty_and_length_incentive_have_the_published_values()
    {
        Assert.Equal(0.5, R3.RepetitionPenalty("a b a b a b"));   // aba, bab, aba, bab
        Assert.Equal(1, R3.RepetitionPenalty("a b"));
        Assert.Equal(1, R3.RepetitionPenalty("a b c d"));
        Assert.Equal(2.5, R3.LengthIncentive(string.Join(' ', Enumerable.Repeat("word", 250))));
        Assert.Equal(["Don", "'", "t", "stop", ",", "now", "!!"], R3.Words("Don't stop, now!!"));
    }

    [Fact]
    public void The_mixture_follows_the_type_of_the_query()
    {
        Assert.Equal(2 * 0.06 * 0.5, R3.Open(2, "a b a b a b"), 12);
        Assert.Equal(5.12 * 0.5, R3.Constrained(3.5, "a b a b a b"), 12);   // 3.5 maps to 512 words; no length incentive
        Assert.Equal(2.56, R3.Constrained(1, "a b c", range: 2), 12);
    }

    [Theory]
    [InlineData("  an answer\nHuman: and you?", "an answer")]
    [InlineData("one\n\n\n\ntwo", "one")]
    [InlineData("one\n\n-- \nsignature", "one")]
    [InlineData("one\n\n____\ntwo", "one")]
    [InlineData("one\n\ntwo -- three", "one\n\ntwo -- three")]
    [InlineData("Assistant: all of it", "")]
    public void An_answer_is_cut_where_somebody_else_speaks_or_it_trails_off(string response, string kept) => Assert.Equal(kept, R3.Cut(response));

    [Fact]
    public void The_range_is_a_high_percentile_of_references_among_themselves()
    {
        Assert.Equal(95, R3.FitRange(Enumerable.Range(1, 100).Select(i => (double)i)));
        Assert.Equal(1.5, R3.FitRange([1.5]));
        Assert.Throws<ArgumentException>(() => R3.FitRange([0]));
        Assert.Throws<ArgumentException>(() => R3.FitRange([]));
    }

    [Fact]
    public void Words_that_are_rare_make_texts_relevant()
    {
        string[] corpus = ["the cat sat", "the dog ran", "the cat ran"];
        var rows = TextEmbeddings.OfWords(corpus)(["the cat", "a cat", "the dog", "bird"]);

        // ln(4/2) for cat and ran, ln(4/1) for dog and sat, ln(4/3) for the; each by its share of the text.
        Assert.Equal((Math.Log(2) / 2 * (Math.Log(2) / 2)), TextEmbeddings.Relevance(rows[0], rows[1]), 6);
        Assert.Equal((Math.Log(4.0 / 3) / 2 * (Math.Log(4.0 / 3) / 2)), TextEmbeddings.Relevance(rows[0], rows[2]), 6);
        Assert.Equal(0, TextEmbeddings.Relevance(rows[0], rows[3]));
    }

    [Fact]
    public void Hidden_states_are_pooled_by_the_mean_over_the_tokens_of_each_text_alone()
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var folder = SharedData.Path("data", "models", "stories260K");
        using var model = CausalLm.Load(folder, ScalarType.Float32, CPU);
        var tokenizer = Tokenizer.Load(folder);

        var rows = TextEmbeddings.OfHiddenStates(model, tokenizer)(["Once upon a time there was a dog.", "A cat."]);

        var ids = tokenizer.Encode("A cat.").Select(id => (long)id).ToArray();
        var alone = model.HiddenStates(tensor(ids, [1, ids.Length]), arange(ids.Length).unsqueeze(0)).mean([0, 1]).data<float>().ToArray();
        Assert.Equal(alone, rows[1], (expected, actual) => Math.Abs(expected - actual) < 1e-5);
        Assert.Equal(64, rows[0].Length);
    }

    [Fact]
    public void Candidates_become_pairs_that_the_reward_objective_reads()
    {
        using var rows = new TextFile("candidates.jsonl",
            """{"prompt": "Where does the cat sleep?", "candidates": ["The cat can sleep in the basket by the window.", "Trains leave at nine and again at ten.", "Human: no answer"]}""" + "\n\n"
            + """{"prompt": "How far is the moon?", "candidates": ["It is far.", "The moon is 384400 km away."], "reference": "384400 km"}""" + "\n"
            + """{"prompt": "Same?", "candidates": ["Yes.", "Yes."]}""" + "\n");
        var read = PreferenceLabeller.Read(rows.Path);
        var labeller = new PreferenceLabeller(TextEmbeddings.OfWords(read.SelectMany(row => row.Candidates.Append(row.Prompt))));

        var pairs = labeller.Label(read, CandidatePairs.All).ToList();
        var extremes = labeller.Label(read, CandidatePairs.Extremes).ToList();

        Assert.Equal([QueryType.Open, QueryType.Constrained, QueryType.Open], read.Select(row => row.Kind));
        Assert.Equal(0, labeller.Score(read)[0][2]);   // nothing is left of it
        Assert.Equal(2, extremes.Count);   // equal candidates give none
        Assert.All(extremes, pair => Assert.Contains(pair.Chosen, (string[])[read[0].Candidates[0], read[1].Candidates[1]]));
        Assert.All(pairs, pair => Assert.True(pair.ChosenReward > pair.RejectedReward));
        using var written = new TextFile("pairs.jsonl", string.Join('\n', pairs.Select(PreferenceLabeller.Write)) + "\n");
        using var data = written.Prepare(use: RowUse.Pairs);
        Assert.Equal((pairs.Count, "prompt_preference"), (data.Train.Count, data.Report.Train.Layout));
        Assert.Equal(["chosen_reward", "rejected_reward"], data.Report.Train.IgnoredColumns);
    }

    [Fact]
    public void The_verb_writes_a_preference_file_and_all_rewards()
    {
        using var folder = new RunFolder();
        var rows = folder.Rows("candidates.jsonl", TopicPairs.OnTopic(8).Select(pair => new { prompt = pair.Prompt, candidates = new[] { pair.Rejected, pair.Chosen } }));
        var (exit, _, errors) = WorkerProcess.Run(["r3", "--candidates", rows, "--out", folder.In("pairs.jsonl"), "--scores", folder.In("scores.jsonl")]);

        Assert.True(exit == 0, errors);
        Assert.Contains("8 pairs of 8 rows", errors, StringComparison.Ordinal);
        var pairs = File.ReadLines(folder.In("pairs.jsonl")).Select(line => JsonSerializer.Deserialize<LabelledPair>(line, SpecJson.Options)!).ToList();
        Assert.Equal(TopicPairs.OnTopic(8).Select(pair => pair.Chosen), pairs.Select(pair => pair.Chosen));
        Assert.All(File.ReadLines(folder.In("scores.jsonl")).Zip(pairs), line => Assert.Equal(
            line.Second.ChosenReward, JsonDocument.Parse(line.First).RootElement.GetProperty("rewards")[1].GetDouble()));
    }

    [Theory]
    [InlineData("{", "not a JSON object")]
    [InlineData("""{"prompt": "a"}""", "needs prompt")]
    [InlineData("""{"prompt": "a", "candidates": ["b"]}""", "at least two")]
    [InlineData("""{"prompt": "a", "candidates": ["b", null]}""", "needs prompt")]
    [InlineData("""{"prompt": " ", "candidates": ["b", "c"]}""", "prompt is empty")]
    [InlineData("""{"prompt": "a", "candidates": ["b", "c"], "type": "constrained"}""", "needs a reference")]
    [InlineData("""{"prompt": "a", "candidates": ["b", "c"], "type": "odd"}""", "not a JSON object")]
    public void A_row_that_cannot_be_labelled_is_named(string line, string message)
    {
        using var rows = new TextFile("candidates.jsonl", "\n" + line + "\n");

        var error = Assert.Throws<TrainingException>(() => PreferenceLabeller.Read(rows.Path));

        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.Equal("candidates.jsonl:2", error.Param);
    }
}
