using System.Runtime.CompilerServices;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Objects as files below one folder. A file appears under its key complete and on disk, or not at all.</summary>
public sealed class FolderArtifactStore : IArtifactStore
{
    private readonly string _root;
    private readonly string _incoming;

    public FolderArtifactStore(string folder)
    {
        _root = Path.Combine(Path.GetFullPath(folder), "objects");
        _incoming = Path.Combine(Path.GetFullPath(folder), "incoming");
    }

    public async Task<StoredObject> PutAsync(string key, Stream content, string contentType, CancellationToken cancellationToken)
    {
        var target = PathOf(key);
        Directory.CreateDirectory(_incoming);
        var part = Path.Combine(_incoming, Guid.NewGuid().ToString("N"));
        try
        {
            using var hashing = new HashingStream(content);
            await using (var file = new FileStream(part, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 16, useAsync: true))
            {
                await hashing.CopyToAsync(file, 1 << 16, cancellationToken);
                file.Flush(flushToDisk: true);
            }

            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Move(part, target, overwrite: true);
            return new StoredObject(key, hashing.BytesRead, hashing.TakeSha256());
        }
        finally
        {
            File.Delete(part);
        }
    }

    public Task<Stream?> OpenReadAsync(string key, (long First, long Last)? range, CancellationToken cancellationToken)
    {
        var path = PathOf(key);
        if (!File.Exists(path))
        {
            return Task.FromResult<Stream?>(null);
        }

        var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 1 << 16, useAsync: true);
        if (range is not { } wanted)
        {
            return Task.FromResult<Stream?>(file);
        }

        file.Seek(wanted.First, SeekOrigin.Begin);
        return Task.FromResult<Stream?>(new LimitedStream(file, wanted.Last - wanted.First + 1));
    }

    public async IAsyncEnumerable<StoredObject> ListAsync(
        string prefix, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await Task.CompletedTask;
        if (!Directory.Exists(_root))
        {
            yield break;
        }

        // A prefix is text, not a folder: only whole folders before its last part narrow the walk.
        var slash = prefix.LastIndexOf('/');
        var folder = slash < 0 ? _root : PathOf(prefix[..slash]);
        if (!Directory.Exists(folder))
        {
            yield break;
        }

        foreach (var path in Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal))
        {
            cancellationToken.ThrowIfCancellationRequested();
            var key = Path.GetRelativePath(_root, path).Replace(Path.DirectorySeparatorChar, '/');
            if (key.StartsWith(prefix, StringComparison.Ordinal))
            {
                yield return new StoredObject(key, new FileInfo(path).Length, "");
            }
        }
    }

    public Task DeleteAsync(string key, CancellationToken cancellationToken)
    {
        var path = PathOf(key);
        if (File.Exists(path))
        {
            File.Delete(path);
        }

        return Task.CompletedTask;
    }

    public Task<Uri?> PresignAsync(string key, string downloadName, TimeSpan lifetime, CancellationToken cancellationToken) =>
        Task.FromResult<Uri?>(null);

    private string PathOf(string key) => Path.Combine(_root, StorageKey.Check(key).Replace('/', Path.DirectorySeparatorChar));
}
