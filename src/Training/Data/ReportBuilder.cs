using System.Collections;
using TrainingService.Training.Data.Stored;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data;

/// <summary>Joins what was read of the files: sets validation rows aside, counts, and says what the owner should know.</summary>
internal static class ReportBuilder
{
    private const int FewRows = 10;
    private const double LopsidedLengths = 0.65;

    // A stream of its own, so that setting rows aside does not follow the order of any epoch.
    private const int SplitStream = -1;

    public static PreparedData Build(
        DataConfig config, SplitData train, SplitData? validation, Tokenizer? tokenizer, bool needsExamples, int seed)
    {
        var aside = validation is null && config.ValidationSplit > 0 ? SetAside(train.Table, config.ValidationSplit, seed) : null;
        var kept = RowCounts.Of(train.Table, aside, side: false);
        var held = validation is not null ? RowCounts.Of(validation.Table) : aside is not null ? RowCounts.Of(train.Table, aside, side: true) : null;
        var errors = train.Errors.Concat(validation?.Errors ?? []).ToList();
        var errorCount = train.ErrorCount + (validation?.ErrorCount ?? 0);
        foreach (var (split, counts) in new[] { (train, kept), (validation, held) })
        {
            if (Missing(split, counts, tokenizer, needsExamples) is { } missing)
            {
                errors.Add(missing);
                errorCount++;
            }
        }

        var trainRows = train.Rows - (aside is not null ? held!.Rows : 0);
        var keptExamples = ExamplesOf(train, kept);
        var report = new DataReport
        {
            Train = Count(train, kept, trainRows, withFaults: true),
            Validation = held is null ? null : Count(validation ?? train, held, validation?.Rows ?? held.Rows, validation is not null),
            OverlappingRows = held?.Shared(kept) ?? 0,
            ErrorCount = errorCount,
            IsComplete = train.IsComplete && validation?.IsComplete != false,
            Errors = [.. errors.Take(DataReport.MaxErrors)],
            Preview = [.. (train.Tokens is null ? train.First : keptExamples.Take(DataReport.MaxPreviews)).Select(example => Preview(example, tokenizer))],
        };
        report = report with { Warnings = [.. Warnings(report, config, train, tokenizer, kept, held)] };
        return new(
            keptExamples, held is null ? new ChosenExamples([], []) : ExamplesOf(validation ?? train, held), report,
            $"{train.Tokens?.Sha256} {validation?.Tokens?.Sha256}")
        {
            Files = [.. new[] { train.Tokens, validation?.Tokens }.OfType<TokenFile>()],
        };
    }

    /// <summary>Divides by row, so that the parts of one long text stay on one side. Both sides stay in file order and neither is empty,
    /// unless there is but one row.</summary>
    /// <returns>Whether each row is held back.</returns>
    private static BitArray SetAside(RowTable rows, double share, int seed)
    {
        var usable = new Column<int>();
        for (var row = 0; row < rows.Rows; row++)
        {
            if (!rows.Row(row).Flags.HasFlag(RowFlags.Dropped))
            {
                usable.Add(row);
            }
        }

        var count = usable.Count < 2 ? 0 : Math.Clamp((int)Math.Round(share * usable.Count, MidpointRounding.AwayFromZero), 1, usable.Count - 1);
        var aside = new BitArray(rows.Rows);
        foreach (var place in SplitMix64.For(seed, SplitStream).Permutation(usable.Count).AsSpan(0, count))
        {
            aside[usable[place]] = true;
        }

        return aside;
    }

    private static RowError? Missing(SplitData? read, RowCounts? counts, Tokenizer? tokenizer, bool needsExamples)
    {
        if (read is null || !needsExamples || read.ErrorCount > 0)
        {
            return null;
        }

        if (tokenizer is null && read.Layout is { } layout && layout != "tokenized")
        {
            return new(
                read.Split, null, null, null, "no_tokenizer",
                $"the rows are text ({layout}) but the model folder has no tokenizer; add its files, or use rows with input_ids");
        }

        return read.Split == "validation" && counts!.Usable == 0
            ? new(read.Split, null, null, null, "no_usable_row", "the file has no usable row; leave data.validation out, or give it rows")
            : null;
    }

    private static SplitReport Count(SplitData read, RowCounts counts, int rows, bool withFaults) => new()
    {
        Container = read.Container,
        Layout = read.Layout,
        IgnoredColumns = read.IgnoredColumns,
        Rows = rows,
        UsedRows = counts.Usable,
        Examples = counts.Examples.Length,
        Tokens = counts.Tokens,
        TrainableTokens = counts.TrainableTokens,
        TruncatedRows = counts.Of(RowFlags.Truncated),
        ChunkedRows = counts.Chunked,
        RowsWithoutTrainableTokens = (read.IsJudged ? 0 : counts.Of(RowFlags.Dropped)) + (withFaults ? read.UntrainableRows : 0),
        Pairs = read.IsJudged
            ? new(
                counts.Of(RowFlags.ChosenLonger), counts.Of(RowFlags.ChosenShorter), counts.Of(RowFlags.SameAnswers), counts.Of(RowFlags.TooLong))
            {
                NearDuplicates = counts.NearDuplicates,
                Contradicting = counts.Contradicting,
                Patterns = withFaults ? read.Patterns : [],
            }
            : null,
        Duplicates = counts.Duplicates,
        EmptyAssistantTurns = counts.EmptyAssistantTurns,
        RoleOrderBreaks = counts.Of(RowFlags.BreaksRoleOrder),
        UnknownRoles = withFaults ? read.UnknownRoles : 0,
    };

    private static IEnumerable<string> Warnings(
        DataReport report, DataConfig config, SplitData train, Tokenizer? tokenizer, RowCounts kept, RowCounts? held)
    {
        int Both(Func<RowCounts, int> count) => count(kept) + (held is null ? 0 : count(held));

        var truncated = Both(side => side.Of(RowFlags.Truncated));
        var dropped = Both(side => side.Of(RowFlags.Dropped));
        var chunked = Both(side => side.Chunked);
        var duplicates = report.Train.Duplicates + (report.Validation?.Duplicates ?? 0);
        var emptyTurns = Both(side => side.EmptyAssistantTurns);
        var breaks = Both(side => side.Of(RowFlags.BreaksRoleOrder));
        var shifted = Both(side => side.Of(RowFlags.ShiftsLabels));
        var endless = Both(side => side.Of(RowFlags.LacksEndOfText));
        var others = train.OtherLayouts;
        var same = Both(side => side.Of(RowFlags.SameAnswers));
        var tooLong = Both(side => side.Of(RowFlags.TooLong));
        var (longer, shorter) = (kept.Of(RowFlags.ChosenLonger), kept.Of(RowFlags.ChosenShorter));
        var near = Both(side => side.NearDuplicates);
        var contradicting = Both(side => side.Contradicting);

        (bool Holds, string Text)[] all =
        [
            (others.Count > 0, $"The columns also fit {string.Join(", ", others)}; they were read as {train.Layout}. "
                + "Set data.format if that is not meant."),
            (tokenizer is { ChatTemplate: null } && Both(side => side.Of(RowFlags.IsConversation)) > 0,
                "The model has no chat template: conversations are written as lines \"User: …\" and \"Assistant: …\"; "
                + "prompt it in the same way."),
            (report.Train.UsedRows is > 0 and < FewRows, $"Only {report.Train.UsedRows} rows to train on; expect the model to learn them by heart."),
            (truncated > 0, $"{truncated} rows are longer than max_length {config.MaxLength} and lost their end."),
            (truncated > 0 && dropped > 0, $"{dropped} of them had nothing to train on before that point and are left out."),
            (chunked > 0, $"{chunked} rows are longer than max_length {config.MaxLength} and became several sequences."),
            (same > 0, $"{same} rows have two equal answers and are left out."),
            (tooLong > 0, $"{tooLong} rows have answers that are longer than max_length {config.MaxLength} with their prompt and are left out."),
            (longer + shorter >= FewRows && Math.Max(longer, shorter) > LopsidedLengths * (longer + shorter), FormattableString.Invariant(
                $"The {(longer > shorter ? "longer" : "shorter")} answer is the chosen one in {100.0 * Math.Max(longer, shorter) / (longer + shorter):F0} % of the pairs: ")
                + "a model may learn length in place of quality; see the report of its evaluation."),
            .. train.Patterns.Select(pattern => (true, Describe(pattern))),
            (near > 0, $"{near} rows repeat an earlier row of their file but for case, punctuation and white space."),
            (contradicting > 0, $"{contradicting} rows contradict each other: the same two answers to the same prompt are there in both orders."),
            (duplicates > 0, $"{duplicates} rows repeat an earlier row of their file."),
            (report.OverlappingRows > 0, $"{report.OverlappingRows} validation rows are also training rows; the validation loss flatters."),
            (emptyTurns > 0, $"{emptyTurns} assistant turns are empty."),
            (breaks > 0, $"{breaks} conversations do not alternate between user and assistant, or have a system turn that is not the first."),
            (shifted > 0, $"{shifted} rows have labels that differ from input_ids. A label stands at the place of its own token; "
                + "if yours were shifted already, shift them back."),
            (endless > 0, $"{endless} conversations never train the end-of-text token; the model may not learn to stop."),
        ];
        return all.Where(warning => warning.Holds).Select(warning => warning.Text);
    }

    private static string Describe(PhrasePattern pattern)
    {
        var place = pattern.Place == PhrasePlace.Opens ? "opens" : "ends";
        return FormattableString.Invariant(
            $"\"{SafeText.Escape(pattern.Text)}\" {place} {100 * pattern.ChosenShare:F0} % of the chosen answers and {100 * pattern.RejectedShare:F0} % of the rejected ones: ")
            + "a model may learn this phrase in place of quality.";
    }

    private static RowPreview Preview(Example example, Tokenizer? tokenizer)
    {
        var ids = example.InputIds.Take(RowPreview.MaxTokens).ToArray();
        var mask = example.Labels.Take(RowPreview.MaxTokens).Select((label, i) => i > 0 && label != Example.Ignored ? 1 : 0).ToArray();
        return new(example.Row, tokenizer?.Decode(ids, skipSpecialTokens: false), ids, mask);
    }

    private static IExamples ExamplesOf(SplitData read, RowCounts counts) => read.Tokens switch
    {
        null => new ChosenExamples([], []),
        { } all when all.Count == counts.Examples.Length => all,
        { } all => new ChosenExamples(all, counts.Examples),
    };
}
