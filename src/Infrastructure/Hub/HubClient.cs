using System.Net;
using System.Net.Http.Headers;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Options;

namespace TrainingService.Infrastructure.Hub;

/// <summary>What a hub is asked before a model is fetched from it.</summary>
public sealed partial class HubClient(HubHttp http, IOptions<HubOptions> options, TimeProvider clock)
{
    private const int LargestAnswerBytes = 8 << 20;
    private const int MostPages = 100;

    /// <summary>Somebody waits for the answer, so there are fewer tries than for a download.</summary>
    private const int Attempts = 3;

    public HubOptions Options => options.Value;

    /// <summary>Pins a revision to its commit, and lists what training needs of it.</summary>
    /// <exception cref="HubException">There is no such model, or it cannot be used.</exception>
    public async Task<HubRepository> ReadRepositoryAsync(HubModelId id, CancellationToken cancellationToken)
    {
        var about = await GetJsonAsync(Address($"api/models/{id.Name}/revision/{Uri.EscapeDataString(id.Revision)}"), id, cancellationToken);
        var commit = HubListing.Commit(about.Body);
        var files = await ListAsync(id, commit, cancellationToken);
        return new HubRepository(id, commit, HubSelection.Of(files, id, Options));
    }

    /// <summary>The first bytes of a file; fewer where it is shorter.</summary>
    public Task<byte[]> ReadStartAsync(HubRepository repository, HubFile file, int bytes, CancellationToken cancellationToken)
    {
        var wanted = (int)Math.Min(bytes, file.Bytes);
        return wanted == 0
            ? Task.FromResult<byte[]>([])
            : HubRetry.RunAsync(Attempts, Options, clock, async () =>
            {
                using var answer = await http.GetAsync(FileAddress(repository, file), repository.Id, new RangeHeaderValue(0, wanted - 1), null, cancellationToken);
                return await HubBody.ReadStartAsync(answer, Options.Idle, wanted, cancellationToken);
            }, cancellationToken);
    }

    /// <summary>Where a file of the pinned commit is fetched.</summary>
    public Uri FileAddress(HubRepository repository, HubFile file) =>
        Address($"{repository.Id.Name}/resolve/{repository.Commit}/{Uri.EscapeDataString(file.Path)}");

    private Uri Address(string path) => new(http.Endpoint, path);

    private async Task<List<HubFile>> ListAsync(HubModelId id, string commit, CancellationToken cancellationToken)
    {
        var first = Address($"api/models/{id.Name}/tree/{commit}");
        var page = first;
        var seen = new HashSet<string>(StringComparer.Ordinal);
        var files = new List<HubFile>();
        var entries = 0;
        while (seen.Add(page.Query) && seen.Count <= MostPages)
        {
            var (body, next) = await GetJsonAsync(page, id, cancellationToken);
            files.AddRange(HubListing.Files(body, out var count));
            entries += count;
            if (entries > Options.MostFiles)
            {
                throw new HubException(HubFault.TooLarge, $"'{id.Name}' lists more than {Options.MostFiles} files (setting Hub:{nameof(Options.MostFiles)}).");
            }

            if (next is null)
            {
                return files;
            }

            // Of the link to the next page only its query counts: the pages never lead to another place.
            page = new UriBuilder(first) { Query = next }.Uri;
        }

        throw HubListing.Broken("its list of files has no end");
    }

    private Task<(byte[] Body, string? NextQuery)> GetJsonAsync(Uri address, HubModelId id, CancellationToken cancellationToken) =>
        HubRetry.RunAsync(Attempts, Options, clock, async () =>
        {
            using var answer = await http.GetAsync(address, id, null, null, cancellationToken);
            if (answer.StatusCode == HttpStatusCode.RequestedRangeNotSatisfiable
                || answer.Content.Headers.ContentType?.MediaType is { } type && !type.EndsWith("json", StringComparison.OrdinalIgnoreCase))
            {
                throw HubListing.Broken("it is not the JSON that was asked for");
            }

            var body = await HubBody.ReadAllAsync(answer, Options.Idle, LargestAnswerBytes, cancellationToken);
            var link = answer.Headers.TryGetValues("Link", out var links) ? NextPattern().Match(string.Join(", ", links)) : Match.Empty;
            return (body, link.Success ? link.Groups["query"].Value : null);
        }, cancellationToken);

    [GeneratedRegex("""<[^<>?]*\?(?<query>[^<>#]*)>\s*;\s*rel="?next"?""", RegexOptions.NonBacktracking)]
    private static partial Regex NextPattern();
}
