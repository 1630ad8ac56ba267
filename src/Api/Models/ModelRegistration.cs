using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Hub;

namespace TrainingService.Api.Models;

/// <summary>Registers base models: folders that are here, archives that are sent, and models on the hub.</summary>
internal sealed class ModelRegistration(
    AppDbContext db, IArtifactStore store, HubModels hub, TimeProvider clock, IOptions<ModelOptions> options, IOptions<ServiceOptions> service)
{
    private const int LongestName = 200;

    /// <summary>A local folder, or a model on the hub: the request names one of the two.</summary>
    public Task<BaseModel> FromRequestAsync(Caller caller, RegisterModelRequest request, CancellationToken cancellationToken) => request switch
    {
        { Path: { } path, Hub: null, Revision: null } => FromFolderAsync(caller, request.Name ?? "", path, cancellationToken),
        { Path: null, Hub: { } hubId } => FromHubAsync(caller, request.Name, HubErrors.Id(hubId, request.Revision), cancellationToken),
        _ => throw RequestException.Invalid(
            "invalid_source", "Give either path, a folder on the service's machine, or hub, an id on the hub (with a revision, if you like).", "path"),
    };

    /// <summary>The model that a job calls by its hub id, registered under that name the first time; null: the text is no hub id, or jobs may not do so.</summary>
    /// <exception cref="RequestException">It is a hub id, and the model cannot be used.</exception>
    public async Task<BaseModel?> FromSpecAsync(Caller caller, string name, CancellationToken cancellationToken)
    {
        if (!hub.InSpecs || HubModelId.TryParse(name) is not { } id)
        {
            return null;
        }

        try
        {
            return await FromHubAsync(caller, id, name, cancellationToken);
        }
        catch (DbUpdateException)
        {
            // A twin of this request registered it a moment ago; anything else is a failure of ours.
            db.ChangeTracker.Clear();
            if (await db.Models.AsNoTracking().FindOwnedAsync(caller, name, cancellationToken) is { } twin)
            {
                return twin;
            }

            throw;
        }
    }

    private async Task<BaseModel> FromHubAsync(Caller caller, string? name, HubModelId id, CancellationToken cancellationToken)
    {
        var chosen = name ?? id.Name;
        await CheckNameAsync(caller, chosen, cancellationToken);
        return await FromHubAsync(caller, id, chosen, cancellationToken);
    }

    private async Task<BaseModel> FromHubAsync(Caller caller, HubModelId id, string name, CancellationToken cancellationToken)
    {
        var key = Guid.CreateVersion7(clock.GetUtcNow());
        var staging = Staging(key);
        var prefix = Prefix(caller, key);
        Directory.CreateDirectory(staging);
        try
        {
            var (repository, model) = await HubErrors.AnswerAsync(() => hub.InspectAsync(id, staging, cancellationToken));
            await StoreAsync(staging, prefix, model, cancellationToken);
            return await SaveAsync(caller, key, name, ModelSource.Hub, prefix, model, repository, cancellationToken);
        }
        finally
        {
            Directory.Delete(staging, recursive: true);
        }
    }

    private async Task<BaseModel> FromFolderAsync(Caller caller, string name, string path, CancellationToken cancellationToken)
    {
        await CheckNameAsync(caller, name, cancellationToken);
        var folder = FolderOf(path);
        var model = await ModelFiles.InspectAsync(folder, cancellationToken);
        return await SaveAsync(caller, Guid.CreateVersion7(clock.GetUtcNow()), name, ModelSource.LocalPath, folder, model, null, cancellationToken);
    }

    public async Task<BaseModel> FromArchiveAsync(Caller caller, HttpContext context, CancellationToken cancellationToken)
    {
        var id = Guid.CreateVersion7(clock.GetUtcNow());
        var staging = Staging(id);
        var archive = new ModelArchive(staging, options.Value.LargestArchiveBytes, options.Value.MostArchiveFiles);
        var unpacked = false;
        Directory.CreateDirectory(staging);
        try
        {
            var limit = options.Value.LargestArchiveBytes;
            var fields = await MultipartForm.ReadAsync(context, limit, async (field, fileName, content) =>
            {
                if (field != "file" || unpacked)
                {
                    throw RequestException.Invalid("unknown_field", "The body takes one archive, in the field 'file'.", field);
                }

                await archive.UnpackAsync(fileName, content, cancellationToken);
                unpacked = true;
            }, cancellationToken);
            if (!unpacked)
            {
                throw RequestException.Invalid("missing_field", "The field 'file' with the archive is missing.", "file");
            }

            var name = fields.GetValueOrDefault("name") ?? "";
            await CheckNameAsync(caller, name, cancellationToken);
            var folder = archive.ModelFolder();
            var model = await ModelFiles.InspectAsync(folder, cancellationToken);
            var prefix = Prefix(caller, id);
            await StoreAsync(folder, prefix, model, cancellationToken);
            return await SaveAsync(caller, id, name, ModelSource.Stored, prefix, model, null, cancellationToken);
        }
        finally
        {
            Directory.Delete(staging, recursive: true);
        }
    }

    private string Staging(Guid model) => Path.Combine(service.Value.DataPath, "incoming", $"model-{model:N}");

    private static string Prefix(Caller caller, Guid model) => $"projects/{caller.ProjectId:N}/models/{model:N}";

    private async Task StoreAsync(string folder, string prefix, InspectedModel model, CancellationToken cancellationToken)
    {
        foreach (var file in model.Files.Where(file => !file.Remote))
        {
            await using var content = File.OpenRead(Path.Combine(folder, file.Path));
            await store.PutAsync($"{prefix}/{file.Path}", content, "application/octet-stream", cancellationToken);
        }
    }

    private async Task<BaseModel> SaveAsync(
        Caller caller, Guid id, string name, ModelSource source, string location, InspectedModel inspected, HubRepository? repository,
        CancellationToken cancellationToken)
    {
        var model = new BaseModel
        {
            Id = id,
            ProjectId = caller.ProjectId,
            Name = name,
            Source = source,
            Location = location,
            ConfigJson = inspected.ConfigJson,
            FilesJson = JsonSerializer.Serialize(inspected.Files, ModelFiles.Json),
            HubId = repository?.Id.Name,
            HubRevision = repository?.Id.Revision,
            HubCommit = repository?.Commit,
            Bytes = inspected.Bytes,
            CreatedAt = clock.GetUtcNow(),
        };
        db.Models.Add(model);
        await db.SaveChangesAsync(cancellationToken);
        return model;
    }

    private async Task CheckNameAsync(Caller caller, string name, CancellationToken cancellationToken)
    {
        // Such parts of a path vanish from a URL on its way, so the model could not be asked for.
        var isPlain = name.Length is > 0 and <= LongestName && !name.Split('/').Any(part => part is "" or "." or "..") && name.All(letter => char.IsAsciiLetterOrDigit(letter) || "-_./".Contains(letter, StringComparison.Ordinal));
        if (!isPlain || name.StartsWith(PublicId.Model, StringComparison.Ordinal))
        {
            throw RequestException.Invalid(
                "invalid_name", $"name must be 1 to {LongestName} letters, digits, '-', '_', '.' or '/', and not begin with {PublicId.Model}.", "name");
        }

        if (await db.Models.OwnedBy(caller).AnyAsync(model => model.Name == name, cancellationToken))
        {
            throw new DomainException("model.name_taken", $"There is a base model '{name}' already; delete it first, or choose another name.");
        }
    }

    private string FolderOf(string path)
    {
        if (path.Contains('\0', StringComparison.Ordinal) || !Path.IsPathFullyQualified(path))
        {
            throw RequestException.Invalid("invalid_path", "path must be the full path of a folder on the service's machine.", "path");
        }

        var folder = Path.TrimEndingDirectorySeparator(Path.GetFullPath(path));
        var roots = options.Value.Roots;
        var mayBeAnywhere = roots.Count == 0 && service.Value.Profile == ServiceProfile.Embedded;
        if (!mayBeAnywhere && !roots.Any(root => IsBelow(Resolve(folder), Resolve(Path.GetFullPath(root)))))
        {
            throw RequestException.Invalid(
                "path_not_allowed", "path is not below a folder from which models may be registered (setting Models:Roots); upload an archive instead.", "path");
        }

        if (!Directory.Exists(folder))
        {
            throw RequestException.Invalid("unknown_path", $"There is no folder '{path}' on the service's machine.", "path");
        }

        // Caches of models hold links to files beside the folder, which is fine as long as those are below a root too.
        var outside = mayBeAnywhere ? null : Directory.EnumerateFileSystemEntries(folder)
            .FirstOrDefault(entry => !roots.Any(root => IsBelow(Resolve(entry), Resolve(Path.GetFullPath(root)))));
        return outside is null
            ? folder
            : throw RequestException.Invalid(
                "path_not_allowed", $"'{Path.GetFileName(outside)}' is a link that leaves the folders from which models may be registered (setting Models:Roots).", "path");
    }

    /// <summary>The place behind every link on the way, so that a link below a root leads nowhere else.</summary>
    private static string Resolve(string path)
    {
        const int mostLinks = 40;   // as Linux has it
        var root = Path.GetPathRoot(path)!;
        var place = root;
        var parts = new Stack<string>(path.Split(Path.DirectorySeparatorChar, StringSplitOptions.RemoveEmptyEntries).Reverse());
        var links = 0;
        while (parts.TryPop(out var part))
        {
            var next = Path.GetFullPath(Path.Combine(place, part));
            if (new FileInfo(next).LinkTarget is not { } target)
            {
                place = next;
                continue;
            }

            if (++links > mostLinks)
            {
                throw RequestException.Invalid("invalid_path", "path leads through links without end.", "path");
            }

            place = Path.IsPathRooted(target) ? root : place;
            foreach (var step in target.Split(Path.DirectorySeparatorChar, StringSplitOptions.RemoveEmptyEntries).Reverse())
            {
                parts.Push(step);
            }
        }

        return place;
    }

    private static bool IsBelow(string folder, string root) =>
        folder == root || folder.StartsWith(Path.TrimEndingDirectorySeparator(root) + Path.DirectorySeparatorChar, StringComparison.Ordinal);
}
