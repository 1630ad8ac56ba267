using TrainingService.Training.Data;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Data;

/// <summary>Published data sets through published tokenizers.</summary>
public sealed class RealDataTests
{
    [Fact]
    public void E2E_restaurants_become_prompts_and_completions_that_read_as_they_stood()
    {
        var tokenizer = Tokenizer.Load(SharedData.Path("data", "models", "stories260K"));
        var config = new DataConfig
        {
            Train = SharedData.Path("data", "instruct", "e2e", "devset.csv"),
            Columns = new Dictionary<string, string> { ["mr"] = "prompt", ["ref"] = "completion" },
            MaxLength = 512,
        };

        var data = Prepare(config, tokenizer);

        Assert.Equal(("csv", "prompt_completion", 4672, 4672),
            (data.Report.Train.Container, data.Report.Train.Layout, data.Report.Train.Rows, data.Report.Train.UsedRows));
        Assert.Equal(0, data.Report.Train.TruncatedRows);
        const string Prompt = "name[Alimentum], area[city centre], familyFriendly[no]";
        const string Completion = "There is a place in the city centre, Alimentum, that is not family-friendly.";
        var first = data.Train[0];
        Assert.Equal(Prompt + Completion, tokenizer.Decode(first.InputIds));
        // At inference the prompt is tokenised alone; training must go on from the same tokens.
        var asked = tokenizer.Encode(Prompt);
        Assert.Equal(asked, first.InputIds.Take(asked.Count));
        Assert.All(first.Labels.Take(asked.Count), label => Assert.Equal(Example.Ignored, label));
        Assert.Equal(first.InputIds.Skip(asked.Count), first.Labels.Skip(asked.Count));
        Assert.Equal(tokenizer.EosId, first.InputIds[^1]);
    }

    [Fact]
    public void Gsm8k_is_read_as_questions_and_answers()
    {
        var tokenizer = Gpt2();
        var data = Prepare(new DataConfig { Train = SharedData.Path("data", "instruct", "gsm8k", "test.jsonl") }, tokenizer);

        Assert.Equal(("jsonl", "question_answer", 1319, 1319),
            (data.Report.Train.Container, data.Report.Train.Layout, data.Report.Train.Rows, data.Report.Train.UsedRows));
        var text = tokenizer.Decode(data.Train[0].InputIds);
        Assert.StartsWith("User: Janet’s ducks lay 16 eggs per day.", text, StringComparison.Ordinal);
        Assert.Contains("farmers' market?\nAssistant: Janet sells 16 - 3 - 4", text, StringComparison.Ordinal);
        var trained = data.Train[0].Labels.Where(label => label != Example.Ignored).ToList();
        Assert.StartsWith(" Janet sells 16", tokenizer.Decode(trained), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Once upon a", " time")]
    [InlineData("Once upon a ", "time")]
    [InlineData("Once upon a\n", "\ntime")]
    [InlineData("The th", "ere was.")]
    [InlineData("Q: 2 + 2 =", " 4")]
    [InlineData("héllo ", "wörld 🙂")]
    [InlineData("  ", "  x")]
    public void Prompt_and_completion_read_as_one_text_whatever_stands_at_their_border(string prompt, string completion)
    {
        var row = System.Text.Json.JsonSerializer.Serialize(new { prompt, completion });
        using var file = new TextFile("a.jsonl", row);

        foreach (var tokenizer in new[] { Tokenizer.Load(SharedData.Path("data", "models", "stories260K")), Gpt2() })
        {
            var example = Assert.Single(file.Prepare(tokenizer: tokenizer, vocabulary: 50257).Train);
            var asked = tokenizer.Encode(prompt);

            Assert.Equal(asked, example.InputIds.Take(asked.Count));
            var answer = example.InputIds.Skip(asked.Count).ToList();
            Assert.Equal(tokenizer.EosId ?? answer[^1], answer[^1]);   // the GPT-2 folder names no special tokens
            Assert.Equal(prompt + completion, tokenizer.Decode(asked.Concat(answer)));
        }
    }

    private static Tokenizer Gpt2() => Tokenizer.Load(SharedData.Path("data", "tokenizers", "gpt2"));

    private static PreparedData Prepare(DataConfig config, Tokenizer tokenizer) => DataSets.Prepare(
        config, use: RowUse.Answers, tokenizer, tokenizer.VocabularySize, seed: 1, progress: null, TestContext.Current.CancellationToken);
}
