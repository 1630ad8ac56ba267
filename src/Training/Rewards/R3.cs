using System.Text.RegularExpressions;

namespace TrainingService.Training.Rewards;

/// <summary>Whether a query has one right answer.</summary>
public enum QueryType
{
    /// <summary>Many answers are good: creative writing, advice, brainstorming.</summary>
    Open,

    /// <summary>A fact or a task with a reference answer: the answer should say what the reference says.</summary>
    Constrained,
}

/// <summary>Regularized relevance reward: what an answer is worth without any preference data.</summary>
/// <remarks>
/// Kim et al. 2024, arXiv:2402.03469, section 3: how relevant an answer is to its query (or to a reference), times an incentive to say more, times a
/// penalty for repeating oneself. The numbers are those of the authors' program.
/// </remarks>
public static partial class R3
{
    /// <summary>The relevance that counts as full in a constrained query, with the authors' retriever (Contriever); refit it with <see cref="FitRange"/>.</summary>
    public const double ContrieverRange = 3.5;

    /// <summary>The reward of full relevance in a constrained query: what the length incentive would be for 512 words.</summary>
    public const double ConstrainedScale = 5.12;

    private const double WordsPerUnit = 100;

    /// <summary>Words, and runs of punctuation.</summary>
    public static IReadOnlyList<string> Words(string text) => [.. WordOrPunctuation().Matches(text).Select(match => match.Value)];

    /// <summary>What an answer is judged by: up to where it begins to speak for somebody else, or to trail off.</summary>
    /// <param name="rolePrefixes">Texts such as <c>Human:</c> after which somebody else speaks.</param>
    public static string Cut(string response, IReadOnlyList<string>? rolePrefixes = null)
    {
        var text = response.Trim('\n', ' ');
        var end = (rolePrefixes ?? ["Human:", "Assistant:", "User:"]).Concat(["\n\n\n\n", "\n\n--", "\n\n____"])
            .Select(mark => text.IndexOf(mark, StringComparison.Ordinal)).Where(at => at >= 0).DefaultIfEmpty(text.Length).Min();
        return text[..end].Trim('\n', ' ');
    }

    /// <summary>LI: words of the answer in hundreds.</summary>
    public static double LengthIncentive(string response) => Words(response).Count / WordsPerUnit;

    /// <summary>RP: share of the trigrams of words that are different; 1 when there are none.</summary>
    public static double RepetitionPenalty(string response)
    {
        var words = Words(response);
        var trigrams = Enumerable.Range(0, Math.Max(0, words.Count - 2)).Select(at => (words[at], words[at + 1], words[at + 2])).ToList();
        return trigrams.Count == 0 ? 1 : trigrams.Distinct().Count() / (double)trigrams.Count;
    }

    /// <summary>s·LI·RP, for a query that many answers fit.</summary>
    /// <param name="relevance">Dot product of the embeddings of query and answer.</param>
    /// <param name="response">As <see cref="Cut"/> leaves it.</param>
    public static double Open(double relevance, string response) => relevance * LengthIncentive(response) * RepetitionPenalty(response);

    /// <summary>F(s)·RP, for a query with a reference answer; F maps [0, range] to [0, <see cref="ConstrainedScale"/>] in a straight line, and goes on.</summary>
    /// <param name="relevance">Dot product of the embeddings of reference and answer.</param>
    /// <inheritdoc cref="Open"/>
    public static double Constrained(double relevance, string response, double range = ContrieverRange) =>
        relevance / range * ConstrainedScale * RepetitionPenalty(response);

    /// <summary>The relevance that counts as full for an encoder: a high percentile of what good answers to one query have to each other.</summary>
    /// <remarks>Raw dot products have the scale of their encoder, so the authors' 3.5 fits theirs alone.</remarks>
    /// <param name="relevances">s(y, y′) of references of the same query, or of each reference with itself where there is one a query.</param>
    /// <exception cref="ArgumentException">There are none, or the percentile is not above zero.</exception>
    public static double FitRange(IEnumerable<double> relevances, double percentile = 0.95)
    {
        var sorted = relevances.Order().ToArray();
        var range = sorted.Length == 0 ? 0 : sorted[Math.Max(0, (int)Math.Ceiling(percentile * sorted.Length) - 1)];
        return range > 0 ? range : throw new ArgumentException("The range must be above zero.", nameof(relevances));
    }

    [GeneratedRegex(@"\w+|[^\w\s]+", RegexOptions.CultureInvariant)]
    private static partial Regex WordOrPunctuation();
}
