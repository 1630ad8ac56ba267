using TrainingService.Training.Models;
using static TrainingService.Training.Tests.Models.GoldenModelTests;

namespace TrainingService.Training.Tests.Models;

public class GenerationTests
{
    private static readonly IReadOnlySet<int> NoStop = new HashSet<int>();

    public GenerationTests() => TorchSharp.torch.set_num_threads(1);   // steps of one token are too small to share

    [Theory]
    [InlineData("llama_untied")]
    [InlineData("qwen2")]
    public void Greedy_continuations_equal_the_reference(string id)
    {
        using var model = LoadGolden(id);
        var golden = ReadJson("golden", "base", id, "greedy.json");
        var prompts = golden.GetProperty("prompt").EnumerateArray().Select(Ints).ToArray();
        var expected = golden.GetProperty("continuation").EnumerateArray().Select(Ints).ToArray();

        Assert.Equal(expected, Generation.GreedyBatch(model, prompts, expected[0].Length, NoStop));
        Assert.Equal(expected[1], Generation.Greedy(model, prompts[1], expected[1].Length, NoStop));
    }

    [Fact]
    public void Stories260K_writes_its_twenty_tokens_and_then_its_whole_story()
    {
        using var model = LoadStories();
        var golden = ReadJson("data", "models", "stories260K", "golden.json");
        var prompt = Ints(golden.GetProperty("prompt_token_ids"));
        var twenty = Ints(golden.GetProperty("greedy_20").GetProperty("token_ids"));
        var story = Ints(golden.GetProperty("greedy_from_bos").GetProperty("token_ids"));

        Assert.Equal(twenty, Generation.Greedy(model, prompt, 20, NoStop));
        Assert.Equal(story, Generation.Greedy(model, [1], story.Length, NoStop));
    }

    [Fact]
    public void A_prompt_continues_the_same_way_among_longer_and_shorter_ones()
    {
        using var model = LoadStories();
        int[][] prompts = [[1], [1, 403, 407, 261, 378], [1, 385, 328], [1, 346, 306, 414, 432, 263, 304, 341, 443]];
        var stop = new HashSet<int> { 426 };

        var together = Generation.GreedyBatch(model, prompts, 24, stop);

        Assert.Equal([.. prompts.Select(prompt => Generation.Greedy(model, prompt, 24, stop))], together);
        Assert.All(together, tokens => Assert.True(tokens.Length == 24 || tokens[^1] == 426));
        Assert.All(together, tokens => Assert.DoesNotContain(426, tokens.SkipLast(1)));
        Assert.Contains(together, tokens => tokens.Length < 24);
    }

    [Fact]
    public void Generation_ends_where_the_models_longest_sequence_ends_for_each_prompt_alone()
    {
        using var model = LoadGolden("llama_untied");   // 128 positions
        var longPrompt = Enumerable.Range(1, 120).ToArray();

        var results = Generation.GreedyBatch(model, [longPrompt, [5, 6]], 200, NoStop);

        Assert.Equal([8, 126], results.Select(result => result.Length));
        Assert.Equal(Generation.Greedy(model, [5, 6], 200, NoStop), results[1]);
    }

    [Fact]
    public void Generation_leaves_the_mode_and_no_tensors_behind()
    {
        using var model = LoadStories();
        model.train();
        Generation.Greedy(model, [1, 403], 4, NoStop);
        var before = TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        Generation.GreedyBatch(model, [[1, 403], [1]], 4, NoStop);

        Assert.Equal(before, TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        Assert.True(model.training);
    }

    [Fact]
    public void An_empty_prompt_is_refused() =>
        Assert.Throws<ArgumentException>(() =>
        {
            using var model = LoadStories();
            Generation.Greedy(model, [], 4, NoStop);
        });
}
