using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace TrainingService.Training.Rewards;

/// <summary>Which pairs of a prompt's candidates become rows.</summary>
public enum CandidatePairs
{
    /// <summary>The best with the worst.</summary>
    Extremes,

    /// <summary>Every two whose rewards differ.</summary>
    All,
}

/// <summary>A prompt with candidate answers.</summary>
/// <param name="Candidates">At least two.</param>
/// <param name="Reference">A good answer; a prompt with one is constrained unless <paramref name="Type"/> says otherwise.</param>
public sealed record CandidateRow(string Prompt, IReadOnlyList<string> Candidates, string? Reference = null, QueryType? Type = null)
{
    internal QueryType Kind => Type ?? (Reference is null ? QueryType.Open : QueryType.Constrained);
}

/// <summary>A row that the objectives <c>reward</c> and <c>dpo</c> read.</summary>
/// <param name="ChosenReward">By R³, for people: no layout reads it.</param>
public sealed record LabelledPair(string Prompt, string Chosen, string Rejected, double ChosenReward, double RejectedReward);

/// <summary>Turns prompts and candidate answers into preference pairs by R³, without any preference data.</summary>
/// <param name="embed">Decides how relevant texts are to each other.</param>
/// <param name="range">See <see cref="R3.Constrained"/>; null: fitted to the references of the rows that are labelled.</param>
public sealed class PreferenceLabeller(EmbedTexts embed, double? range = null)
{
    private const long LongestLine = 16 << 20;

    private static readonly JsonSerializerOptions Line = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
    };

    /// <summary>Reward of every candidate of each row.</summary>
    public IReadOnlyList<double[]> Score(IReadOnlyList<CandidateRow> rows)
    {
        var answers = rows.Select(row => row.Candidates.Select(candidate => R3.Cut(candidate)).ToArray()).ToList();
        var anchors = embed([.. rows.Select(row => row.Kind == QueryType.Constrained ? R3.Cut(row.Reference!) : row.Prompt.Trim())]);

        // An answer of which nothing is left is worth nothing; it has no embedding.
        var texts = answers.SelectMany(cut => cut).Where(text => text.Length > 0).Distinct(StringComparer.Ordinal).ToList();
        var embeddings = texts.Zip(embed(texts)).ToDictionary(pair => pair.First, pair => pair.Second, StringComparer.Ordinal);
        var constrained = rows.Index().Where(row => row.Item.Kind == QueryType.Constrained).Select(row => anchors[row.Index]).ToList();
        var full = range ?? (constrained.Count == 0 ? R3.ContrieverRange : Fit(constrained));
        return
        [
            .. rows.Select((row, index) => Array.ConvertAll(answers[index], answer => answer.Length == 0 ? 0 : Reward(row.Kind, anchors[index], answer))),
        ];

        double Reward(QueryType kind, float[] anchor, string answer)
        {
            var relevance = TextEmbeddings.Relevance(anchor, embeddings[answer]);
            return kind == QueryType.Open ? R3.Open(relevance, answer) : R3.Constrained(relevance, answer, full);
        }
    }

    /// <summary>Pairs of candidates whose rewards differ, the better one chosen.</summary>
    public IEnumerable<LabelledPair> Label(IReadOnlyList<CandidateRow> rows, CandidatePairs pairs)
    {
        foreach (var (row, rewards) in rows.Zip(Score(rows)))
        {
            // Equal answers stay in the order of the file, so that the result is the same everywhere.
            var ranked = Enumerable.Range(0, rewards.Length).OrderByDescending(index => rewards[index]).ToList();
            var chosen = pairs == CandidatePairs.Extremes
                ? [(ranked[0], ranked[^1])]
                : ranked.SelectMany((better, rank) => ranked.Skip(rank + 1).Select(worse => (better, worse)));
            foreach (var (better, worse) in chosen.Where(pair => rewards[pair.Item1] > rewards[pair.Item2]))
            {
                yield return new(row.Prompt, row.Candidates[better], row.Candidates[worse], rewards[better], rewards[worse]);
            }
        }
    }

    /// <summary>Reads rows of <c>prompt</c>, <c>candidates</c>, and optionally <c>reference</c> and <c>type</c> (open, constrained).</summary>
    /// <exception cref="TrainingException">A line is not such a row.</exception>
    public static IReadOnlyList<CandidateRow> Read(string path)
    {
        var rows = new List<CandidateRow>();
        foreach (var (index, line) in File.ReadLines(path).Index())
        {
            if (string.IsNullOrWhiteSpace(line))
            {
                continue;
            }

            var place = $"{Path.GetFileName(path)}:{index + 1}";
            try
            {
                var row = line.Length > LongestLine ? null : JsonSerializer.Deserialize<CandidateRow>(line, Line);
                rows.Add(Checked(row, place));
            }
            catch (Exception malformed) when (malformed is JsonException or InvalidOperationException)
            {
                throw TrainingException.InvalidData($"The row is not a JSON object with prompt (text) and candidates (texts): {malformed.Message}", place, malformed);
            }
        }

        return rows;
    }

    /// <summary>A row as one line of JSON.</summary>
    public static string Write<T>(T row) => JsonSerializer.Serialize(row, Line);

    private static CandidateRow Checked(CandidateRow? row, string place)
    {
        if (row is not { Prompt: not null, Candidates: not null } || row.Candidates.Any(candidate => candidate is null))
        {
            throw TrainingException.InvalidData("A row needs prompt (text) and candidates (a list of texts).", place);
        }

        if (row.Candidates.Count < 2)
        {
            throw TrainingException.InvalidData($"The row has {row.Candidates.Count} candidates; at least two are needed to prefer one.", place);
        }

        if (string.IsNullOrWhiteSpace(row.Prompt))
        {
            throw TrainingException.InvalidData("The prompt is empty.", place);
        }

        return row.Kind == QueryType.Constrained && R3.Cut(row.Reference ?? "").Length == 0
            ? throw TrainingException.InvalidData("A constrained row needs a reference, a good answer to compare with.", place)
            : row;
    }

    /// <summary>Rows have one reference each, so each is compared with itself: the most that an answer of its kind can reach.</summary>
    private static double Fit(IReadOnlyList<float[]> references)
    {
        var most = references.Select(reference => TextEmbeddings.Relevance(reference, reference)).ToList();
        return most.Max() > 0
            ? R3.FitRange(most)
            : throw TrainingException.InvalidData("No reference has anything in common with itself in this embedding: its words are in every text.", "reference");
    }
}
