using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;

namespace TrainingService.Api.Tests;

public abstract class FileTests(ApiService service) : ApiTests(service)
{
    [Fact]
    public async Task An_uploaded_file_is_listed_read_and_deleted()
    {
        var content = Encoding.UTF8.GetBytes("{\"text\":\"hello\"}\n");
        var (status, file) = await Upload("/v1/files", "rows.jsonl", content, ("purpose", "fine-tune"));
        Assert.Equal(200, status);
        Assert.Equal("file", (string?)file["object"]);
        Assert.Equal(content.Length, (int)file["bytes"]!);
        Assert.Equal("rows.jsonl", (string?)file["filename"]);
        Assert.Equal("processed", (string?)file["status"]);
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(content)), (string?)file["sha256"]);

        var id = (string)file["id"]!;
        Assert.StartsWith("file-", id, StringComparison.Ordinal);
        Assert.Equal(id, (string?)(await Get("/v1/files?limit=1")).Body["data"]![0]!["id"]);
        Assert.Equal(content, await Http.GetByteArrayAsync($"/v1/files/{id}/content", Cancellation));

        var (_, deleted) = await Send(new HttpRequestMessage(HttpMethod.Delete, $"/v1/files/{id}"));
        Assert.True((bool)deleted["deleted"]!);
        AssertError(await Get($"/v1/files/{id}"), 404, "not_found");
        AssertError(await Get($"/v1/files/{id}/content"), 404, "not_found");
    }

    [Fact]
    public async Task A_range_of_a_file_can_be_read()
    {
        var (_, file) = await Upload("/v1/files", "rows.jsonl", Encoding.UTF8.GetBytes("0123456789"), ("purpose", "fine-tune"));
        var request = new HttpRequestMessage(HttpMethod.Get, $"/v1/files/{file["id"]}/content");
        request.Headers.Range = new RangeHeaderValue(2, 4);
        using var answer = await Http.SendAsync(request, Cancellation);
        Assert.Equal(206, (int)answer.StatusCode);
        Assert.Equal("234", await answer.Content.ReadAsStringAsync(Cancellation));
        Assert.Equal("bytes 2-4/10", answer.Content.Headers.ContentRange!.ToString());

        var outside = new HttpRequestMessage(HttpMethod.Get, $"/v1/files/{file["id"]}/content");
        outside.Headers.Range = new RangeHeaderValue(10, 20);
        AssertError(await Send(outside), 416, "invalid_range");
    }

    [Fact]
    public async Task Files_are_paged_in_both_orders_without_gaps()
    {
        var made = new List<string>();
        for (var i = 0; i < 5; i++)
        {
            made.Add(await UploadRows($"page-{i}.jsonl"));
        }

        foreach (var order in new[] { "asc", "desc" })
        {
            var seen = new List<string>();
            string? after = null;
            while (true)
            {
                var (status, page) = await Get($"/v1/files?order={order}&limit=2" + (after is null ? "" : $"&after={after}"));
                Assert.Equal(200, status);
                seen.AddRange(page["data"]!.AsArray().Select(file => (string)file!["id"]!));
                after = (string?)page["last_id"];
                if (!(bool)page["has_more"]!)
                {
                    break;
                }
            }

            Assert.Equal(seen.Count, seen.Distinct().Count());
            Assert.Equal(order == "asc" ? made : Enumerable.Reverse(made), seen.Where(made.Contains));
        }
    }

    [Fact]
    public async Task A_file_name_keeps_no_folders()
    {
        var (_, file) = await Upload("/v1/files", "../../etc/passwd", [1], ("purpose", "fine-tune"));
        Assert.Equal("passwd", (string?)file["filename"]);
    }

    [Theory]
    [InlineData("nonsense", "invalid_purpose", "purpose")]
    [InlineData("", "invalid_purpose", "purpose")]
    public async Task A_purpose_that_does_not_exist_is_refused(string purpose, string code, string param) =>
        AssertError(await Upload("/v1/files", "rows.jsonl", [1], ("purpose", purpose)), 400, code, param);

    [Fact]
    public async Task A_file_that_is_too_large_is_refused() =>
        AssertError(await Upload("/v1/files", "rows.jsonl", new byte[2_000_001], ("purpose", "fine-tune")), 413, "request_too_large", "file");

    [Fact]
    public async Task An_empty_file_is_refused() =>
        AssertError(await Upload("/v1/files", "rows.jsonl", [], ("purpose", "fine-tune")), 400, "empty_file", "file");

    [Fact]
    public async Task A_form_without_a_file_is_refused()
    {
        using var form = new MultipartFormDataContent { { new StringContent("fine-tune"), "purpose" } };
        AssertError(await Send(new HttpRequestMessage(HttpMethod.Post, "/v1/files") { Content = form }), 400, "missing_field", "file");
    }

    [Fact]
    public async Task A_form_that_breaks_off_is_refused()
    {
        var content = new ByteArrayContent(Encoding.ASCII.GetBytes("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc"));
        content.Headers.TryAddWithoutValidation("Content-Type", "multipart/form-data; boundary=x");
        AssertError(await Send(new HttpRequestMessage(HttpMethod.Post, "/v1/files") { Content = content }), 400, "invalid_multipart");
    }
}

public sealed class FileOnEmbeddedTests(EmbeddedApi service) : FileTests(service), IClassFixture<EmbeddedApi>;

public sealed class FileOnProductionTests(ProductionApi service) : FileTests(service), IClassFixture<ProductionApi>;
