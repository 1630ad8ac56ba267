using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using TrainingService.Api.Http;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Models;
using TrainingService.Infrastructure;

namespace TrainingService.Api.Models;

/// <summary>Registers base models: folders that are here, and archives that are sent.</summary>
internal sealed class ModelRegistration(
    AppDbContext db, IArtifactStore store, TimeProvider clock, IOptions<ModelOptions> options, IOptions<ServiceOptions> service)
{
    private const int LongestName = 200;

    public async Task<BaseModel> FromFolderAsync(Caller caller, RegisterModelRequest request, CancellationToken cancellationToken)
    {
        await CheckNameAsync(caller, request.Name, cancellationToken);
        var folder = FolderOf(request.Path);
        var model = await ModelFiles.InspectAsync(folder, cancellationToken);
        return await SaveAsync(caller, Guid.CreateVersion7(clock.GetUtcNow()), request.Name, ModelSource.LocalPath, folder, model, cancellationToken);
    }

    public async Task<BaseModel> FromArchiveAsync(Caller caller, HttpContext context, CancellationToken cancellationToken)
    {
        var id = Guid.CreateVersion7(clock.GetUtcNow());
        var staging = Path.Combine(service.Value.DataPath, "incoming", $"model-{id:N}");
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
            var prefix = $"projects/{caller.ProjectId:N}/models/{id:N}";
            await StoreAsync(folder, prefix, model, cancellationToken);
            return await SaveAsync(caller, id, name, ModelSource.Stored, prefix, model, cancellationToken);
        }
        finally
        {
            Directory.Delete(staging, recursive: true);
        }
    }

    private async Task StoreAsync(string folder, string prefix, InspectedModel model, CancellationToken cancellationToken)
    {
        foreach (var file in model.Files)
        {
            await using var content = File.OpenRead(Path.Combine(folder, file.Path));
            await store.PutAsync($"{prefix}/{file.Path}", content, "application/octet-stream", cancellationToken);
        }
    }

    private async Task<BaseModel> SaveAsync(
        Caller caller, Guid id, string name, ModelSource source, string location, InspectedModel inspected, CancellationToken cancellationToken)
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
            Bytes = inspected.Bytes,
            CreatedAt = clock.GetUtcNow(),
        };
        db.Models.Add(model);
        await db.SaveChangesAsync(cancellationToken);
        return model;
    }

    private async Task CheckNameAsync(Caller caller, string name, CancellationToken cancellationToken)
    {
        var isPlain = name.Length is > 0 and <= LongestName && name.All(letter => char.IsAsciiLetterOrDigit(letter) || "-_./".Contains(letter, StringComparison.Ordinal));
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
        if (!Path.IsPathFullyQualified(path))
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

        return Directory.Exists(folder)
            ? folder
            : throw RequestException.Invalid("unknown_path", $"There is no folder '{path}' on the service's machine.", "path");
    }

    /// <summary>The folder behind a link, so that a link below a root leads nowhere else.</summary>
    private static string Resolve(string folder) =>
        Directory.Exists(folder) ? Directory.ResolveLinkTarget(folder, returnFinalTarget: true)?.FullName ?? folder : folder;

    private static bool IsBelow(string folder, string root) =>
        folder == root || folder.StartsWith(Path.TrimEndingDirectorySeparator(root) + Path.DirectorySeparatorChar, StringComparison.Ordinal);
}
