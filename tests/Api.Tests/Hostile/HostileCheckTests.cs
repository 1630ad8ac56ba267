using System.Diagnostics;
using System.IO.Compression;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using TrainingService.Api.Files;

namespace TrainingService.Api.Tests.Hostile;

/// <summary>An API whose looks at files end early.</summary>
public sealed class BoundedApi : EmbeddedApi
{
    public const int Places = 1;
    public const int Waiting = 8;

    protected override IEnumerable<string> Settings => [$"--Files:LargestCheckedBytes={1 << 20}", $"--Files:ConcurrentChecks={Places}", "--Files:MostCheckedRows=5000"];
}

/// <summary>What a request may take of the API's own process, and models that no machine holds.</summary>
public sealed class HostileCheckTests(BoundedApi service) : ApiTests(service), IClassFixture<BoundedApi>
{
    [Theory]
    [InlineData("many bytes")]
    [InlineData("many rows")]
    [InlineData("blank lines")]
    public async Task A_small_file_that_expands_is_read_up_to_the_limit(string kind)
    {
        var rows = kind switch
        {
            "many bytes" => string.Concat(Enumerable.Range(0, 3000).Select(i => $"{{\"text\":\"{new string('a', 5000)}\",\"id\":{i}}}\n")),
            "many rows" => string.Concat(Enumerable.Range(0, 6000).Select(i => $"{{\"text\":\"{i}\"}}\n")),
            _ => string.Concat(Enumerable.Range(0, 10).Select(i => $"{{\"text\":\"{i}\"}}\n")) + new string('\n', 10 << 20),
        };
        var file = await UploadPacked(rows);

        var (status, answer) = await Post($"/v1/files/{file}/validate", new JsonObject());

        Assert.True(status == 200, answer.ToJsonString());
        var report = answer["report"]!;
        Assert.False((bool)report["is_complete"]!);
        Assert.Equal(0, (int)report["error_count"]!);
        Assert.InRange((int)report["train"]!["rows"]!, kind == "blank lines" ? 10 : 200, 5000);
        var warning = Assert.Single(report["warnings"]!.AsArray(), text => ((string)text!).Contains("Files:LargestCheckedBytes", StringComparison.Ordinal));
        Assert.Contains("1048576", (string)warning!, StringComparison.Ordinal);
        var spec = await Spec();
        spec["data"]!["train"] = file;
        var (estimated, estimate) = await Post("/v1/jobs/estimate", spec);
        Assert.True(estimated == 200, estimate.ToJsonString());
        Assert.Null(estimate["rows"]);
        Assert.Null(estimate["tokens"]);
        Assert.Equal(200, (await Post($"/v1/files/{file}/preview", new JsonObject())).Status);
    }

    [Fact]
    public async Task A_file_within_the_limits_is_read_to_its_end()
    {
        var (_, answer) = await Post($"/v1/files/{await UploadRows()}/validate", new JsonObject());

        Assert.True((bool)answer["report"]!["is_complete"]!);
    }

    [Fact]
    public async Task More_checks_than_places_wait_and_the_next_is_told_when_to_come_again()
    {
        var file = await UploadRows();
        var places = Service.Services.GetRequiredService<CheckPlaces>();
        using var held = await places.TakeAsync(Cancellation);
        using var away = new CancellationTokenSource();
        var waiting = Enumerable.Range(0, BoundedApi.Waiting).Select(_ => places.TakeAsync(away.Token)).ToList();
        foreach (var path in new[] { "validate", "preview" })
        {
            using var answer = await Http.PostAsync(new Uri($"/v1/files/{file}/{path}", UriKind.Relative), null, Cancellation);

            Assert.Equal(429, (int)answer.StatusCode);
            Assert.Equal("10", Assert.Single(answer.Headers.GetValues("Retry-After")));
            Assert.Equal("too_many_checks", (string?)JsonNode.Parse(await answer.Content.ReadAsStringAsync(Cancellation))!["error"]!["code"]);
        }

        await away.CancelAsync();
        foreach (var one in waiting)
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => one);
        }

        var check = Post($"/v1/files/{file}/validate");
        Assert.False(check.IsCompleted);
        held.Dispose();
        Assert.Equal(200, (await check).Status);
    }

    /// <summary>A model whose weights are absent cannot be registered, so its configuration is put where one from elsewhere would be.</summary>
    [Fact]
    public async Task A_job_that_would_take_terabytes_is_refused_by_its_estimate()
    {
        var spec = await Spec();
        var largest = JsonNode.Parse(TinyModel.Config)!.AsObject();
        foreach (var (member, value) in new[]
        {
            ("vocab_size", 1 << 24), ("hidden_size", 1 << 20), ("intermediate_size", 1 << 24), ("num_hidden_layers", 1 << 10), ("num_attention_heads", 1 << 19),
            ("num_key_value_heads", 1 << 19), ("max_position_embeddings", 1 << 30),
        })
        {
            largest[member] = value;
        }

        await using (var db = await Service.OpenAsync())
        {
            var text = largest.ToJsonString();
            await db.Models.ExecuteUpdateAsync(models => models.SetProperty(model => model.ConfigJson, text), Cancellation);
        }

        foreach (var adapter in new[] { """{"type": "full"}""", """{"type": "lora", "rank": 1, "target_modules": ["q_proj"]}""" })
        {
            spec["adapter"] = JsonNode.Parse(adapter);
            foreach (var path in new[] { "/v1/jobs/estimate", "/v1/jobs" })
            {
                var error = AssertError(await Post(path, spec), 400, "too_large", "model");

                Assert.Contains("Jobs:LargestEstimateBytes", (string)error["message"]!, StringComparison.Ordinal);
                Assert.Contains("1099511627776", (string)error["message"]!, StringComparison.Ordinal);
            }
        }

        var tuning = new JsonObject { ["model"] = (string)spec["model"]!, ["training_file"] = (string)spec["data"]!["train"]! };
        AssertError(await Post("/v1/fine_tuning/jobs", tuning), 400, "too_large", "model");
    }

    [Theory]
    [InlineData("config.json", "pipe")]
    [InlineData("model.safetensors", "socket")]
    [InlineData("tokenizer.json", "/dev/zero")]
    [InlineData("notes.txt", "pipe")]
    public async Task A_folder_with_what_is_no_file_is_not_registered(string name, string kind)
    {
        var folder = TinyModel.Write(Path.Combine(Service.Folder, $"m{Guid.NewGuid().ToString("N")[..8]}"));
        var path = Path.Combine(folder, name);
        File.Delete(path);
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        if (kind == "socket")
        {
            socket.Bind(new UnixDomainSocketEndPoint(path));
        }
        else if (kind == "pipe")
        {
            using var mkfifo = Process.Start("mkfifo", [path]);
            await mkfifo.WaitForExitAsync(Cancellation);
        }
        else
        {
            File.CreateSymbolicLink(path, kind);
        }

        var answer = await Post("/v1/models", new JsonObject { ["name"] = $"odd-{Guid.NewGuid():N}", ["path"] = folder }).WaitAsync(TimeSpan.FromSeconds(60), Cancellation);

        var error = AssertError(answer, 400, "invalid_data", name);
        Assert.Contains("give a regular file", (string)error["message"]!, StringComparison.Ordinal);
    }

    private async Task<string> UploadPacked(string text)
    {
        using var packed = new MemoryStream();
        await using (var gzip = new GZipStream(packed, CompressionLevel.Fastest))
        {
            await gzip.WriteAsync(Encoding.UTF8.GetBytes(text), Cancellation);
        }

        var (status, body) = await Upload("/v1/files", "rows.jsonl.gz", packed.ToArray(), ("purpose", "fine-tune"));
        Assert.True(status == 200, body.ToJsonString());
        return (string)body["id"]!;
    }
}
