using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace TrainingService.Api.Tests.Hostile;

/// <summary>Bodies, names and addresses that nobody sends by mistake: each is answered in our words, and never as a failure of ours.</summary>
public abstract class HostileRequestTests(ApiService service) : ApiTests(service)
{
    private static readonly string[] Texts =
    [
        "\"\\u0000\"", "\"\\ud800\"", "\"a\\u0000b\"", "\"../../etc/passwd\"", "\"/etc/passwd\"", "\"..%2f..%2fetc\"", "\"a\\r\\nX-Evil: 1\"", "\"\\u202Egnp.exe\"",
        "\"" + new string('x', 5000) + "\"", "\"'; DROP TABLE jobs; --\"", "\"\"", "\" \"", "\"%00\"", "\"\\\\\"",
    ];

    private static readonly string[] Numbers =
    [
        "NaN", "\"NaN\"", "1e308", "-1e308", "1e-320", "1e400", "9223372036854775808", "2147483648", "-0", "1.5", "-1", new('9', 100), "[]", "{}", "null", "true",
    ];

    [Fact]
    public async Task Every_member_of_every_body_at_every_extreme()
    {
        var spec = await Spec();
        var file = (string)spec["data"]!["train"]!;
        spec["name"] = "n";
        spec["metadata"] = new JsonObject { ["k"] = "v" };
        spec["seed"] = 1;
        spec["adapter"] = JsonNode.Parse("""{"type": "lora", "rank": 2, "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 1}}""");
        spec["optimizer"] = JsonNode.Parse("""{"type": "adamw", "learning_rate": 1e-4, "betas": [0.9, 0.999]}""");
        var tuning = new JsonObject
        {
            ["model"] = (string)spec["model"]!,
            ["training_file"] = file,
            ["suffix"] = "s",
            ["seed"] = 1,
            ["metadata"] = new JsonObject { ["k"] = "v" },
            ["hyperparameters"] = JsonNode.Parse("""{"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1}"""),
        };
        var checks = JsonNode.Parse("""{"model": "m", "max_length": 16, "columns": {"a": "b"}, "format": "text"}""")!.AsObject();
        checks["model"] = (string)spec["model"]!;
        foreach (var (path, body) in new (string, JsonObject)[]
        {
            ("/v1/jobs/estimate", spec), ("/v1/jobs", spec), ("/v1/fine_tuning/jobs", tuning), ($"/v1/files/{file}/validate", checks),
            ($"/v1/files/{file}/preview", checks), ("/v1/models", new JsonObject { ["name"] = "n", ["path"] = Service.Folder }),
        })
        {
            foreach (var (member, isText) in Members(body, ""))
            {
                // What a database makes of texts differs; numbers are judged before it.
                foreach (var value in isText ? Texts : Service is EmbeddedApi ? Numbers : Numbers[..2])
                {
                    await Answered(path, With(body, member, value), $"{path} {member} = {value}");
                }
            }
        }
    }

    [Fact]
    public async Task Names_of_members_at_every_extreme()
    {
        foreach (var path in new[] { "/v1/jobs", "/v1/jobs/estimate", "/v1/fine_tuning/jobs", "/v1/files/file-x/validate", "/v1/models" })
        {
            foreach (var name in Texts.Where(text => text.Length > 2))
            {
                await Answered(path, "{" + name + ": 1, \"metadata\": {" + name + ": " + name + "}, \"adapter\": {\"type\": \"lora\", \"rank_pattern\": {" + name + ": 1}}}", name);
                await Answered(path, "{" + name + ": 1, " + name + ": 2}", name);
            }
        }
    }

    [Theory]
    [InlineData("/v1/jobs")]
    [InlineData("/v1/jobs/estimate")]
    [InlineData("/v1/fine_tuning/jobs")]
    [InlineData("/v1/models")]
    [InlineData("/v1/files/file-x/validate")]
    [InlineData("/v1/files/file-x/preview")]
    public async Task Bodies_of_ten_million_levels(string path)
    {
        foreach (var body in new[] { new string('[', 10_000_000), "{\"metadata\":" + new string('[', 500_000), string.Concat(Enumerable.Repeat("{\"a\":", 100_000)), "{\"adapter\":" + new string('[', 60) + new string(']', 60) + "}" })
        {
            var (status, answer) = await Json(path, body);
            Assert.True(status is 400 or 404 or 413, $"{status}: {answer.ToJsonString()}");
            Assert.NotNull((string?)answer["error"]!["message"]);
        }

        Assert.Equal(200, (await Get("/v1/models")).Status);
    }

    [Theory]
    [InlineData(new byte[] { 0xFF, 0xFE, 0x7B, 0x00, 0x7D, 0x00 })]
    [InlineData(new byte[] { 0x7B, 0x22, 0xC3, 0x28, 0x22, 0x3A, 0x31, 0x7D })]
    [InlineData(new byte[] { 0x00 })]
    [InlineData(new byte[0])]
    public async Task Bodies_that_are_no_text(byte[] body)
    {
        foreach (var path in new[] { "/v1/jobs", "/v1/jobs/estimate", "/v1/fine_tuning/jobs", "/v1/models", "/v1/files/file-x/validate" })
        {
            using var content = new ByteArrayContent(body);
            content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
            var (status, answer) = await Send(new HttpRequestMessage(HttpMethod.Post, path) { Content = content });
            Assert.True(status is 400 or 404, $"{path}: {status} {answer.ToJsonString()}");
        }
    }

    [Fact]
    public async Task Addresses_that_reach_out()
    {
        var job = await CreateJob();
        string[] hostile =
        [
            "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%252e%252e%252fetc", "..%5c..%5cetc", "%00", "%2500", "a%2500b", "a%0d%0aX-Evil:%201", "%ff%fe", "%ed%a0%80",
            "a%22b", "%e2%80%ae", new string('a', 4000), "%2fetc%2fpasswd", "....%2f%2f", "C:%5cWindows", "~", "%7e%2f.ssh", ";ls", "*", "?x=%00",
        ];
        string[] places =
        [
            "/v1/files/{0}", "/v1/files/{0}/content", "/v1/models/{0}", "/v1/methods/{0}", "/v1/jobs/{0}", "/v1/jobs/{0}/events", "/v1/fine_tuning/jobs/{0}",
            "/v1/jobs/" + job + "/artifacts/{0}", "/v1/files?after={0}", "/v1/files?purpose={0}", "/v1/jobs?after={0}", "/v1/jobs?status={0}", "/v1/jobs?metadata[k]={0}", "/v1/jobs?metadata[{0}]=v",
            "/v1/jobs?limit={0}", "/v1/fine_tuning/jobs?after={0}", "/v1/fine_tuning/jobs?metadata[k]={0}", "/v1/jobs/" + job + "/metrics?names={0}", "/v1/jobs/" + job + "/events?after={0}", "/{0}", "/dashboard/{0}", "/swagger/{0}",
        ];
        foreach (var place in places)
        {
            foreach (var name in hostile)
            {
                var answer = await Raw($"GET {string.Format(System.Globalization.CultureInfo.InvariantCulture, place, name)} HTTP/1.1");
                Assert.True(answer.StartsWith("HTTP/1.1 2", StringComparison.Ordinal) || answer.StartsWith("HTTP/1.1 4", StringComparison.Ordinal)
                    || answer.StartsWith("HTTP/1.1 3", StringComparison.Ordinal), $"{place} {name}: {answer[..Math.Min(400, answer.Length)]}");
                Assert.DoesNotContain("root:x:", answer, StringComparison.Ordinal);
                Assert.DoesNotContain("\r\nX-Evil", answer, StringComparison.OrdinalIgnoreCase);
            }
        }
    }

    [Fact]
    public async Task Headers_with_what_no_header_holds()
    {
        foreach (var header in new[] { "Idempotency-Key: " + new string('k', 5000), "Idempotency-Key: \u00ff\u00fe", "Idempotency-Key: a\tb", "Authorization: Bearer \u00e9", "Range: bytes=9223372036854775807-", "Range: bytes=-0", "Last-Event-ID: 99999999999999999999" })
        {
            foreach (var line in new[] { "POST /v1/jobs HTTP/1.1", "GET /v1/files HTTP/1.1" })
            {
                var answer = await Raw(line, header + "\r\nContent-Type: application/json\r\nContent-Length: 2", "{}");
                Assert.Matches("^HTTP/1.1 [24]", answer);
            }
        }
    }

    public static TheoryData<string> FileNames =>
    [
        "../../evil.jsonl", "/etc/evil.jsonl", "..\\..\\evil.jsonl", "..", ".", "", " ", "a\"; filename=\"b.jsonl", "a\\\"b.jsonl", "%2e%2e%2fevil.jsonl", "a%0d%0aX-Evil: 1.jsonl",
        "\u202Elnosj.exe.jsonl", "💥💥.jsonl", new string('n', 4096) + ".jsonl", string.Concat(Enumerable.Repeat("💥", 300)) + ".jsonl", "con.jsonl", "a;b=c.jsonl", "é.jsonl", "a\u0001b.jsonl", "a\u2028b.jsonl",
    ];

    [Theory]
    [MemberData(nameof(FileNames))]
    public async Task A_file_of_any_name_is_kept_under_a_plain_one(string name)
    {
        // By hand: a client's library would not send some of these.
        var body = "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--b\r\n"
            + $"Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{{\"text\":\"a\"}}\n\r\n--b--\r\n";
        using var content = new ByteArrayContent(Encoding.UTF8.GetBytes(body));
        content.Headers.TryAddWithoutValidation("Content-Type", "multipart/form-data; boundary=b");
        var (status, answer) = await Send(new HttpRequestMessage(HttpMethod.Post, "/v1/files") { Content = content });
        if (status == 400)
        {
            return;
        }

        Assert.True(status == 200, answer.ToJsonString());
        var stored = (string)answer["filename"]!;
        Assert.InRange(stored.Length, 1, 255);
        Assert.DoesNotContain(stored, letter => char.IsControl(letter) || letter is '/' or '\\' or '\u202E');
        using var download = await Http.GetAsync(new Uri($"/v1/files/{answer["id"]}/content", UriKind.Relative), Cancellation);
        Assert.True(download.IsSuccessStatusCode, $"{download.StatusCode}");
        Assert.False(download.Headers.Contains("X-Evil"));
        Assert.Equal(200, (await Post($"/v1/files/{answer["id"]}/validate", new JsonObject())).Status);
        Assert.Empty(Directory.GetFileSystemEntries(Service.Folder, "*evil*", SearchOption.AllDirectories));
    }

    [Fact]
    public async Task A_model_that_would_take_terabytes_is_refused_before_anything_is_allocated()
    {
        foreach (var (member, value) in new[]
        {
            ("hidden_size", "1000000000"), ("num_hidden_layers", "1000000"), ("vocab_size", "2147483648"), ("vocab_size", "2147483647"), ("head_dim", "1000000"), ("intermediate_size", "1e18"),
            ("num_attention_heads", "0"), ("num_key_value_heads", "-1"), ("max_position_embeddings", "9223372036854775807"), ("rope_theta", "NaN"), ("rope_theta", "1e400"), ("rope_theta", "-1"),
            ("rope_scaling", """{"rope_type":"linear","factor":1e308}"""), ("rope_scaling", """{"rope_type":"linear","factor":0}"""), ("rms_norm_eps", "1e308"), ("initializer_range", "\"NaN\""),
        })
        {
            var folder = TinyModel.Write(Path.Combine(Service.Folder, $"model-{Guid.NewGuid():N}"));
            var config = JsonNode.Parse(await File.ReadAllTextAsync(Path.Combine(folder, "config.json"), Cancellation))!.AsObject();
            config[member] = "@";
            await File.WriteAllTextAsync(
                Path.Combine(folder, "config.json"), config.ToJsonString().Replace("\"@\"", value, StringComparison.Ordinal), Cancellation);

            var (status, answer) = await Post("/v1/models", new JsonObject { ["name"] = $"big-{Guid.NewGuid():N}", ["path"] = folder });

            Assert.True(status == 400, $"{member} = {value}: {status} {answer.ToJsonString()}");
            Assert.Equal("invalid_data", (string?)answer["error"]!["code"]);
        }
    }

    private async Task Answered(string path, string body, string what)
    {
        var (status, answer) = await Json(path, body);
        Assert.True(status is >= 200 and < 500, $"{what}: {status} {answer.ToJsonString()}");
        if (status >= 400)
        {
            Assert.InRange(((string)answer["error"]!["message"]!).Length, 5, 4001);
        }
        else if (path.EndsWith("estimate", StringComparison.Ordinal))
        {
            Assert.InRange((long)answer["memory"]!["total_bytes"]!, 1, 1L << 60);
        }
    }

    private Task<(int Status, JsonNode Body)> Json(string path, string body) => Send(new HttpRequestMessage(HttpMethod.Post, path)
    {
        Content = new StringContent(body, Encoding.UTF8, "application/json"),
    });

    private static IEnumerable<(string Path, bool IsText)> Members(JsonNode node, string path)
    {
        foreach (var (name, value) in node.AsObject())
        {
            var here = path.Length == 0 ? name : $"{path}.{name}";
            if (value is JsonObject inner)
            {
                foreach (var found in Members(inner, here))
                {
                    yield return found;
                }
            }
            else
            {
                yield return (here, value is not JsonArray && value!.GetValueKind() == JsonValueKind.String);
            }
        }
    }

    private static string With(JsonObject body, string path, string value)
    {
        var copy = body.DeepClone().AsObject();
        var parts = path.Split('.');
        parts[..^1].Aggregate(copy, (node, name) => node[name]!.AsObject())[parts[^1]] = "@here@";
        return copy.ToJsonString().Replace("\"@here@\"", value, StringComparison.Ordinal);
    }

    /// <summary>Sends a request as it is written, which no library of ours would.</summary>
    private async Task<string> Raw(string line, string headers = "Accept: */*", string body = "")
    {
        var address = Http.BaseAddress!;
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, address.Port, Cancellation);
        await using var stream = client.GetStream();
        await stream.WriteAsync(Encoding.Latin1.GetBytes($"{line}\r\nHost: {address.Authority}\r\nConnection: close\r\n{headers}\r\n\r\n{body}"), Cancellation);
        using var reader = new StreamReader(stream, Encoding.Latin1);
        var buffer = new char[4096];
        return new string(buffer, 0, await reader.ReadBlockAsync(buffer, Cancellation));
    }
}

public sealed class HostileEmbeddedTests(EmbeddedApi service) : HostileRequestTests(service), IClassFixture<EmbeddedApi>;

public sealed class HostileProductionTests(ProductionApi service) : HostileRequestTests(service), IClassFixture<ProductionApi>;
