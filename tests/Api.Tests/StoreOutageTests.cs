using System.Text;

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

    private Task<(int Status, System.Text.Json.Nodes.JsonNode Body)> Send() =>
        Upload("/v1/files", "rows.jsonl", Encoding.UTF8.GetBytes("{\"text\":\"a\"}\n"), ("purpose", "fine-tune"));

    private static MultipartFormDataContent Form() => new()
    {
        { new StringContent("fine-tune"), "purpose" },
        { new ByteArrayContent([65]), "file", "rows.jsonl" },
    };
}
