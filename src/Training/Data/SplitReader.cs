using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Data.Tokenizing;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data;

/// <summary>What became of one row without errors.</summary>
/// <param name="Fingerprint">Of the columns that the layout reads.</param>
/// <param name="Examples">Empty when truncation left nothing to train on, and when there is no tokenizer.</param>
internal sealed record RowOutcome(int Row, UInt128 Fingerprint, IReadOnlyList<Example> Examples)
{
    public bool Truncated { get; init; }

    public bool Dropped { get; init; }

    public int EmptyAssistantTurns { get; init; }

    public bool BreaksRoleOrder { get; init; }

    public bool ShiftsLabels { get; init; }

    public bool IsConversation { get; init; }

    public bool LacksEndOfText { get; init; }
}

/// <summary>Reads one file: rows in, token sequences and faults out.</summary>
/// <param name="tokenizer">Null: only the structure of text rows is checked.</param>
/// <param name="vocabulary">Number of ids that the model knows; null: ids are not checked against it.</param>
/// <param name="limits">Null: the file is read to its end.</param>
internal sealed class SplitReader(
    string split, DataConfig config, bool isPretraining, Tokenizer? tokenizer, int? vocabulary, Action<DataProgress>? progress,
    ReadingLimits? limits = null)
{
    private const int RowsBeforeLayout = 20;
    private const int RowsPerProgress = 1000;

    private readonly SampleEncoder? _encoder = tokenizer is null ? null : new(tokenizer, isPretraining || config.TrainOnPrompt);
    private readonly List<RowError> _errors = [];
    private HashSet<string> _columns = [];
    private bool _canRead = true;   // false once the columns turned out to fit no layout

    public string Split => split;

    public string? Container { get; private set; }

    public RowLayout? Layout { get; private set; }

    public List<RowOutcome> Outcomes { get; } = [];

    public int Rows { get; private set; }

    /// <summary>Rows in error, and faults of the file as a whole.</summary>
    public int ErrorCount { get; private set; }

    public int UnknownRoles { get; private set; }

    /// <summary>Rows in error because no token of theirs carries loss.</summary>
    public int UntrainableRows { get; private set; }

    /// <summary>False when the limits ended the reading.</summary>
    public bool IsComplete { get; private set; } = true;

    public IReadOnlyList<RowError> Errors => _errors;

    public IReadOnlyList<string> IgnoredColumns => Layout is null ? [] : [.. _columns.Where(column => !Layout.Reads(column)).Order()];

    public IReadOnlyList<string> OtherLayouts => Layout is null || config.Format != DataFormat.Auto
        ? []
        : [.. RowLayout.All.Where(layout => layout != Layout && layout.Fits(_columns)).Select(layout => layout.Name)];

    public void Read(string path, CancellationToken cancellationToken)
    {
        using var rows = RowFile.Read(path, $"data.{split}", container => Container = container, limits, cancellationToken).GetEnumerator();
        var first = new List<Row>();
        var bytes = 0L;
        while (first.Count(row => row.Columns is not null) < RowsBeforeLayout && first.Count < 50 * RowsBeforeLayout && bytes < RowBytes.Limit
            && rows.MoveNext())
        {
            first.Add(rows.Current);
            bytes += rows.Current.Bytes;
        }

        Decide(first);
        foreach (var row in first)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Take(row);
        }

        while (rows.MoveNext())
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (limits is not null && (Rows >= limits.Rows || limits.Over.IsCancellationRequested))
            {
                IsComplete = false;
                break;
            }

            Take(rows.Current);
            if (Rows % RowsPerProgress == 0)
            {
                progress?.Invoke(new(split, Rows));
            }
        }

        progress?.Invoke(new(split, Rows));
    }

    /// <summary>Decides the layout by the columns of the first rows that have any; reports an error when they fit none.</summary>
    private void Decide(IReadOnlyList<Row> first)
    {
        var original = first.SelectMany(row => row.Columns?.Keys ?? []).ToHashSet();
        if (original.Count == 0)
        {
            return;   // none of them can be read, which is said row by row
        }

        try
        {
            if (config.Columns.Keys.FirstOrDefault(name => !original.Contains(name)) is { } absent)
            {
                var seen = string.Join(", ", original.Take(12).Select(column => $"'{column}'"));
                var swapped = original.Contains(config.Columns[absent]) ? "; the file's own name comes first, then the new one" : "";
                throw new RowException("unknown_column", $"data.columns renames '{absent}', but the file's columns are {seen}{swapped}");
            }

            _columns = [.. original.Select(name => config.Columns.GetValueOrDefault(name, name))];
            Layout = RowLayout.Of(_columns, config.Format);
        }
        catch (RowException broken)
        {
            Report(broken.Fault, row: null);
            _canRead = false;
        }
    }

    private void Take(Row row)
    {
        if (row.Fault?.Code == ByteSource.LookIsOver)
        {
            IsComplete = false;
            return;
        }

        if (row.Number is not null)
        {
            Rows++;
        }

        if (row.Fault is { } fault)
        {
            Report(fault, row.Number);
        }
        else if (_canRead && row is { Number: { } number, Columns: { } columns })
        {
            if (Layout is null)
            {
                Decide([row]);
            }

            try
            {
                if (Layout is null)
                {
                    return;
                }

                Outcomes.Add(Convert(number, Renamed(columns)));
            }
            catch (RowException broken)
            {
                Report(broken.Fault, number);
            }
            catch (Exception error) when (HostileJson.IsMalformed(error))
            {
                Report(new("invalid_text", "the row holds a \\u escape that is half of a character; write its text as valid Unicode"), number);
            }
        }
    }

    private RowOutcome Convert(int number, IReadOnlyDictionary<string, JsonElement> columns)
    {
        var sample = Layout!.Read(new Fields(columns));
        CheckTrainable(sample);
        var outcome = new RowOutcome(number, Fingerprint(columns), [])
        {
            IsConversation = sample is Conversation,
            EmptyAssistantTurns = (sample as Conversation)?.EmptyAssistantTurns ?? 0,
            BreaksRoleOrder = (sample as Conversation)?.BreaksRoleOrder ?? false,
        };
        if (sample is TokenRow tokens)
        {
            CheckVocabulary(tokens);
            var shifts = tokens.Ids.Zip(tokens.Labels).Any(pair => pair.Second != Example.Ignored && pair.Second != pair.First);
            return Cut([.. tokens.Ids], [.. tokens.Labels], outcome with { ShiftsLabels = shifts });
        }

        if (_encoder is null)
        {
            return outcome;
        }

        var (ids, labels) = _encoder.Encode(sample);
        var lacksEnd = sample is Conversation && tokenizer!.EosId is { } end && !labels.Contains(end);
        return Cut(ids, labels, outcome with { LacksEndOfText = lacksEnd });
    }

    /// <summary>Sequences of at most max_length tokens.</summary>
    private RowOutcome Cut(List<int> ids, List<int> labels, RowOutcome outcome)
    {
        if (Of(ids, labels, outcome.Row).TrainableTokens == 0)
        {
            throw NothingToTrainOn();
        }

        if (ids.Count <= config.MaxLength)
        {
            return outcome with { Examples = [Of(ids, labels, outcome.Row)] };
        }

        if (isPretraining)
        {
            // Pretraining wants all of a long text. The first token of each part is not predicted, as at the start of any text.
            var parts = ids.Zip(labels).Chunk(config.MaxLength)
                .Select(part => Of(part.Select(pair => pair.First), part.Select(pair => pair.Second), outcome.Row));
            return outcome with { Examples = [.. parts.Where(part => part.TrainableTokens > 0)] };
        }

        var cut = Of(ids.Take(config.MaxLength), labels.Take(config.MaxLength), outcome.Row);
        return cut.TrainableTokens > 0
            ? outcome with { Examples = [cut], Truncated = true }
            : outcome with { Truncated = true, Dropped = true };
    }

    private static Example Of(IEnumerable<int> ids, IEnumerable<int> labels, int row) => new([.. ids], [.. labels], row);

    /// <summary>What can be said of a row's text without a tokenizer. An empty answer would teach the model to say nothing.</summary>
    private void CheckTrainable(Sample sample)
    {
        var everything = isPretraining || config.TrainOnPrompt;
        switch (sample)
        {
            case PlainText { Text: "" }:
                throw NothingToTrainOn("text");
            case PromptAndCompletion pair when pair.Completion.Length == 0 && (!everything || pair.Prompt.Length == 0):
                throw NothingToTrainOn("completion");
            case InstructionTask { Output: "" } when !everything:
                throw NothingToTrainOn(Layout!.Required[^1]);
            case Conversation conversation when !everything && !conversation.Turns.Any(turn => turn.Trained && !turn.IsEmpty):
                throw NothingToTrainOn(Layout!.Required[^1]);
        }
    }

    private static RowException NothingToTrainOn(string? field = null) => new(
        "no_trainable_tokens", "the row has no trainable token: its answer is empty, masked, or not there; complete the row or remove it", field);

    private void CheckVocabulary(TokenRow row)
    {
        if (vocabulary is not { } size)
        {
            return;
        }

        Check(row.Ids, "input_ids", ignored: 0);
        Check(row.Labels, "labels", Example.Ignored);

        void Check(int[] values, string name, int ignored)
        {
            var at = Array.FindIndex(values, value => value != ignored && (value < 0 || value >= size));
            if (at >= 0)
            {
                throw new RowException(
                    "token_out_of_vocabulary", $"is {values[at]}, but the model's vocabulary has ids 0 to {size - 1}", $"{name}[{at}]");
            }
        }
    }

    private IReadOnlyDictionary<string, JsonElement> Renamed(IReadOnlyDictionary<string, JsonElement> columns)
    {
        if (config.Columns.Count == 0)
        {
            return columns;
        }

        // A renamed column wins over one that bears the name already.
        var renamed = columns.Where(column => !config.Columns.ContainsKey(column.Key)).ToDictionary();
        foreach (var (name, target) in config.Columns)
        {
            if (columns.TryGetValue(name, out var value))
            {
                renamed[target] = value;
            }
        }

        return renamed;
    }

    private UInt128 Fingerprint(IReadOnlyDictionary<string, JsonElement> columns)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var name in Layout!.Required.Concat(Layout.Optional))
        {
            if (columns.TryGetValue(name, out var value))
            {
                hash.AppendData(Encoding.UTF8.GetBytes($"{name}\0{value}\0"));
            }
        }

        return BitConverter.ToUInt128(hash.GetHashAndReset());
    }

    private void Report(RowFault fault, int? row)
    {
        ErrorCount++;
        UnknownRoles += fault.Code == "unknown_role" ? 1 : 0;
        UntrainableRows += fault.Code == "no_trainable_tokens" ? 1 : 0;
        if (row is null)
        {
            _errors.Insert(0, fault.In(split, row));   // the file as a whole: often the cause of what is wrong in its rows
        }
        else if (_errors.Count < DataReport.MaxErrors)
        {
            _errors.Add(fault.In(split, row));
        }
    }
}
