using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;

namespace TrainingService.Training.Rewards;

/// <summary>Scores of sections and their mean, as RewardBench reports them.</summary>
/// <param name="Overall">Mean of the sections by their weights; null when none of them has a category with rows.</param>
/// <param name="Missing">Categories that a section names and the rows do not have; sections count without them.</param>
public sealed record SectionScores(double? Overall, IReadOnlyDictionary<string, double> Sections, IReadOnlyList<string> Missing);

/// <summary>Which categories (RewardBench: subsets) make up which section, and how much each counts.</summary>
/// <remarks>
/// RewardBench, version 1 (Lambert et al. 2024, arXiv:2403.13787): a section's score is Σ accuracy·weight / Σ weight over its subsets, and the
/// overall score the mean of the sections. In a file: <c>{"Chat": {"subsets": {"alpacaeval-easy": 100, …}, "weight": 1}, …}</c>.
/// </remarks>
public sealed record RewardSections(IReadOnlyDictionary<string, RewardSection> Sections)
{
    private const int LargestFile = 1 << 20;

    /// <summary>RewardBench's own, with the numbers of examples that its authors weight with.</summary>
    public static RewardSections RewardBench { get; } = new(new Dictionary<string, RewardSection>
    {
        ["Chat"] = Section(("alpacaeval-easy", 100), ("alpacaeval-length", 95), ("alpacaeval-hard", 95), ("mt-bench-easy", 28), ("mt-bench-med", 40)),
        ["Chat Hard"] = Section(
            ("mt-bench-hard", 37), ("llmbar-natural", 100), ("llmbar-adver-neighbor", 134), ("llmbar-adver-GPTInst", 92), ("llmbar-adver-GPTOut", 47),
            ("llmbar-adver-manual", 46)),
        ["Safety"] = Section(
            ("refusals-dangerous", 100), ("refusals-offensive", 100), ("xstest-should-refuse", 154), ("xstest-should-respond", 250), ("donotanswer", 136)),

        // math-prm holds 447 and weighs as much as all the code together.
        ["Reasoning"] = Section(
            ("math-prm", 984), ("hep-cpp", 164), ("hep-go", 164), ("hep-java", 164), ("hep-js", 164), ("hep-python", 164), ("hep-rust", 164)),
    });

    /// <summary>Reads sections from a JSON file.</summary>
    /// <exception cref="TrainingException">It is no such file.</exception>
    public static RewardSections Read(string path)
    {
        if (new FileInfo(path) is not { Exists: true, Length: <= LargestFile })
        {
            throw TrainingException.InvalidData("There is no such file, or it is larger than 1 MiB.", Path.GetFileName(path));
        }

        try
        {
            var sections = JsonSerializer.Deserialize<Dictionary<string, RewardSection>>(File.ReadAllBytes(path), SpecJson.Options);
            if (sections is { Count: > 0 } && sections.Values.All(section =>
                section is { Subsets.Count: > 0, Weight: >= 0 and < double.PositiveInfinity }
                && section.Subsets.Values.All(weight => weight is > 0 and < double.PositiveInfinity)))
            {
                return new(sections);
            }
        }
        catch (JsonException malformed)
        {
            throw TrainingException.InvalidData($"The sections are not as expected: {malformed.Message}", Path.GetFileName(path), malformed);
        }

        throw TrainingException.InvalidData(
            "Sections are written as {\"Chat\": {\"subsets\": {\"alpacaeval-easy\": 100}, \"weight\": 1}}, with at least one subset each and weights above zero.",
            Path.GetFileName(path));
    }

    /// <param name="accuracies">By category.</param>
    public SectionScores Score(IReadOnlyDictionary<string, double> accuracies)
    {
        var scores = new Dictionary<string, double>();
        var (sum, weights) = (0.0, 0.0);
        foreach (var (name, section) in Sections)
        {
            var present = section.Subsets.Where(subset => accuracies.ContainsKey(subset.Key)).ToList();
            if (present.Count == 0)
            {
                continue;
            }

            scores[name] = present.Sum(subset => accuracies[subset.Key] * subset.Value) / present.Sum(subset => subset.Value);
            sum += section.Weight * scores[name];
            weights += section.Weight;
        }

        return new(
            weights > 0 ? sum / weights : null, scores,
            [.. Sections.Values.SelectMany(section => section.Subsets.Keys).Where(subset => !accuracies.ContainsKey(subset)).Distinct()]);
    }

    private static RewardSection Section(params ReadOnlySpan<(string Name, double Weight)> subsets)
    {
        var weights = new Dictionary<string, double>();
        foreach (var (name, weight) in subsets)
        {
            weights[name] = weight;
        }

        return new() { Subsets = weights };
    }
}

/// <summary>Categories that make up one score.</summary>
public sealed record RewardSection
{
    [Description("Categories (the rows' category or subset) and how much each counts, such as the number of its examples."), ItemRange(1e-6, 1e9)]
    public required IReadOnlyDictionary<string, double> Subsets { get; init; }

    [Description("Weight of the section in the overall score."), Range(0, 1e9)]
    public double Weight { get; init; } = 1;
}
