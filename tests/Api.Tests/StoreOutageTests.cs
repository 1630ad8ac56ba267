using System.Text;
using TrainingService.Tests;

namespace TrainingService.Api.Tests;

/// <summary>What the API answers while its store fails.</summary>
public sealed class StoreOutageTests(EmbeddedApi service) : ApiTests(service), IClassFixture<EmbeddedApi>
{
    [Fact]
    public async Task A_store_that_cannot_be_written_is_told_as_such_and_heals()
    {
        Assert.Equal(200, (await Send()).Status);
        var incoming = Path.Combine(Service.Folder, "artifacts", "incoming");
        Directory.Delete(incoming, recursive: true);
        await File.WriteAllTextAsync(incoming, "in the way", Cancellation);

        using var form = Form();
        using var answer = await Http.PostAsync(new Uri("/v1/files", UriKind.Relative), form, Cancellation);
        var text = await answer.Content.ReadAsStringAsync(Cancellation);
        Assert.Equal(503, (int)answer.StatusCode);
        Assert.NotNull(answer.Headers.RetryAfter);
        Assert.Contains("\"store_unavailable\"", text, StringComparison.Ordinal);
        Assert.Contains("\"server_error\"", text, StringComparison.Ordinal);
        Assert.DoesNotContain(Service.Folder, text, StringComparison.Ordinal);

        File.Delete(incoming);
        Assert.Equal(200, (await Send()).Status);
    }

    [Fact]
    public async Task A_full_disk_is_answered_with_507_and_heals()
    {
        await using var disk = await MountedFolder.MountAsync(Path.Combine(Service.Folder, "artifacts"), "256k");
        Assert.Equal(200, (await Send()).Status);

        using var form = Form(1_000_000);
        using var answer = await Http.PostAsync(new Uri("/v1/files", UriKind.Relative), form, Cancellation);
        var text = await answer.Content.ReadAsStringAsync(Cancellation);
        Assert.True((int)answer.StatusCode == 507, text);
        Assert.NotNull(answer.Headers.RetryAfter);
        Assert.Contains("\"storage_full\"", text, StringComparison.Ordinal);
        Assert.DoesNotContain(Service.Folder, text, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(Path.Combine(Service.Folder, "artifacts", "incoming")));
        Assert.Equal(200, (await Send()).Status);   // what still fits is stored

        await disk.ResizeAsync("4m");
        using var again = Form(1_000_000);
        using var stored = await Http.PostAsync(new Uri("/v1/files", UriKind.Relative), again, Cancellation);
        Assert.Equal(200, (int)stored.StatusCode);
    }

    private Task<(int Status, System.Text.Json.Nodes.JsonNode Body)> Send() =>
        Upload("/v1/files", "rows.jsonl", Encoding.UTF8.GetBytes("{\"text\":\"a\"}\n"), ("purpose", "fine-tune"));

    private static MultipartFormDataContent Form(int bytes = 1) => new()
    {
        { new StringContent("fine-tune"), "purpose" },
        { new ByteArrayContent(Enumerable.Repeat((byte)'A', bytes).ToArray()), "file", "rows.jsonl" },
    };
}
