using System.Text;
using TrainingService.Training;

namespace TrainingService.Worker.Supervision;

/// <summary>Everything a training process writes to its log goes to a file; the last lines stay in memory for its owner.</summary>
internal sealed class LogTail : IDisposable
{
    /// <summary>A log beyond this size helps nobody, and would fill the disk.</summary>
    public const long LargestFile = 64L << 20;

    private const int FailureLines = 50;
    private const int KeptLines = 200;
    private const int LargestRecent = 64 << 10;
    private const int LongestLine = 2000;

    private readonly Lock _gate = new();
    private readonly Queue<string> _lines = new();
    private FileStream? _file;
    private bool _changed;

    /// <exception cref="IOException">The file cannot be made.</exception>
    public LogTail(string path)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        _file = new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
    }

    public void Add(string line)
    {
        line = SafeText.Escape(line);
        lock (_gate)
        {
            Write(line);
            Keep(line);
        }
    }

    /// <summary>The last lines; null when there was none.</summary>
    public string? Read()
    {
        lock (_gate)
        {
            return _lines.Count == 0 ? null : string.Join('\n', _lines.TakeLast(FailureLines));
        }
    }

    /// <summary>More of the last lines, up to 64 KiB, when there are new ones since the last call; null otherwise.</summary>
    public string? TakeRecent()
    {
        lock (_gate)
        {
            if (!_changed)
            {
                return null;
            }

            _changed = false;
            var bytes = 0;
            return string.Join(
                '\n', _lines.Reverse().TakeWhile(line => (bytes += Encoding.UTF8.GetByteCount(line) + 1) <= LargestRecent).Reverse());
        }
    }

    public void Dispose() => _file?.Dispose();

    private void Write(string line)
    {
        if (_file is null)
        {
            return;
        }

        try
        {
            var full = _file.Position >= LargestFile;
            _file.Write(Encoding.UTF8.GetBytes(full ? "The log is too long; the rest is left out.\n" : line + "\n"));
            if (full)
            {
                Close();
            }
        }
        catch (IOException e)
        {
            // A full disk ends the log, and not the training; its last lines go on in memory.
            Keep($"The log file ends here: {e.Message}");
            Close();
        }
    }

    private void Keep(string line)
    {
        _changed = true;
        var length = Math.Min(line.Length, LongestLine);
        length -= length > 0 && char.IsHighSurrogate(line[length - 1]) ? 1 : 0;   // half a character is no text to Postgres
        _lines.Enqueue(line[..length]);
        if (_lines.Count > KeptLines)
        {
            _lines.Dequeue();
        }
    }

    private void Close()
    {
        _file?.Dispose();
        _file = null;
    }
}
