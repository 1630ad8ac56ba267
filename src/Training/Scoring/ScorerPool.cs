using System.Globalization;

namespace TrainingService.Training.Scoring;

/// <summary>Models that score, loaded when they are asked for. Those used longest ago give way where memory is not enough, and none that is in use.</summary>
/// <param name="memoryBytes">What the weights of all loaded models may take together.</param>
public sealed class ScorerPool(long memoryBytes) : IDisposable
{
    private readonly object _gate = new();
    private readonly Dictionary<ScorerSource, Entry> _loaded = [];
    private long _uses;

    /// <summary>The models in memory, the one that was asked for longest ago first.</summary>
    public IReadOnlyList<ScorerSource> Loaded
    {
        get
        {
            lock (_gate)
            {
                return [.. _loaded.OrderBy(entry => entry.Value.LastUse).Select(entry => entry.Key)];
            }
        }
    }

    /// <summary>A model, which stays in memory until the answer is disposed. Waits while others are in use and leave no room.</summary>
    /// <exception cref="TrainingException">The model cannot be used, or would take more than all the memory that there is.</exception>
    public Use Take(ScorerSource source)
    {
        var bytes = Scorer.BytesOf(source);
        if (bytes > memoryBytes)
        {
            throw new TrainingException(
                FailureCode.OutOfMemory,
                string.Create(CultureInfo.InvariantCulture, $"The model takes {bytes} bytes of memory, and models that score may take {memoryBytes} (setting Scores:MemoryBytes)."),
                "model");
        }

        lock (_gate)
        {
            while (true)
            {
                if (_loaded.TryGetValue(source, out var known))
                {
                    return new(this, known.Taken(++_uses));
                }

                if (MakeRoom(memoryBytes - bytes))
                {
                    var entry = new Entry(Scorer.Load(source), bytes);
                    _loaded.Add(source, entry);
                    return new(this, entry.Taken(++_uses));
                }

                Monitor.Wait(_gate);
            }
        }
    }

    private bool MakeRoom(long left)
    {
        foreach (var (source, entry) in _loaded.Where(entry => entry.Value.Users == 0).OrderBy(entry => entry.Value.LastUse).ToList())
        {
            if (_loaded.Values.Sum(other => other.Bytes) <= left)
            {
                break;
            }

            _loaded.Remove(source);
            entry.Scorer.Dispose();
        }

        return _loaded.Values.Sum(entry => entry.Bytes) <= left;
    }

    private void Return(Entry entry)
    {
        lock (_gate)
        {
            entry.Users--;
            Monitor.PulseAll(_gate);
        }
    }

    public void Dispose()
    {
        lock (_gate)
        {
            foreach (var entry in _loaded.Values)
            {
                entry.Scorer.Dispose();
            }

            _loaded.Clear();
        }
    }

    /// <summary>A model that somebody uses.</summary>
    public sealed class Use : IDisposable
    {
        private readonly ScorerPool _pool;
        private Entry? _entry;

        internal Use(ScorerPool pool, Entry entry) => (_pool, _entry) = (pool, entry);

        public Scorer Scorer => (_entry ?? throw new ObjectDisposedException(nameof(Use))).Scorer;

        public void Dispose()
        {
            if (_entry is { } entry)
            {
                _entry = null;
                _pool.Return(entry);
            }
        }
    }

    internal sealed class Entry(Scorer scorer, long bytes)
    {
        public Scorer Scorer { get; } = scorer;

        public long Bytes { get; } = bytes;

        public int Users { get; set; }

        public long LastUse { get; private set; }

        public Entry Taken(long use)
        {
            Users++;
            LastUse = use;
            return this;
        }
    }
}
