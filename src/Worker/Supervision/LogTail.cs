using System.Text;

namespace TrainingService.Worker.Supervision;

/// <summary>Everything a training process writes to its log goes to a file; the last lines stay in memory for its owner.</summary>
internal sealed class LogTail : IDisposable
{
    private const int KeptLines = 50;
    private const int LongestLine = 2000;

    private readonly Lock _gate = new();
    private readonly Queue<string> _lines = new();
    private readonly StreamWriter _file;

    public LogTail(string path)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        _file = new StreamWriter(path, append: true, new UTF8Encoding(false)) { NewLine = "\n", AutoFlush = true };
    }

    public void Add(string line)
    {
        lock (_gate)
        {
            _file.WriteLine(line);
            _lines.Enqueue(line.Length > LongestLine ? line[..LongestLine] : line);
            if (_lines.Count > KeptLines)
            {
                _lines.Dequeue();
            }
        }
    }

    /// <summary>The last lines; null when there was none. Postgres takes no zero characters in text.</summary>
    public string? Read()
    {
        lock (_gate)
        {
            return _lines.Count == 0 ? null : string.Join('\n', _lines).Replace("\0", "", StringComparison.Ordinal);
        }
    }

    public void Dispose() => _file.Dispose();
}
