using System.Diagnostics.CodeAnalysis;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Api.Tests;

/// <summary>Files that arrive in parts.</summary>
public abstract class UploadTests(ApiService service) : ApiTests(service)
{
    [SuppressMessage("Security", "CA5351", Justification = "The checksum that the protocol names.")]
    private static byte[] Md5(byte[] content) => MD5.HashData(content);

    private static readonly byte[] Content = Encoding.UTF8.GetBytes("{\"text\":\"the first row\"}\n{\"text\":\"the second row\"}\n");

    [Fact]
    public async Task Parts_become_one_file_in_the_order_that_is_said()
    {
        var upload = await Create(Content.Length);
        Assert.Equal("pending", (string?)upload["status"]);
        Assert.Equal("upload", (string?)upload["object"]);
        Assert.Equal(3600, (long)upload["expires_at"]! - (long)upload["created_at"]!);
        var id = (string)upload["id"]!;
        var second = await Part(id, Content[20..]);
        var unused = await Part(id, [1, 2, 3]);
        var first = await Part(id, Content[..20]);
        Assert.Equal(
            [second, unused, first], (await Get($"/v1/uploads/{id}")).Body["parts"]!.AsArray().Select(part => (string)part!["id"]!));

        var md5 = Convert.ToHexStringLower(Md5(Content));
        var (status, done) = await Complete(id, [first, second], md5);

        Assert.True(status == 200, done.ToJsonString());
        Assert.Equal("completed", (string?)done["status"]);
        var file = done["file"]!;
        Assert.Equal(Content.Length, (int)file["bytes"]!);
        Assert.Equal("rows.jsonl", (string?)file["filename"]);
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(Content)), (string?)file["sha256"]);
        Assert.Equal(Content, await Http.GetByteArrayAsync($"/v1/files/{file["id"]}/content", Cancellation));
        Assert.Empty(await KeysBelow(id));

        var (_, again) = await Complete(id, [first, second], md5);
        Assert.Equal((string?)file["id"], (string?)again["file"]!["id"]);
        AssertError(await SendPart(id, [1]), 409, "upload_completed");
        AssertError(await Post($"/v1/uploads/{id}/cancel"), 409, "upload_completed");
    }

    [Fact]
    public async Task Two_who_complete_at_once_get_one_file()
    {
        var id = (string)(await Create(Content.Length))["id"]!;
        var parts = new[] { await Part(id, Content[..7]), await Part(id, Content[7..]) };

        var answers = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Complete(id, parts)));

        // Who comes while another one removes the parts may be told so; nobody gets another file.
        var files = answers.Where(answer => answer.Status == 200).Select(answer => (string)answer.Body["file"]!["id"]!).Distinct().ToList();
        Assert.Single(files);
        Assert.Equal(files[0], (string?)(await Complete(id, parts)).Body["file"]!["id"]);
        await using var db = await Service.OpenAsync();
        PublicId.TryParse(PublicId.Upload, id, out var key);
        Assert.Equal(1, await db.Files.CountAsync(file => db.Uploads.Any(upload => upload.Id == key && upload.FileId == file.Id), Cancellation));
    }

    [Fact]
    public async Task A_cancelled_upload_keeps_nothing_and_takes_nothing()
    {
        var id = (string)(await Create(Content.Length))["id"]!;
        var part = await Part(id, Content);
        Assert.Single(await KeysBelow(id));

        var (status, cancelled) = await Post($"/v1/uploads/{id}/cancel");

        Assert.Equal((200, "cancelled"), (status, (string?)cancelled["status"]));
        Assert.Empty(await KeysBelow(id));
        AssertError(await SendPart(id, [1]), 409, "upload_cancelled");
        AssertError(await Complete(id, [part]), 409, "upload_cancelled");
        Assert.Equal(200, (await Post($"/v1/uploads/{id}/cancel")).Status);
    }

    [Fact]
    public async Task An_upload_whose_time_is_over_has_expired()
    {
        var id = (string)(await Create(Content.Length))["id"]!;
        var part = await Part(id, Content);
        PublicId.TryParse(PublicId.Upload, id, out var key);
        await using (var db = await Service.OpenAsync())
        {
            var past = DateTimeOffset.UnixEpoch;
            await db.Uploads.Where(upload => upload.Id == key).ExecuteUpdateAsync(row => row.SetProperty(u => u.ExpiresAt, past), Cancellation);
        }

        Assert.Equal("expired", (string?)(await Get($"/v1/uploads/{id}")).Body["status"]);
        AssertError(await SendPart(id, [1]), 409, "upload_expired");
        AssertError(await Complete(id, [part]), 409, "upload_expired");
    }

    [Fact]
    public async Task What_does_not_make_up_the_file_is_refused_and_can_be_repaired()
    {
        var id = (string)(await Create(Content.Length))["id"]!;
        var first = await Part(id, Content[..5]);
        AssertError(await Complete(id, [first]), 400, "bytes_mismatch", "part_ids");
        AssertError(await Complete(id, []), 400, "invalid_parts", "part_ids");
        AssertError(await Complete(id, [first, first]), 400, "invalid_parts", "part_ids");
        AssertError(await Complete(id, [first, "part_00000000000000000000000000000000"]), 400, "unknown_part", "part_ids");
        var second = await Part(id, Content[5..]);
        AssertError(await Complete(id, [first, second], new string('0', 32)), 400, "md5_mismatch", "md5");
        Assert.Equal(200, (await Complete(id, [first, second], Convert.ToBase64String(Md5(Content)))).Status);
    }

    [Theory]
    [InlineData("""{"filename":"a","purpose":"fine-tune","bytes":0}""", "out_of_range", "bytes")]
    [InlineData("""{"filename":"a","purpose":"fine-tune","bytes":2000001}""", "out_of_range", "bytes")]
    [InlineData("""{"filename":"a","purpose":"nonsense","bytes":1}""", "invalid_purpose", "purpose")]
    [InlineData("""{"filename":"","purpose":"fine-tune","bytes":1}""", "missing_field", "filename")]
    [InlineData("""{"filename":"a","purpose":"fine-tune","bytes":1,"expires_after":{"anchor":"created_at","seconds":1}}""", "invalid_expiry", "expires_after.seconds")]
    [InlineData("""{"filename":"a","purpose":"fine-tune"}""", "out_of_range", "bytes")]
    [InlineData("""{"purpose":"fine-tune","bytes":1}""", "missing_field", "filename")]
    public async Task An_announcement_that_cannot_be_kept_is_refused(string body, string code, string param) =>
        AssertError(await Post("/v1/uploads", JsonNode.Parse(body)), 400, code, param);

    [Fact]
    public async Task A_part_must_be_a_file_with_bytes()
    {
        var id = (string)(await Create(Content.Length))["id"]!;
        AssertError(await SendPart(id, []), 400, "missing_field", "data");
        using var form = new MultipartFormDataContent { { new ByteArrayContent([1]), "file", "part" } };
        AssertError(await Send(new HttpRequestMessage(HttpMethod.Post, $"/v1/uploads/{id}/parts") { Content = form }), 400, "unknown_field", "file");
        AssertError(await SendPart("upload_00000000000000000000000000000000", [1]), 404, "not_found", "id");
    }

    [Fact]
    public async Task A_download_goes_on_in_the_version_it_began_with()
    {
        var id = (string)(await Create(10, "folder/rows \"ä\"\r\n; x=1.jsonl"))["id"]!;
        var file = (await Complete(id, [await Part(id, Encoding.UTF8.GetBytes("0123456789"))])).Body["file"]!;
        var path = $"/v1/files/{file["id"]}/content";
        using var head = await Http.SendAsync(new HttpRequestMessage(HttpMethod.Head, path), Cancellation);
        Assert.Equal((200, 10L), ((int)head.StatusCode, head.Content.Headers.ContentLength));
        Assert.Equal("bytes", head.Headers.AcceptRanges.Single());
        Assert.Equal($"\"{file["sha256"]}\"", head.Headers.ETag!.Tag);
        Assert.Equal("rows \"ä\"; x=1.jsonl", head.Content.Headers.ContentDisposition!.FileNameStar);

        Assert.Equal((206, "789"), await Range(path, "bytes=-3"));
        Assert.Equal((206, "56789"), await Range(path, "bytes=5-"));
        Assert.Equal((206, "5"), await Range(path, "bytes=5-5", head.Headers.ETag.Tag));
        Assert.Equal((200, "0123456789"), await Range(path, "bytes=5-5", "\"another\""));
        Assert.Equal((200, "0123456789"), await Range(path, "bytes=5-5", "Wed, 21 Oct 2015 07:28:00 GMT"));
        Assert.Equal((200, "0123456789"), await Range(path, "bytes=1-2,4-5"));
        Assert.Equal((200, "0123456789"), await Range(path, "lines=1-2"));
        Assert.Equal(416, (await Range(path, "bytes=10-")).Status);
        Assert.Equal(416, (await Range(path, "bytes=-0")).Status);

        var known = new HttpRequestMessage(HttpMethod.Get, path);
        known.Headers.IfNoneMatch.Add(head.Headers.ETag);
        using var unchanged = await Http.SendAsync(known, Cancellation);
        Assert.Equal(304, (int)unchanged.StatusCode);
    }

    private async Task<(int Status, string Body)> Range(string path, string range, string? condition = null)
    {
        var request = new HttpRequestMessage(HttpMethod.Get, path);
        request.Headers.TryAddWithoutValidation("Range", range);
        if (condition is not null)
        {
            request.Headers.IfRange = RangeConditionHeaderValue.Parse(condition);
        }

        using var answer = await Http.SendAsync(request, Cancellation);
        return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Cancellation));
    }

    private async Task<JsonNode> Create(long bytes, string name = "rows.jsonl")
    {
        var (status, body) = await Post("/v1/uploads", new JsonObject
        {
            ["filename"] = name,
            ["purpose"] = "fine-tune",
            ["bytes"] = bytes,
            ["mime_type"] = "text/jsonl",
        });
        Assert.True(status == 200, body.ToJsonString());
        return body;
    }

    private async Task<string> Part(string upload, byte[] content)
    {
        var (status, body) = await SendPart(upload, content);
        Assert.True(status == 200, body.ToJsonString());
        Assert.Equal(("upload.part", upload), ((string?)body["object"], (string?)body["upload_id"]));
        return (string)body["id"]!;
    }

    private async Task<(int Status, JsonNode Body)> SendPart(string upload, byte[] content)
    {
        using var form = new MultipartFormDataContent { { new ByteArrayContent(content), "data", "part" } };
        return await Send(new HttpRequestMessage(HttpMethod.Post, $"/v1/uploads/{upload}/parts") { Content = form });
    }

    private Task<(int Status, JsonNode Body)> Complete(string upload, string[] parts, string? md5 = null)
    {
        var body = new JsonObject { ["part_ids"] = new JsonArray([.. parts.Select(part => (JsonNode)part)]) };
        if (md5 is not null)
        {
            body["md5"] = md5;
        }

        return Post($"/v1/uploads/{upload}/complete", body);
    }

    private async Task<List<string>> KeysBelow(string upload)
    {
        var keys = new List<string>();
        await foreach (var item in Service.Services.GetRequiredService<IArtifactStore>().ListAsync("projects/", Cancellation))
        {
            if (item.Key.Contains($"/uploads/{upload["upload_".Length..]}/", StringComparison.Ordinal))
            {
                keys.Add(item.Key);
            }
        }

        return keys;
    }
}

public sealed class UploadOnEmbeddedTests(EmbeddedApi service) : UploadTests(service), IClassFixture<EmbeddedApi>;

public sealed class UploadOnProductionTests(ProductionApi service) : UploadTests(service), IClassFixture<ProductionApi>;
