using System.Text;
using System.Text.Json.Nodes;

namespace TrainingService.Api.Tests;

public abstract class FileCheckTests(ApiService service) : ApiTests(service)
{
    [Fact]
    public async Task A_malformed_row_is_reported_with_row_and_column()
    {
        var id = await UploadText("{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\": oops}\n");
        var (status, answer) = await Post($"/v1/files/{id}/validate", new JsonObject());
        Assert.True(status == 200, answer.ToJsonString());
        Assert.False((bool)answer["is_usable"]!);
        var error = answer["report"]!["errors"]![0]!;
        Assert.Equal(2, (int)error["row"]!);
        Assert.NotNull(error["column"]);
        Assert.Equal("malformed_json", (string?)error["code"]);
    }

    [Fact]
    public async Task Good_rows_are_counted()
    {
        var (status, answer) = await Post($"/v1/files/{await UploadRows()}/validate");
        Assert.True(status == 200, answer.ToJsonString());
        Assert.True((bool)answer["is_usable"]!);
        Assert.Equal(20, (int)answer["report"]!["train"]!["rows"]!);
        Assert.Equal("prompt_completion", (string?)answer["report"]!["train"]!["layout"]);
    }

    [Fact]
    public async Task Tokenised_rows_are_shown_with_what_carries_loss()
    {
        var id = await UploadText("{\"input_ids\":[1,2,3],\"labels\":[-100,2,3]}\n");
        var (status, answer) = await Post($"/v1/files/{id}/preview", new JsonObject { ["format"] = "tokenized" });
        Assert.True(status == 200, answer.ToJsonString());
        Assert.Equal("[1,2,3]", answer["data"]![0]!["input_ids"]!.ToJsonString());
        Assert.Equal("[0,1,1]", answer["data"]![0]!["mask"]!.ToJsonString());
    }

    [Fact]
    public async Task Files_and_models_that_do_not_exist_are_refused()
    {
        AssertError(await Post("/v1/files/file-none/validate", new JsonObject()), 404, "not_found", "id");
        AssertError(
            await Post($"/v1/files/{await UploadRows()}/validate", new JsonObject { ["model"] = "nobody" }), 400, "model_not_available", "model");
    }

    private async Task<string> UploadText(string text) =>
        (string)(await Upload("/v1/files", "rows.jsonl", Encoding.UTF8.GetBytes(text), ("purpose", "fine-tune"))).Body["id"]!;
}

public sealed class FileCheckOnEmbeddedTests(EmbeddedApi service) : FileCheckTests(service), IClassFixture<EmbeddedApi>;

public sealed class FileCheckOnProductionTests(ProductionApi service) : FileCheckTests(service), IClassFixture<ProductionApi>;
