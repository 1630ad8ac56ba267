using TrainingService.Training.Adapters;

namespace TrainingService.Training.Tests.Spec;

public class TargetSelectionTests
{
    private static readonly LinearShape[] Linears =
    [
        new("model.layers.0.self_attn.q_proj", 8, 8), new("model.layers.0.self_attn.v_proj", 4, 8),
        new("model.layers.1.self_attn.q_proj", 8, 8), new("model.layers.1.self_attn.v_proj", 4, 8),
        new("model.layers.10.self_attn.q_proj", 8, 8),
    ];

    [Theory]
    [InlineData("q_proj", "0q 1q 10q")]
    [InlineData("layers.1.self_attn.q_proj", "1q")]   // an ending begins at a dot: not layer 10, not "ayers"
    [InlineData("proj", "")]
    [InlineData("model.layers.0.self_attn.v_proj", "0v")]
    public void A_name_means_modules_that_are_called_so_or_end_so(string name, string expected) =>
        Assert.Equal(expected, Selected(new() { TargetModules = ModuleSelector.OfNames([name]) }));

    [Theory]
    [InlineData(@".*\.q_proj", "0q 1q 10q")]
    [InlineData("q_proj", "")]                         // a regular expression describes whole names
    [InlineData(@"model\.layers\.(0|10)\..*", "0q 0v 10q")]
    [InlineData(@"(?!.*v_proj).*", "0q 1q 10q")]
    [InlineData("model|.*v_proj", "0v 1v")]            // the alternatives are bound together
    public void A_pattern_describes_whole_names(string pattern, string expected) =>
        Assert.Equal(expected, Selected(new() { TargetModules = ModuleSelector.OfPattern(pattern) }));

    [Fact]
    public void Excluded_modules_are_left_out() =>
        Assert.Equal("0v 1v", Selected(new() { ExcludeModules = ModuleSelector.OfNames(["q_proj"]) }));

    [Theory]
    [InlineData("q_proj", "2 16 2 16 2")]
    [InlineData(@"layers\.1\.self_attn\.q_proj", "16 16 2 16 16")]
    [InlineData(@"1\.self_attn\..*", "16 16 2 2 16")]  // "10." does not end in ".1"
    [InlineData("^model.layers.1", "16 16 2 2 2")]     // anchored at the front, free at the end
    [InlineData("q_pro", "16 16 16 16 16")]
    public void A_key_of_a_pattern_describes_the_name_or_what_follows_a_dot(string key, string ranks)
    {
        var config = new LoraConfig { RankPattern = new Dictionary<string, int> { [key] = 2 } };

        Assert.Equal(ranks, string.Join(' ', TargetSelection.Select(config, Linears).Select(layer => TargetSelection.WithRank(config, layer).Rank)));
    }

    [Fact]
    public void The_first_key_that_matches_counts_and_ranks_and_scales_are_found_apart()
    {
        var config = new LoraConfig
        {
            Rank = 4,
            Alpha = 8,
            RankPattern = new Dictionary<string, int> { ["q_proj"] = 2, [@"layers\.0\..*"] = 1 },
            AlphaPattern = new Dictionary<string, double> { ["v_proj"] = 4 },
        };

        var layers = TargetSelection.Select(config, Linears).Select(layer => TargetSelection.WithRank(config, layer)).ToList();

        Assert.Equal([(2, 8, 4), (1, 4, 4), (2, 8, 4), (4, 4, 1), (2, 8, 4)], layers.Select(layer => (layer.Rank, layer.Alpha, layer.Scale)));
        Assert.Equal(2 * 16 + 12 + 2 * 16 + 4 * 12 + 2 * 16, layers.Sum(layer => layer.FactorCount));
    }

    [Fact]
    public void The_rank_stabilised_scale_divides_by_the_root() => Assert.Equal(2, TargetSelection.Scale(8, 16, useRslora: true));

    [Theory]
    [InlineData("(")]
    [InlineData("a)(b")]
    [InlineData("(?x)a #")]
    public void A_pattern_that_cannot_be_used_is_found_before_it_is(string pattern) => Assert.NotNull(ModulePattern.Fault(pattern));

    private static string Selected(LoraConfig config) => string.Join(
        ' ', TargetSelection.Select(config, Linears).Select(layer => layer.Name.Split('.')[2] + layer.Name.Split('.')[4][0]));
}
