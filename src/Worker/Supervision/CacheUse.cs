namespace TrainingService.Worker.Supervision;

/// <summary>The folders of the cache that one attempt uses: none of them is removed before its end.</summary>
internal sealed class CacheUse(CacheEntries entries) : IDisposable
{
    private readonly List<IDisposable> _marks = [];

    /// <summary>A folder that <paramref name="fetch"/> names, kept from now on.</summary>
    public async Task<string> OfAsync(Func<Task<string>> fetch, CancellationToken cancellationToken)
    {
        while (true)
        {
            var folder = await fetch();
            if (await entries.TryUseAsync(folder, cancellationToken) is { } mark)
            {
                _marks.Add(mark);
                return folder;
            }
        }
    }

    public void Dispose()
    {
        foreach (var mark in _marks)
        {
            mark.Dispose();
        }
    }
}
