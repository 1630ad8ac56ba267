using Microsoft.EntityFrameworkCore;
using TrainingService.Domain;
using TrainingService.Domain.Files;

namespace TrainingService.Api.Files;

internal static class FileQueries
{
    public static IQueryable<DataFile> OwnedBy(this IQueryable<DataFile> files, Caller caller) =>
        files.Where(file => file.ProjectId == caller.ProjectId);

    public static async Task<DataFile?> FindOwnedAsync(
        this IQueryable<DataFile> files, Caller caller, string id, CancellationToken cancellationToken) =>
        PublicId.TryParse(PublicId.File, id, out var key)
            ? await files.OwnedBy(caller).SingleOrDefaultAsync(file => file.Id == key, cancellationToken)
            : null;
}
