using TrainingService.Training.Data.Layouts;

namespace TrainingService.Training.Data;

/// <summary>What the texts of a row of answers say of it beside other rows.</summary>
internal static class PairTexts
{
    private const int PhraseWords = 3;
    private const int LongestPhrase = 60;

    /// <summary>
    /// Of prompt and answers, so that rows are equal that differ in case, punctuation and white space only. The lowest bit says in which order the two
    /// answers of a pair are: without it, both orders have the same number.
    /// </summary>
    public static ulong Fingerprint(Sample row)
    {
        var all = Judged(row).Select(pair =>
        {
            var texts = pair.Answers.Select(Split).ToList();
            var answers = texts.ConvertAll(text => Hash(text.Answer));
            var both = answers.Aggregate(0UL, (sum, answer) => sum + Mix(answer));
            var chosenFirst = !pair.IsTie && answers is [var chosen, var rejected] && chosen < rejected;
            return (Mix(Hash(texts[0].Prompt) + Mix(both)) & ~1UL) | (chosenFirst ? 1UL : 0);
        }).ToList();
        return all is [var only] ? only : all.Aggregate(0UL, (sum, pair) => Mix(sum + pair)) & ~1UL;   // a ranking has no order of two
    }

    /// <summary>How the answers of a row's pairs begin and end: with one word, and with several.</summary>
    public static IEnumerable<(Phrase Phrase, bool Chosen)> Phrases(Sample row) =>
        from pair in Judged(row)
        from answer in pair.Answers.Index()
        from phrase in Phrases(Split(answer.Item).Answer)
        select (phrase, answer.Index == 0);

    private static IEnumerable<JudgedAnswers> Judged(Sample row) => row is Judgements many ? many.All : [(JudgedAnswers)row];

    private static IEnumerable<Phrase> Phrases(string answer)
    {
        var words = answer.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        foreach (var count in words.Length >= PhraseWords ? [1, PhraseWords] : words.Length > 0 ? (int[])[1] : [])
        {
            if (string.Join(' ', words[..count]) is { Length: <= LongestPhrase } first)
            {
                yield return new(PhrasePlace.Opens, first);
            }

            if (string.Join(' ', words[^count..]) is { Length: <= LongestPhrase } last)
            {
                yield return new(PhrasePlace.Ends, last);
            }
        }
    }

    private static (string Prompt, string Answer) Split(Sample sample) => sample switch
    {
        PromptAndCompletion pair => (pair.Prompt, pair.Completion),
        InstructionTask task => (
            string.Join('\n', [task.System, .. task.History.SelectMany(turn => new[] { turn.User, turn.Assistant }), task.Instruction, task.Input]), task.Output),
        Conversation conversation => (
            string.Join('\n', conversation.Turns.TakeWhile(turn => !turn.Trained).Select(turn => turn.Message.Content)),
            string.Join('\n', conversation.Turns.SkipWhile(turn => !turn.Trained).Select(turn => turn.Message.Content))),
        PlainText text => ("", text.Text),
        CritiquedAnswer critiqued => Split(critiqued.Answer),
        _ => throw new ArgumentOutOfRangeException(nameof(sample), sample.GetType().Name, "No text in this sample."),
    };

    /// <summary>FNV-1a of the letters and digits in lower case; of all characters where there are none of these.</summary>
    private static ulong Hash(string text)
    {
        var (hash, any) = (14_695_981_039_346_656_037UL, false);
        foreach (var letter in text)
        {
            if (char.IsLetterOrDigit(letter))
            {
                hash = (hash ^ char.ToLowerInvariant(letter)) * 1_099_511_628_211UL;
                any = true;
            }
        }

        return any || text.Length == 0 ? hash : text.Aggregate(hash, (sum, letter) => (sum ^ letter) * 1_099_511_628_211UL);
    }

    /// <summary>SplitMix64's mixing of bits.</summary>
    private static ulong Mix(ulong bits)
    {
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
        return bits ^ (bits >> 31);
    }
}

/// <summary>Where in an answer a phrase stands.</summary>
public enum PhrasePlace
{
    Opens,
    Ends,
}

/// <summary>Words at one end of an answer.</summary>
internal readonly record struct Phrase(PhrasePlace Place, string Text);

/// <summary>How often phrases stand in chosen and in rejected answers, in bounded memory.</summary>
/// <remarks>
/// Lossy counting (Manku and Motwani 2002): after every so many phrases those that are too rare to matter are forgotten. A count is too low by at
/// most one for every <see cref="Stretch"/> phrases.
/// </remarks>
internal sealed class PhraseCounts
{
    /// <summary>A phrase that opens this share of the answers of one kind is seen by any reader; models see it sooner.</summary>
    private const double Frequent = 0.2;

    /// <summary>In the answers of the other kind it is at least so many times rarer.</summary>
    private const double Lopsided = 4;

    private const int FewPairs = 10;
    private const int Stretch = 4096;
    private const int MostPatterns = 5;

    private readonly Dictionary<Phrase, (int Chosen, int Rejected, int Missed)> _counts = [];
    private long _phrases;

    /// <summary>Phrases in memory.</summary>
    public int Known => _counts.Count;

    public void Add(Phrase phrase, bool chosen)
    {
        (int Chosen, int Rejected, int Missed) known = _counts.GetValueOrDefault(phrase, (0, 0, (int)(_phrases / Stretch)));
        _counts[phrase] = chosen ? known with { Chosen = known.Chosen + 1 } : known with { Rejected = known.Rejected + 1 };
        if (++_phrases % Stretch == 0)
        {
            foreach (var (rare, count) in _counts.Where(count => count.Value.Chosen + count.Value.Rejected + count.Value.Missed <= _phrases / Stretch).ToList())
            {
                _counts.Remove(rare);
            }
        }
    }

    /// <summary>Phrases that many answers of one kind have and few of the other, the most telling first.</summary>
    /// <param name="pairs">Pairs whose phrases were added.</param>
    public IReadOnlyList<PhrasePattern> Patterns(int pairs)
    {
        var found = _counts
            .Where(phrase => Math.Max(phrase.Value.Chosen, phrase.Value.Rejected) is var more && Math.Min(phrase.Value.Chosen, phrase.Value.Rejected) is var fewer
                && pairs >= FewPairs && more >= Frequent * pairs && more >= Lopsided * fewer)
            .Select(phrase => new PhrasePattern(
                phrase.Key.Place, phrase.Key.Text, Math.Round(phrase.Value.Chosen / (double)pairs, 4), Math.Round(phrase.Value.Rejected / (double)pairs, 4)))
            .OrderByDescending(pattern => Math.Abs(pattern.ChosenShare - pattern.RejectedShare))
            .ThenByDescending(pattern => pattern.Text.Length).ThenBy(pattern => pattern.Text, StringComparer.Ordinal).ThenBy(pattern => pattern.Place)
            .ToList();

        // Of a word and the words that nearly always stand with it, the longer phrase says more.
        var kept = found.Where(pattern => !found.Exists(longer => longer.Place == pattern.Place && longer.Text.Length > pattern.Text.Length
            && (pattern.Place == PhrasePlace.Opens
                ? longer.Text.StartsWith(pattern.Text + " ", StringComparison.Ordinal)
                : longer.Text.EndsWith(" " + pattern.Text, StringComparison.Ordinal))
            && Math.Max(longer.ChosenShare, longer.RejectedShare) >= 0.8 * Math.Max(pattern.ChosenShare, pattern.RejectedShare))).Take(MostPatterns).ToList();
        return kept.Count == 0 ? [] : kept;
    }
}
