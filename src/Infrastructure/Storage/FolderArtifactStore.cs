using System.Buffers;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Objects as files below one folder. A file appears under its key complete and on disk, or not at all.</summary>
public sealed class FolderArtifactStore : IArtifactStore
{
    /// <summary>ENOSPC and EDQUOT of the system, and ERROR_DISK_FULL of Windows.</summary>
    private static readonly int[] FullCodes = [28, 122, unchecked((int)0x80070070)];

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
        var part = Path.Combine(_incoming, Guid.NewGuid().ToString("N"));
        var fence = content as IWriteFence;
        try
        {
            Guard(key, () => DurableFolder.Create(_incoming));
            var stored = await WriteAsync(key, part, content, fence, cancellationToken);
            await HoldAsync(fence, cancellationToken);
            Guard(key, () =>
            {
                var folder = Path.GetDirectoryName(target)!;
                DurableFolder.Create(folder);
                File.Move(part, target, overwrite: true);
                DurableFolder.Flush(folder);
            });
            return stored;
        }
        catch (Exception e)
        {
            RemovePart(part, e);
            throw;
        }
    }

    public Task<Stream?> OpenReadAsync(string key, (long First, long Last)? range, CancellationToken cancellationToken)
    {
        var path = PathOf(key);
        FileStream file;
        try
        {
            file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 1 << 16, useAsync: true);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException || (e is UnauthorizedAccessException && Directory.Exists(path)))
        {
            return Task.FromResult<Stream?>(null);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Failure("read", key, e);
        }

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

        // A prefix is text, not a folder: only whole folders before its last part narrow the walk.
        var slash = prefix.LastIndexOf('/');
        var folder = slash < 0 ? _root : PathOf(prefix[..slash]);
        if (!Directory.Exists(folder))
        {
            yield break;
        }

        foreach (var file in new DirectoryInfo(folder).EnumerateFiles("*", SearchOption.AllDirectories))
        {
            cancellationToken.ThrowIfCancellationRequested();
            var key = Path.GetRelativePath(_root, file.FullName).Replace(Path.DirectorySeparatorChar, '/');
            if (key.StartsWith(prefix, StringComparison.Ordinal) && file.Exists)
            {
                yield return new StoredObject(key, file.Length, "") { StoredAt = file.LastWriteTimeUtc };
            }
        }
    }

    public Task DeleteAsync(string key, CancellationToken cancellationToken)
    {
        var path = PathOf(key);
        if (File.Exists(path))
        {
            Guard(key, () => File.Delete(path), "delete");
        }

        return Task.CompletedTask;
    }

    public Task<int> RemoveUnfinishedAsync(DateTimeOffset before, CancellationToken cancellationToken)
    {
        var removed = 0;
        if (Directory.Exists(_incoming))
        {
            foreach (var file in new DirectoryInfo(_incoming).EnumerateFiles().Where(file => file.LastWriteTimeUtc < before.UtcDateTime))
            {
                cancellationToken.ThrowIfCancellationRequested();
                Guard(file.Name, file.Delete, "delete");
                removed++;
            }
        }

        return Task.FromResult(removed);
    }

    public Task<Uri?> PresignAsync(string key, string downloadName, TimeSpan lifetime, CancellationToken cancellationToken) =>
        Task.FromResult<Uri?>(null);

    /// <summary>Copies the content into a file and puts that on disk. What the content throws is the caller's; what the file throws is ours.</summary>
    private async Task<StoredObject> WriteAsync(
        string key, string part, Stream content, IWriteFence? fence, CancellationToken cancellationToken)
    {
        using var sha256 = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = ArrayPool<byte>.Shared.Rent(1 << 16);
        long bytes = 0;
        try
        {
            await using var file = Guard(
                key, () => new FileStream(part, FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 0, useAsync: true));
            while (await content.ReadAsync(buffer, cancellationToken) is > 0 and var read)
            {
                await HoldAsync(fence, cancellationToken);
                sha256.AppendData(buffer, 0, read);
                bytes += read;
                try
                {
                    await file.WriteAsync(buffer.AsMemory(0, read), cancellationToken);
                }
                catch (IOException e)
                {
                    throw Failure("write", key, e);
                }
            }

            Guard(key, () => file.Flush(flushToDisk: true));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }

        return new StoredObject(key, bytes, Convert.ToHexStringLower(sha256.GetHashAndReset()));
    }

    private static ValueTask HoldAsync(IWriteFence? fence, CancellationToken cancellationToken) =>
        fence?.HoldAsync(cancellationToken) ?? ValueTask.CompletedTask;

    private static void RemovePart(string part, Exception cause)
    {
        try
        {
            File.Delete(part);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Why the put failed matters more; the clean-up of the store removes the part later.
            cause.Data["part"] = part;
        }
    }

    private void Guard(string key, Action action, string verb = "write") => Guard(key, () =>
    {
        action();
        return true;
    }, verb);

    private T Guard<T>(string key, Func<T> action, string verb = "write")
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Failure(verb, key, e);
        }
    }

    private ArtifactStoreException Failure(string verb, string key, Exception cause) => FullCodes.Contains(cause.HResult)
        ? new ArtifactStoreException(
            $"There is no room left for '{key}' in '{_root}': free space on its disk, or move the data folder to a larger one.", cause)
        {
            IsFull = true,
        }
        : new ArtifactStoreException($"The artifact store could not {verb} '{key}' in '{_root}': {cause.Message}", cause);

    private string PathOf(string key) => Path.Combine(_root, StorageKey.Check(key).Replace('/', Path.DirectorySeparatorChar));
}
