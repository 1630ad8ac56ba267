using System.Buffers.Binary;
using System.Text.Json;
using TrainingService.Infrastructure.Hub;
using TrainingService.Training;

namespace TrainingService.Api.Models;

/// <summary>
/// Looks at a model on the hub as at one that is here: the small files are fetched, and of the weights the headers, so that names and
/// shapes are checked before anybody waits for gigabytes.
/// </summary>
internal sealed class HubModels(HubClient hub, HubDownload download)
{
    private const int FirstBytes = 1 << 18;

    public bool InSpecs => hub.Options is { InSpecs: true, Endpoint.Length: > 0 };

    /// <param name="folder">Gets the small files, and of the weights a hollow copy.</param>
    /// <exception cref="HubException">The model cannot be had.</exception>
    /// <exception cref="TrainingException">It is none that this service trains.</exception>
    public async Task<(HubRepository Repository, InspectedModel Model)> InspectAsync(HubModelId id, string folder, CancellationToken cancellationToken)
    {
        var repository = await hub.ReadRepositoryAsync(id, cancellationToken);
        var stored = new List<HubFile>();
        foreach (var file in repository.Files.Where(file => !HubSelection.IsWeights(file)))
        {
            await download.RunAsync(repository, file, Path.Combine(folder, file.Path), _ => { }, cancellationToken);
            stored.Add(file);
        }

        repository = HubSelection.WithShards(repository, ShardsOf(folder, repository.Files.Any(file => file.Path == HubSelection.SingleFile)), hub.Options);
        foreach (var file in repository.Files.Where(HubSelection.IsWeights))
        {
            // Weights that the hub keeps as a plain file have no sha256 before they are here; hubs allow that for small files alone.
            if (file.Sha256 is null && file.Bytes <= hub.Options.LargestSmallFileBytes)
            {
                await download.RunAsync(repository, file, Path.Combine(folder, file.Path), _ => { }, cancellationToken);
                stored.Add(file);
            }
            else if (file.Sha256 is null)
            {
                throw new HubException(HubFault.Invalid, $"{file.Path} of '{id.Name}' has {file.Bytes} bytes and is not stored as a large file (LFS) on the hub.");
            }
            else
            {
                await WriteHollowAsync(repository, file, folder, cancellationToken);
            }
        }

        var config = await Task.Run(() => ModelFiles.Check(folder), cancellationToken);
        var files = new List<ModelFile>();
        foreach (var file in repository.Files)
        {
            files.Add(stored.Contains(file)
                ? await ModelFiles.HashAsync(Path.Combine(folder, file.Path), cancellationToken)
                : new ModelFile(file.Path, file.Bytes, file.Sha256!) { Remote = true });
        }

        return (repository, new InspectedModel(config.SourceJson, files));
    }

    /// <summary>A file as long as the weights, with their header and nothing behind it: it takes no room on the disk.</summary>
    private async Task WriteHollowAsync(HubRepository repository, HubFile file, string folder, CancellationToken cancellationToken)
    {
        var start = await hub.ReadStartAsync(repository, file, FirstBytes, cancellationToken);
        var header = start.Length < sizeof(long) ? 0 : BinaryPrimitives.ReadInt64LittleEndian(start);
        if (header > start.Length - sizeof(long) && header <= Math.Min(file.Bytes, hub.Options.LargestSmallFileBytes) - sizeof(long))
        {
            start = await hub.ReadStartAsync(repository, file, (int)header + sizeof(long), cancellationToken);
        }

        await using var hollow = File.Create(Path.Combine(folder, file.Path));
        await hollow.WriteAsync(start, cancellationToken);
        hollow.SetLength(file.Bytes);
    }

    /// <summary>File names that the index gives; null where it does not count. What else is wrong with it is told by the check of the folder.</summary>
    private static HashSet<string>? ShardsOf(string folder, bool isSingle)
    {
        var index = Path.Combine(folder, HubSelection.ShardIndex);
        if (!File.Exists(index) || isSingle)
        {
            return null;
        }

        try
        {
            using var document = JsonDocument.Parse(File.ReadAllBytes(index), new() { MaxDepth = 8 });
            return document.RootElement.ValueKind == JsonValueKind.Object
                && document.RootElement.TryGetProperty("weight_map", out var map) && map.ValueKind == JsonValueKind.Object
                ? map.EnumerateObject().Select(member => member.Value.ValueKind == JsonValueKind.String ? member.Value.GetString()! : "").ToHashSet(StringComparer.Ordinal)
                : throw Unusable("it has no weight_map");
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw Unusable("it is not valid JSON", e);
        }
    }

    private static HubException Unusable(string why, Exception? inner = null) =>
        new(HubFault.Invalid, $"{HubSelection.ShardIndex} on the hub cannot be used: {why}.", inner);
}
