using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data;

/// <summary>Joins what was read of the files: sets validation rows aside, counts, and says what the owner should know.</summary>
internal static class ReportBuilder
{
    private const int FewRows = 10;

    // A stream of its own, so that setting rows aside does not follow the order of any epoch.
    private const int SplitStream = -1;

    public static PreparedData Build(
        DataConfig config, SplitReader train, SplitReader? validation, Tokenizer? tokenizer, bool needsExamples, int seed)
    {
        var kept = train.Outcomes;
        var held = validation?.Outcomes;
        if (validation is null && config.ValidationSplit > 0)
        {
            (kept, held) = SetAside(train.Outcomes, config.ValidationSplit, seed);
        }

        var errors = train.Errors.Concat(validation?.Errors ?? []).ToList();
        var errorCount = train.ErrorCount + (validation?.ErrorCount ?? 0);
        foreach (var reader in new[] { train, validation })
        {
            if (Missing(reader, tokenizer, needsExamples) is { } missing)
            {
                errors.Add(missing);
                errorCount++;
            }
        }

        var trainRows = train.Rows - (validation is null && held is not null ? held.Count : 0);
        var known = kept.Select(outcome => outcome.Fingerprint).ToHashSet();
        var report = new DataReport
        {
            Train = Count(train, kept, trainRows, withFaults: true),
            Validation = held is null ? null : Count(validation ?? train, held, validation?.Rows ?? held.Count, validation is not null),
            OverlappingRows = held?.Count(outcome => known.Contains(outcome.Fingerprint)) ?? 0,
            ErrorCount = errorCount,
            IsComplete = train.IsComplete && validation?.IsComplete != false,
            Errors = [.. errors.Take(DataReport.MaxErrors)],
            Preview = [.. kept.SelectMany(outcome => outcome.Examples).Take(DataReport.MaxPreviews).Select(example => Preview(example, tokenizer))],
        };
        report = report with { Warnings = [.. Warnings(report, config, train, validation, tokenizer)] };
        return new(Examples(kept), Examples(held ?? []), report);
    }

    /// <summary>Divides by row, so that the parts of one long text stay on one side. Both sides stay in file order and neither is empty,
    /// unless there is but one row.</summary>
    private static (List<RowOutcome> Kept, List<RowOutcome> Held) SetAside(List<RowOutcome> outcomes, double share, int seed)
    {
        var usable = outcomes.Count(outcome => !outcome.Dropped);
        var count = usable < 2 ? 0 : Math.Clamp((int)Math.Round(share * usable, MidpointRounding.AwayFromZero), 1, usable - 1);
        var held = SplitMix64.For(seed, SplitStream).Permutation(usable).Take(count).ToHashSet();
        var place = 0;
        var sides = outcomes.ToLookup(outcome => !outcome.Dropped && held.Contains(place++));
        return ([.. sides[false]], [.. sides[true]]);
    }

    private static RowError? Missing(SplitReader? reader, Tokenizer? tokenizer, bool needsExamples)
    {
        if (reader is null || !needsExamples || reader.ErrorCount > 0)
        {
            return null;
        }

        if (tokenizer is null && reader.Layout is { Format: not DataFormat.Tokenized } layout)
        {
            return new(
                reader.Split, null, null, null, "no_tokenizer",
                $"the rows are text ({layout.Name}) but the model folder has no tokenizer; add its files, or use rows with input_ids");
        }

        return reader.Split == "validation" && reader.Outcomes.TrueForAll(outcome => outcome.Dropped)
            ? new(reader.Split, null, null, null, "no_usable_row", "the file has no usable row; leave data.validation out, or give it rows")
            : null;
    }

    private static SplitReport Count(SplitReader reader, List<RowOutcome> outcomes, int rows, bool withFaults)
    {
        var examples = Examples(outcomes);
        return new()
        {
            Container = reader.Container,
            Layout = reader.Layout?.Name,
            IgnoredColumns = reader.IgnoredColumns,
            Rows = rows,
            UsedRows = outcomes.Count(outcome => !outcome.Dropped),
            Examples = examples.Count,
            Tokens = TokenStatistics.Of(examples.Select(example => example.InputIds.Length)),
            TrainableTokens = examples.Sum(example => (long)example.TrainableTokens),
            TruncatedRows = outcomes.Count(outcome => outcome.Truncated),
            ChunkedRows = outcomes.Count(outcome => outcome.Examples.Count > 1),
            RowsWithoutTrainableTokens = outcomes.Count(outcome => outcome.Dropped) + (withFaults ? reader.UntrainableRows : 0),
            Duplicates = outcomes.Count - outcomes.DistinctBy(outcome => outcome.Fingerprint).Count(),
            EmptyAssistantTurns = outcomes.Sum(outcome => outcome.EmptyAssistantTurns),
            RoleOrderBreaks = outcomes.Count(outcome => outcome.BreaksRoleOrder),
            UnknownRoles = withFaults ? reader.UnknownRoles : 0,
        };
    }

    private static IEnumerable<string> Warnings(
        DataReport report, DataConfig config, SplitReader train, SplitReader? validation, Tokenizer? tokenizer)
    {
        var outcomes = train.Outcomes.Concat(validation?.Outcomes ?? []).ToList();
        var truncated = outcomes.Count(outcome => outcome.Truncated);
        var dropped = outcomes.Count(outcome => outcome.Dropped);
        var chunked = outcomes.Count(outcome => outcome.Examples.Count > 1);
        var duplicates = report.Train.Duplicates + (report.Validation?.Duplicates ?? 0);
        var emptyTurns = outcomes.Sum(outcome => outcome.EmptyAssistantTurns);
        var breaks = outcomes.Count(outcome => outcome.BreaksRoleOrder);
        var shifted = outcomes.Count(outcome => outcome.ShiftsLabels);
        var endless = outcomes.Count(outcome => outcome.LacksEndOfText);
        var others = train.OtherLayouts;

        return new (bool Holds, string Text)[]
        {
            (others.Count > 0, $"The columns also fit {string.Join(", ", others)}; they were read as {train.Layout?.Name}. "
                + "Set data.format if that is not meant."),
            (tokenizer is { ChatTemplate: null } && outcomes.Exists(outcome => outcome.IsConversation),
                "The model has no chat template: conversations are written as lines \"User: …\" and \"Assistant: …\"; "
                + "prompt it in the same way."),
            (report.Train.UsedRows is > 0 and < FewRows, $"Only {report.Train.UsedRows} rows to train on; expect the model to learn them by heart."),
            (truncated > 0, $"{truncated} rows are longer than max_length {config.MaxLength} and lost their end."),
            (dropped > 0, $"{dropped} of them had nothing to train on before that point and are left out."),
            (chunked > 0, $"{chunked} rows are longer than max_length {config.MaxLength} and became several sequences."),
            (duplicates > 0, $"{duplicates} rows repeat an earlier row of their file."),
            (report.OverlappingRows > 0, $"{report.OverlappingRows} validation rows are also training rows; the validation loss flatters."),
            (emptyTurns > 0, $"{emptyTurns} assistant turns are empty."),
            (breaks > 0, $"{breaks} conversations do not alternate between user and assistant, or have a system turn that is not the first."),
            (shifted > 0, $"{shifted} rows have labels that differ from input_ids. A label stands at the place of its own token; "
                + "if yours were shifted already, shift them back."),
            (endless > 0, $"{endless} conversations never train the end-of-text token; the model may not learn to stop."),
        }.Where(warning => warning.Holds).Select(warning => warning.Text);
    }

    private static RowPreview Preview(Example example, Tokenizer? tokenizer)
    {
        var ids = example.InputIds.Take(RowPreview.MaxTokens).ToArray();
        var mask = example.Labels.Take(RowPreview.MaxTokens).Select((label, i) => i > 0 && label != Example.Ignored ? 1 : 0).ToArray();
        return new(example.Row, tokenizer?.Decode(ids, skipSpecialTokens: false), ids, mask);
    }

    private static List<Example> Examples(IEnumerable<RowOutcome> outcomes) => [.. outcomes.SelectMany(outcome => outcome.Examples)];
}
