using System.Net.Http.Headers;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.DependencyInjection;

namespace TrainingService.Api.Tests;

public sealed class ServiceTests(EmbeddedApi service) : ApiTests(service), IClassFixture<EmbeddedApi>
{
    [Theory]
    [InlineData("/v1/jobs", "post")]
    [InlineData("/v1/fine_tuning/jobs", "post")]
    public async Task The_example_of_the_document_works_as_it_stands(string path, string method)
    {
        await RegisterModel();
        await UploadRows();
        var (_, document) = await Get("/openapi/v1.json");
        var content = document["paths"]![path]![method]!["requestBody"]!["content"]!["application/json"]!;
        Assert.Contains("#/components/schemas/", (string)content["schema"]!["$ref"]!, StringComparison.Ordinal);
        var (status, job) = await Post(path, content["example"]!.DeepClone());
        Assert.True(status is 200 or 201, job.ToJsonString());
    }

    [Fact]
    public async Task Every_member_of_the_spec_is_described_in_the_document()
    {
        var (_, document) = await Get("/openapi/v1.json");
        var schemas = document["components"]!["schemas"]!;
        var members = schemas["TrainingSpec"]!["properties"]!.AsObject();
        Assert.True(members.Count > 8);
        Assert.All(members, member => Assert.NotNull(member.Value!["description"]));
        Assert.Contains("\"lora\"", schemas["TrainingSpec"]!["properties"]!["adapter"]!.ToJsonString(), StringComparison.Ordinal);
        Assert.All(
            document["paths"]!.AsObject().SelectMany(path => path.Value!.AsObject()), operation => Assert.NotNull(operation.Value!["summary"]));
    }

    [Fact]
    public async Task Pages_and_health_are_served()
    {
        Assert.Contains("TrainingService", await Http.GetStringAsync("/", Cancellation), StringComparison.Ordinal);
        Assert.Contains("swagger", await Http.GetStringAsync("/swagger/index.html", Cancellation), StringComparison.Ordinal);
        Assert.Equal(200, (await Get("/health/live")).Status);
        var (_, ready) = await Get("/health/ready");
        Assert.Equal("healthy", (string?)ready["checks"]!["database"]!["status"]);
    }

    [Fact]
    public async Task A_page_of_another_origin_or_name_is_not_served()
    {
        var foreign = new HttpRequestMessage(HttpMethod.Get, "/v1/jobs");
        foreign.Headers.Add("Origin", "https://example.com");
        AssertError(await Send(foreign), 401, "invalid_api_key");
        var renamed = new HttpRequestMessage(HttpMethod.Get, "/v1/jobs");
        renamed.Headers.Host = "example.com";
        AssertError(await Send(renamed), 401, "invalid_api_key");
    }

    [Theory]
    [InlineData("--urls=http://0.0.0.0:0")]
    [InlineData("--urls=http://*:0")]
    [InlineData("--http_ports=0")]
    [InlineData("--Kestrel:Endpoints:Http:Url=http://[::]:0")]
    public void An_address_for_others_is_not_opened_without_a_key(string address)
    {
        var error = Assert.Throws<InvalidOperationException>(() => ApiApplication.Build([address, $"--DataFolder={Service.Folder}"]));
        Assert.Contains("Auth__ApiKey", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Where_a_key_is_set_it_is_demanded()
    {
        var folder = Directory.CreateTempSubdirectory("training-api-key-");
        await using (var app = ApiApplication.Build(
            ["--urls=http://127.0.0.1:0", $"--DataFolder={folder.FullName}", "--Auth:ApiKey=secret", "--Worker:Enabled=false"]))
        {
            await app.StartAsync(Cancellation);
            var address = app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First();
            using var http = new HttpClient { BaseAddress = new Uri(address) };
            foreach (var (key, status) in new (string?, int)[] { (null, 401), ("wrong", 401), ("secret", 200) })
            {
                http.DefaultRequestHeaders.Authorization = key is null ? null : new AuthenticationHeaderValue("Bearer", key);
                using var answer = await http.GetAsync(new Uri("/v1/jobs", UriKind.Relative), Cancellation);
                Assert.Equal(status, (int)answer.StatusCode);
                var body = JsonNode.Parse(await answer.Content.ReadAsStringAsync(Cancellation))!;
                Assert.Equal(status == 401 ? "invalid_api_key" : null, (string?)body["error"]?["code"]);
            }

            http.DefaultRequestHeaders.Authorization = null;
            Assert.Equal(200, (int)(await http.GetAsync(new Uri("/health/live", UriKind.Relative), Cancellation)).StatusCode);
            var document = await http.GetStringAsync(new Uri("/openapi/v1.json", UriKind.Relative), Cancellation);
            Assert.Contains("mdl_…", document, StringComparison.Ordinal);
            await app.StopAsync(Cancellation);
        }

        folder.Delete(recursive: true);
    }
}
