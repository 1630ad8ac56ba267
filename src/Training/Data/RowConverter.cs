using System.Buffers;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Data.Stored;
using TrainingService.Training.Data.Tokenizing;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data;

/// <summary>What became of some neighbouring rows.</summary>
internal sealed class ConvertedRows
{
    public int Rows { get; set; }

    public List<RowFacts> Usable { get; } = [];

    public List<ExampleFacts> Examples { get; } = [];

    public ArrayBufferWriter<byte> Records { get; } = new();

    public List<(int? Row, RowFault Fault)> Faults { get; } = [];

    /// <summary>Pairs of answers, those that are left out included.</summary>
    public int Pairs { get; set; }

    /// <summary>How the answers of pairs begin and end.</summary>
    public List<(Phrase Phrase, bool Chosen)> Phrases { get; } = [];

    /// <summary>Whether the limits ended the reading here.</summary>
    public bool LookIsOver { get; set; }
}

/// <summary>Rows to token sequences, by a layout that is known. Several threads may use one.</summary>
/// <param name="layout">Null: the columns fit none, and rows are only checked for being rows.</param>
/// <param name="encoder">Null: only the structure of text rows is checked.</param>
/// <param name="vocabulary">Number of ids that the model knows; null: ids are not checked against it.</param>
internal sealed class RowConverter(
    DataConfig config, RowLayout? layout, RowUse use, Tokenizer? tokenizer, SampleEncoder? encoder, int? vocabulary)
{
    private readonly bool _narrow = TokenRecord.IsNarrow(vocabulary, tokenizer?.VocabularySize);

    public ConvertedRows Convert(IReadOnlyList<Row> rows, CancellationToken cancellationToken)
    {
        var result = new ConvertedRows();
        foreach (var row in rows)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Take(row.Parsed(), result);
        }

        return result;
    }

    private void Take(Row row, ConvertedRows to)
    {
        if (row.Fault?.Code == ByteSource.LookIsOver)
        {
            to.LookIsOver = true;
            return;
        }

        to.Rows += row.Number is null ? 0 : 1;
        if (row.Fault is { } fault)
        {
            to.Faults.Add((row.Number, fault));
        }
        else if (layout is not null && row is { Number: { } number, Columns: { } columns })
        {
            try
            {
                Convert(number, Renamed(columns), to);
            }
            catch (RowException broken)
            {
                to.Faults.Add((number, broken.Fault));
            }
            catch (Exception error) when (HostileJson.IsMalformed(error))
            {
                to.Faults.Add((
                    number, new("invalid_text", "the row holds a \\u escape that is half of a character; write its text as valid Unicode")));
            }
        }
    }

    private void Convert(int number, IReadOnlyDictionary<string, JsonElement> columns, ConvertedRows to)
    {
        var fields = new Fields(columns);
        var sample = layout!.Read(fields);
        CheckTrainable(sample);
        var head = new ExampleHead(number, ClassOf(fields));
        var conversation = sample as Conversation;
        var fingerprint = Fingerprint(columns);
        var flags = conversation is null ? RowFlags.None : RowFlags.IsConversation;
        flags |= conversation?.BreaksRoleOrder == true ? RowFlags.BreaksRoleOrder : RowFlags.None;
        var before = to.Examples.Count;
        switch (sample)
        {
            case JudgedAnswers or Judgements when encoder is not null:
                flags |= AddJudged(sample, head with { Category = CategoryOf(fields) }, to);
                break;
            case TokenRow tokens:
                CheckVocabulary(tokens);
                flags |= Shifts(tokens) ? RowFlags.ShiftsLabels : RowFlags.None;
                flags |= Cut(tokens.Ids, tokens.Labels, head, to);
                break;
            case not (JudgedAnswers or Judgements) when encoder is not null:
                var (ids, labels) = encoder.Encode(sample);
                flags |= conversation is not null && tokenizer!.EosId is { } end && !labels.Contains(end) ? RowFlags.LacksEndOfText : RowFlags.None;
                flags |= Cut(CollectionsMarshal.AsSpan(ids), CollectionsMarshal.AsSpan(labels), head, to);
                break;
        }

        ulong? pair = null;
        if (use.Sequences() == 2)
        {
            pair = PairTexts.Fingerprint(sample);
            to.Pairs += sample is Judgements many ? many.All.Count : 1;
            to.Phrases.AddRange(PairTexts.Phrases(sample));
        }

        to.Usable.Add(new(fingerprint, flags, conversation?.EmptyAssistantTurns ?? 0, to.Examples.Count - before, pair));
    }

    /// <summary>Adds an example for each judgement of a row; one that says nothing, or is too long, is left out.</summary>
    private RowFlags AddJudged(Sample sample, ExampleHead head, ConvertedRows to)
    {
        var flags = RowFlags.None;
        var added = false;
        foreach (var judged in sample is Judgements many ? many.All : [(JudgedAnswers)sample])
        {
            var parts = judged.Answers.Select(encoder!.Encode).ToList();
            if (parts.Any(part => Example.CountTrainable(CollectionsMarshal.AsSpan(part.Labels)) == 0))
            {
                throw NothingToTrainOn();
            }

            if (parts is [var chosen, var rejected])
            {
                var longer = AnswerTokens(0, chosen.Labels).CompareTo(AnswerTokens(1, rejected.Labels));
                flags |= longer > 0 ? RowFlags.ChosenLonger : longer < 0 ? RowFlags.ChosenShorter : RowFlags.None;
                if (chosen.Ids.SequenceEqual(rejected.Ids))
                {
                    flags |= RowFlags.SameAnswers;
                    continue;
                }
            }

            if (parts.Any(part => part.Ids.Count > config.MaxLength))
            {
                flags |= RowFlags.TooLong;
                continue;
            }

            int[] ids = [.. parts.SelectMany(part => part.Ids)], labels = [.. parts.SelectMany(part => part.Labels)];
            List<int> ends = [];
            parts.ForEach(part => ends.Add((ends.Count == 0 ? 0 : ends[^1]) + part.Ids.Count));
            added |= Add(ids, labels, head with { Ends = ends.Count == 1 ? null : ends, Value = judged.Value, IsTie = judged.IsTie, Capability = judged.Capability }, to);

            int AnswerTokens(int part, List<int> labels) =>
                (judged.Answers[part] is CritiquedAnswer { Answer: var answer } ? encoder.Encode(answer).Labels : labels).Count(IsTrained);
        }

        return added ? flags : flags | RowFlags.Dropped;

        static bool IsTrained(int label) => label != Example.Ignored;
    }

    /// <summary>What a row calls its kind; long names are no kinds.</summary>
    private static string? CategoryOf(Fields fields)
    {
        const int Longest = 200;
        foreach (var column in (string[])[PreferenceLayouts.Category, PreferenceLayouts.Subset])
        {
            if (fields.Has(column))
            {
                var name = Fields.Text(fields[column], column);
                return name.Length <= Longest
                    ? name
                    : throw new RowException("wrong_value", $"has {name.Length} characters; a category has at most {Longest}", column);
            }
        }

        return null;
    }

    /// <summary>Which of the classes a row names; null when rows have none.</summary>
    private int? ClassOf(Fields fields)
    {
        const string column = DataConfig.ClassColumn;
        if (config.Classes is not { } classes)
        {
            return null;
        }

        if (!fields.Has(column))
        {
            throw new RowException(
                "missing_class",
                $"'{column}' is missing or null, and the adapter needs the class of every row ({Listed(classes)}); write it there, or rename the column "
                + "that holds it with data.columns", column);
        }

        var value = fields[column];
        var name = value.ValueKind == JsonValueKind.Number ? value.GetRawText() : Fields.Text(value, column);
        return classes.Index().Where(known => known.Item == name).Select(known => (int?)known.Index).FirstOrDefault() ?? throw new RowException(
            "unknown_class", $"is '{name}', which is none of adapter.classes ({Listed(classes)}); correct the row, or add the class there", column);
    }

    private static string Listed(IReadOnlyList<string> classes) =>
        string.Join(", ", classes.Take(12).Select(name => $"'{name}'")) + (classes.Count > 12 ? ", …" : "");

    private static bool Shifts(TokenRow row)
    {
        for (var i = 0; i < row.Ids.Length; i++)
        {
            if (row.Labels[i] != Example.Ignored && row.Labels[i] != row.Ids[i])
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Adds sequences of at most max_length tokens.</summary>
    private RowFlags Cut(ReadOnlySpan<int> ids, ReadOnlySpan<int> labels, ExampleHead head, ConvertedRows to)
    {
        if (Example.CountTrainable(labels) == 0)
        {
            throw NothingToTrainOn();
        }

        if (ids.Length > config.MaxLength && use != RowUse.Text)
        {
            return Add(ids[..config.MaxLength], labels[..config.MaxLength], head, to)
                ? RowFlags.Truncated
                : RowFlags.Truncated | RowFlags.Dropped;
        }

        // Pretraining wants all of a long text. The first token of each part is not predicted, as at the start of any text.
        for (var start = 0; start < ids.Length; start += config.MaxLength)
        {
            var length = Math.Min(config.MaxLength, ids.Length - start);
            Add(ids.Slice(start, length), labels.Slice(start, length), head, to);
        }

        return RowFlags.None;
    }

    private bool Add(ReadOnlySpan<int> ids, ReadOnlySpan<int> labels, ExampleHead head, ConvertedRows to)
    {
        var trainable = Example.CountTrainable(labels);
        if (trainable == 0)
        {
            return false;
        }

        to.Examples.Add(new(ids.Length, trainable, TokenRecord.Write(to.Records, head, ids, labels, _narrow)));
        return true;
    }

    /// <summary>What can be said of a row's text without a tokenizer. An empty answer would teach the model to say nothing.</summary>
    private void CheckTrainable(Sample sample)
    {
        var everything = use == RowUse.Text || (config.TrainOnPrompt && !use.IsJudged());
        switch (sample)
        {
            case Judgements many:
                many.All.ToList().ForEach(CheckTrainable);
                break;
            case JudgedAnswers judged:
                judged.Answers.ToList().ForEach(CheckTrainable);
                break;
            case CritiquedAnswer { Critique: "" }:   // the answer may be empty: that is what its critique is about
                throw NothingToTrainOn("critique");
            case PlainText { Text: "" }:
                throw NothingToTrainOn("text");
            case PromptAndCompletion pair when pair.Completion.Length == 0 && (!everything || pair.Prompt.Length == 0):
                throw NothingToTrainOn("completion");
            case InstructionTask { Output: "" } when !everything:
                throw NothingToTrainOn(layout!.Required[^1]);
            case Conversation conversation when !everything && !conversation.Turns.Any(turn => turn.Trained && !turn.IsEmpty):
                throw NothingToTrainOn(layout!.Required[^1]);
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

    private ulong Fingerprint(IReadOnlyDictionary<string, JsonElement> columns)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var name in layout!.Required.Concat(layout.Optional).Concat(config.Classes is null ? [] : [DataConfig.ClassColumn]))
        {
            if (columns.TryGetValue(name, out var value))
            {
                hash.AppendData(Encoding.UTF8.GetBytes($"{name}\0"));
                var raw = JsonMarshal.GetRawUtf8Value(value);

                // Two spellings of one text are equal; escapes are the only other spelling.
                hash.AppendData(value.ValueKind != JsonValueKind.String || raw.Contains((byte)'\\')
                    ? Encoding.UTF8.GetBytes(value.ToString())
                    : raw[1..^1]);
                hash.AppendData([0]);
            }
        }

        Span<byte> digest = stackalloc byte[SHA256.HashSizeInBytes];
        hash.GetHashAndReset(digest);
        return BitConverter.ToUInt64(digest);
    }
}
