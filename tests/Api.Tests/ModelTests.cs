using System.Formats.Tar;
using System.IO.Compression;
using System.Text;
using System.Text.Json.Nodes;

namespace TrainingService.Api.Tests;

public abstract class ModelTests(ApiService service) : ApiTests(service)
{
    [Fact]
    public async Task A_registered_folder_is_read_by_id_and_by_name()
    {
        var name = $"team/tiny-{Guid.NewGuid():N}";
        var id = await RegisterModel(name);
        foreach (var key in new[] { id, name, Uri.EscapeDataString(name) })
        {
            var (status, model) = await Get($"/v1/models/{key}");
            Assert.Equal(200, status);
            Assert.Equal(id, (string?)model["id"]);
            Assert.Equal("model", (string?)model["object"]);
            Assert.Equal("LlamaForCausalLM", (string?)model["architecture"]);
            Assert.Equal(2, model["files"]!.AsArray().Count);
        }

        Assert.Contains((await Get("/v1/models")).Body["data"]!.AsArray(), model => (string?)model!["name"] == name && (string?)model["owned_by"] == "default");
        var (_, deleted) = await Send(new HttpRequestMessage(HttpMethod.Delete, $"/v1/models/{Uri.EscapeDataString(name)}"));
        Assert.True((bool)deleted["deleted"]!);
        AssertError(await Get($"/v1/models/{id}"), 404, "not_found", "model");
    }

    [Fact]
    public async Task A_name_is_given_once()
    {
        var name = $"once-{Guid.NewGuid():N}";
        await RegisterModel(name);
        var answer = await Post("/v1/models", new JsonObject { ["name"] = name, ["path"] = Service.Folder });
        AssertError(answer, 409, "model.name_taken");
    }

    [Fact]
    public async Task A_model_that_a_waiting_job_uses_stays()
    {
        var spec = await Spec();
        var job = await CreateJob(spec);
        var model = (string)spec["model"]!;
        AssertError(await Send(new HttpRequestMessage(HttpMethod.Delete, $"/v1/models/{model}")), 409, "model_in_use", "model");
        await Post($"/v1/jobs/{job}/cancel");
        Assert.Equal(200, (await Send(new HttpRequestMessage(HttpMethod.Delete, $"/v1/models/{model}"))).Status);
    }

    [Theory]
    [InlineData("model.zip")]
    [InlineData("model.tar")]
    [InlineData("model.tar.gz")]
    public async Task An_archive_is_unpacked_and_registered(string fileName)
    {
        var archive = Pack(fileName, ("tiny/config.json", Encoding.UTF8.GetBytes(TinyModel.Config)), ("tiny/model.safetensors", TinyModel.Weights()));
        var name = $"archive-{Guid.NewGuid():N}";
        var (status, model) = await Upload("/v1/models", fileName, archive, ("name", name));
        Assert.True(status == 200, model.ToJsonString());
        Assert.Equal(["config.json", "model.safetensors"], model["files"]!.AsArray().Select(file => (string?)file!["path"]));
        Assert.Equal(200, (await Get($"/v1/models/{name}")).Status);
    }

    [Theory]
    [InlineData("model.zip")]
    [InlineData("model.tar")]
    public async Task An_archive_that_leaves_its_folder_is_refused(string fileName)
    {
        foreach (var name in new[] { "../evil.json", "/etc/evil.json", "a/../../evil.json" })
        {
            var answer = await Upload("/v1/models", fileName, Pack(fileName, (name, [1])), ("name", "evil"));
            AssertError(answer, 400, "invalid_archive", "file");
        }

        Assert.False(File.Exists(Path.Combine(Service.Folder, "evil.json")));
    }

    [Fact]
    public async Task A_link_in_an_archive_is_refused()
    {
        using var memory = new MemoryStream();
        await using (var tar = new TarWriter(memory, leaveOpen: true))
        {
            await tar.WriteEntryAsync(new PaxTarEntry(TarEntryType.SymbolicLink, "config.json") { LinkName = "/etc/passwd" }, Cancellation);
        }

        AssertError(await Upload("/v1/models", "model.tar", memory.ToArray(), ("name", "evil")), 400, "invalid_archive", "file");
    }

    [Theory]
    [InlineData("model.zip")]
    [InlineData("model.tar.gz")]
    public async Task An_archive_that_unpacks_to_too_much_is_refused(string fileName) =>
        AssertError(
            await Upload("/v1/models", fileName, Pack(fileName, ("model.safetensors", new byte[3_000_001])), ("name", "bomb")),
            413, "request_too_large", "file");

    [Fact]
    public async Task Nothing_of_a_refused_archive_stays()
    {
        await Upload("/v1/models", "model.zip", Pack("model.zip", ("config.json", [1])), ("name", "evil"));
        Assert.Empty(Directory.GetFileSystemEntries(Path.Combine(Service.Folder, "incoming"), "model-*"));
    }

    [Fact]
    public async Task A_broken_archive_is_refused() =>
        AssertError(await Upload("/v1/models", "model.zip", [1, 2, 3], ("name", "broken")), 400, "invalid_archive", "file");

    [Fact]
    public async Task A_pickle_is_refused_with_the_way_to_convert_it()
    {
        var folder = NewFolder();
        File.Delete(Path.Combine(folder, "model.safetensors"));
        File.WriteAllBytes(Path.Combine(folder, "pytorch_model.bin"), [0x80, 2]);
        var error = AssertError(await Register(folder), 400, "invalid_data", "pytorch_model.bin");
        Assert.Contains("safe_serialization=True", (string)error["message"]!, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Weights_that_are_cut_off_are_refused()
    {
        var folder = NewFolder();
        File.WriteAllBytes(Path.Combine(folder, "model.safetensors"), TinyModel.Weights()[..^1]);
        AssertError(await Register(folder), 400, "invalid_data");
    }

    [Fact]
    public async Task Weights_of_another_shape_are_refused_by_name()
    {
        var folder = NewFolder();
        File.WriteAllBytes(
            Path.Combine(folder, "model.safetensors"), TinyModel.Weights(shapes => shapes["model.norm.weight"] = [8]));
        AssertError(await Register(folder), 400, "invalid_data", "model.norm.weight");
    }

    [Fact]
    public async Task Missing_weights_are_refused_by_name()
    {
        var folder = NewFolder();
        File.WriteAllBytes(
            Path.Combine(folder, "model.safetensors"), TinyModel.Weights(shapes => shapes.Remove("lm_head.weight")));
        AssertError(await Register(folder), 400, "invalid_data", "lm_head.weight");
    }

    [Fact]
    public async Task A_configuration_that_is_not_supported_is_refused()
    {
        var folder = NewFolder();
        File.WriteAllText(Path.Combine(folder, "config.json"), TinyModel.Config.Replace("LlamaForCausalLM", "GPT2LMHeadModel", StringComparison.Ordinal));
        AssertError(await Register(folder), 400, "invalid_data");
    }

    [Fact]
    public async Task A_folder_that_is_not_there_is_refused() =>
        AssertError(await Register(Path.Combine(Service.Folder, "nowhere")), 400, "unknown_path", "path");

    private Task<(int Status, JsonNode Body)> Register(string folder) =>
        Post("/v1/models", new JsonObject { ["name"] = $"bad-{Guid.NewGuid():N}", ["path"] = folder });

    private string NewFolder() => TinyModel.Write(Path.Combine(Service.Folder, $"model-{Guid.NewGuid():N}"));

    private static byte[] Pack(string fileName, params (string Name, byte[] Content)[] entries)
    {
        using var memory = new MemoryStream();
        if (fileName.EndsWith(".zip", StringComparison.Ordinal))
        {
            using var zip = new ZipArchive(memory, ZipArchiveMode.Create, leaveOpen: true);
            foreach (var (name, content) in entries)
            {
                using var entry = zip.CreateEntry(name).Open();
                entry.Write(content);
            }

            zip.Dispose();
            return memory.ToArray();
        }

        Stream target = fileName.EndsWith(".gz", StringComparison.Ordinal) ? new GZipStream(memory, CompressionLevel.Optimal) : memory;
        using (var tar = new TarWriter(target, leaveOpen: true))
        {
            foreach (var (name, content) in entries)
            {
                tar.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = new MemoryStream(content) });
            }
        }

        if (target != memory)
        {
            target.Dispose();
        }

        return memory.ToArray();
    }
}

public sealed class ModelOnEmbeddedTests(EmbeddedApi service) : ModelTests(service), IClassFixture<EmbeddedApi>;

public sealed class ModelOnProductionTests(ProductionApi service) : ModelTests(service), IClassFixture<ProductionApi>;
