using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Data.Stored;
using TrainingService.Training.Data.Tokenizing;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data;

/// <summary>Reads one file: rows in, token sequences and faults out.</summary>
/// <remarks>One thread reads; others parse and tokenise runs of rows, which are taken up in the order of the file. What is in memory is a
/// few such runs, and some bytes of each row.</remarks>
/// <param name="tokenizer">Null: only the structure of text rows is checked.</param>
/// <param name="vocabulary">Number of ids that the model knows; null: ids are not checked against it.</param>
/// <param name="limits">Null: the file is read to its end.</param>
/// <param name="records">Takes the sequences; null: nobody wants them.</param>
internal sealed class SplitReader(
    string split, DataConfig config, RowUse use, Tokenizer? tokenizer, int? vocabulary, Action<DataProgress>? progress,
    ReadingLimits? limits = null, TokenFileWriter? records = null)
{
    private const int RowsBeforeLayout = 20;
    private const int RowsPerRun = 1000;
    private const int BytesPerRun = 256 * 1024;
    private const int MostThreads = 8;

    // Tokenizing takes some forty times the bytes of a row in memory: long rows are done one at a time.
    private const int LargeRun = 4 * BytesPerRun;

    private static readonly int Threads = Math.Clamp(Environment.ProcessorCount, 1, MostThreads);

    private readonly bool _narrow = TokenRecord.IsNarrow(vocabulary, tokenizer?.VocabularySize);
    private readonly SampleEncoder? _encoder = tokenizer is null ? null : new(tokenizer, use == RowUse.Text || (config.TrainOnPrompt && !use.IsJudged()));
    private readonly RowTable _table = new();
    private readonly List<Example> _first = [];
    private readonly List<RowError> _errors = [];
    private readonly PhraseCounts _phrases = new();
    private readonly Queue<Task<ConvertedRows>> _inWork = new();
    private HashSet<string> _columns = [];
    private string? _container;
    private RowLayout? _layout;
    private bool _isDecided;
    private int _rows;
    private int _errorCount;
    private int _unknownRoles;
    private int _untrainableRows;
    private int _pairs;
    private bool _isComplete = true;
    private RowConverter? _converter;

    /// <exception cref="TrainingException">The file cannot be opened.</exception>
    public SplitData Read(string path, CancellationToken cancellationToken)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        try
        {
            ReadAll(path, ending.Token);
        }
        finally
        {
            ending.Cancel();
            Task.WhenAny(Task.WhenAll(_inWork)).Wait(CancellationToken.None);   // after a failure: its own exception is the one that is told
        }

        return new(split)
        {
            Container = _container,
            Layout = _layout?.Name,
            IgnoredColumns = _layout is null ? [] : [.. _columns.Where(column => !_layout.Reads(column) && !IsClass(column)).Order()],
            OtherLayouts = _layout is null || config.Format != DataFormat.Auto
                ? []
                : [.. RowLayout.For(use).Where(other => other != _layout && other.Fits(_columns)).Select(other => other.Name)],
            Rows = _rows,
            ErrorCount = _errorCount,
            Errors = _errors,
            UnknownRoles = _unknownRoles,
            UntrainableRows = _untrainableRows,
            Patterns = _phrases.Patterns(_pairs),
            IsComplete = _isComplete,
            Table = _table,
            First = _first,
        };
    }

    private bool IsClass(string column) => config.Classes is not null && column == DataConfig.ClassColumn;

    private void ReadAll(string path, CancellationToken cancellationToken)
    {
        var (done, total) = (0L, 0L);
        using var rows = RowFile.Read(
            path, $"data.{split}", container => _container = container, limits, (at, length) => (done, total) = (at, length), cancellationToken)
            .GetEnumerator();
        var run = new List<Row>();
        var bytes = 0L;
        while (run.Count(row => row.Columns is not null) < RowsBeforeLayout && run.Count < 50 * RowsBeforeLayout && bytes < RowBytes.Limit
            && rows.MoveNext())
        {
            run.Add(rows.Current.Parsed());
            bytes += rows.Current.Bytes;
        }

        Decide(run);
        TakeNow(run, cancellationToken);
        (run, bytes) = ([], 0);
        var numbered = _rows;
        while (rows.MoveNext())
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (limits is not null && (numbered >= limits.Rows || limits.Over.IsCancellationRequested))
            {
                _isComplete = false;
                break;
            }

            var row = rows.Current;
            numbered += row.Number is null ? 0 : 1;
            if (!_isDecided)
            {
                row = row.Parsed();
                Decide([row]);
                TakeNow([row], cancellationToken);
                continue;
            }

            run.Add(row);
            bytes += row.Bytes;
            if (run.Count == RowsPerRun || bytes >= BytesPerRun)
            {
                Hand(run, bytes, cancellationToken);
                (run, bytes) = ([], 0);
                progress?.Invoke(new(split, numbered, done, total));
            }
        }

        Hand(run, bytes, cancellationToken);
        while (_inWork.Count > 0)
        {
            TakeUp();
        }

        progress?.Invoke(new(split, numbered, total, total));
    }

    /// <summary>Gives rows to another thread, once there is one that has nothing to do.</summary>
    private void Hand(List<Row> run, long bytes, CancellationToken cancellationToken)
    {
        while (_inWork.Count >= (bytes > LargeRun ? 1 : Threads + 1))
        {
            TakeUp();
        }

        var converter = Converter();
        _inWork.Enqueue(Task.Run(() => converter.Convert(run, cancellationToken), cancellationToken));
        if (bytes > LargeRun)
        {
            TakeUp();
        }
    }

    private void TakeNow(List<Row> run, CancellationToken cancellationToken) => Take(Converter().Convert(run, cancellationToken));

    private RowConverter Converter() => _isDecided
        ? _converter ??= new(config, _layout, use, tokenizer, _encoder, vocabulary)
        : new(config, _layout, use, tokenizer, _encoder, vocabulary);

    private void TakeUp() => Take(_inWork.Dequeue().GetAwaiter().GetResult());

    private void Take(ConvertedRows converted)
    {
        _rows += converted.Rows;
        _isComplete &= !converted.LookIsOver;
        foreach (var (row, fault) in converted.Faults)
        {
            Report(fault, row);
        }

        foreach (var row in converted.Usable)
        {
            _table.Add(row);
        }

        _pairs += converted.Pairs;
        foreach (var (phrase, chosen) in converted.Phrases)
        {
            _phrases.Add(phrase, chosen);
        }

        var at = 0;
        foreach (var example in converted.Examples)
        {
            _table.Add(example);
            if (_first.Count < DataReport.MaxPreviews)
            {
                _first.Add(TokenRecord.Read(converted.Records.WrittenSpan.Slice(at, example.Bytes), example.Length, _narrow));
            }

            at += example.Bytes;
        }

        if (_errorCount == 0)
        {
            records?.Append(converted.Records.WrittenSpan);   // with an error there will be no run
        }
    }

    /// <summary>Decides the layout by the columns of the first rows that have any; reports an error when they fit none.</summary>
    private void Decide(IReadOnlyList<Row> first)
    {
        var original = first.SelectMany(row => row.Columns?.Keys ?? []).ToHashSet();
        if (original.Count == 0)
        {
            return;   // none of them can be read, which is said row by row
        }

        _isDecided = true;
        try
        {
            if (config.Columns.Keys.FirstOrDefault(name => !original.Contains(name)) is { } absent)
            {
                var seen = string.Join(", ", original.Take(12).Select(column => $"'{column}'"));
                var swapped = original.Contains(config.Columns[absent]) ? "; the file's own name comes first, then the new one" : "";
                throw new RowException("unknown_column", $"data.columns renames '{absent}', but the file's columns are {seen}{swapped}");
            }

            _columns = [.. original.Select(name => config.Columns.GetValueOrDefault(name, name))];
            _layout = RowLayout.Of(_columns, config.Format, use);
        }
        catch (RowException broken)
        {
            Report(broken.Fault, row: null);
        }
    }

    private void Report(RowFault fault, int? row)
    {
        _errorCount++;
        _unknownRoles += fault.Code == "unknown_role" ? 1 : 0;
        _untrainableRows += fault.Code == "no_trainable_tokens" ? 1 : 0;
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
