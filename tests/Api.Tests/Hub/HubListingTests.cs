using System.IO.Compression;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using TrainingService.Infrastructure.Hub;
using TrainingService.Tests;

namespace TrainingService.Api.Tests.Hub;

/// <summary>What a hub may say of a repository, and what of it is believed.</summary>
public sealed class HubListingTests
{
    private static readonly string Oid = new('a', 40);

    private static readonly string Sha = new('b', 64);

    [Fact]
    public async Task The_files_that_training_needs_are_pinned_to_a_commit()
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Files["pytorch_model.bin"] = [1];
        hub.Server.Files["consolidated.safetensors"] = [2];

        var repository = await hub.ReadAsync();

        Assert.Equal(HubServer.Commit, repository.Commit);
        Assert.Equal(["config.json", "model.safetensors"], repository.Files.Select(file => file.Path));
        Assert.Equal(HubServer.GitSha1(hub.Server.Files["config.json"]), repository.Files[0].GitSha1);
        Assert.Equal(HubServer.Sha256(hub.Server.Files["model.safetensors"]), repository.Files[1].Sha256);
        Assert.Equal(hub.Server.Files["model.safetensors"].Length, repository.Files[1].Bytes);
    }

    [Fact]
    public async Task A_list_of_several_pages_is_read_to_its_end()
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Listing = entries => [.. entries.Where(entry => (string)entry!["path"]! != "config.json").Select(entry => entry!.DeepClone())];
        var config = hub.Server.Files["config.json"];
        hub.Server.Bend = async context =>
        {
            if (HubServer.IsListing(context) && !context.Request.Query.ContainsKey("cursor"))
            {
                // Of the link only the query counts, wherever it leads.
                context.Response.Headers.Link = "<http://elsewhere.invalid/list?cursor=2&limit=50>; rel=\"next\"";
                return await HubServer.JsonAsync(context, $$"""[{"type":"file","path":"config.json","size":{{config.Length}},"oid":"{{HubServer.GitSha1(config)}}"}]""");
            }

            return false;
        };

        Assert.Equal(2, (await hub.ReadAsync()).Files.Count);
    }

    [Theory]
    [InlineData("../evil.json")]
    [InlineData("/etc/passwd")]
    [InlineData("a/../../evil.json")]
    [InlineData("a\\\\evil.json")]
    [InlineData("evil\\r\\n.json")]
    [InlineData("evil\\u0000.json")]
    [InlineData("a//b.json")]
    [InlineData("")]
    public Task A_path_that_leaves_the_folder_is_refused(string path) =>
        Refused($$"""[{"type":"file","path":"{{path}}","size":1,"oid":"{{Oid}}"}]""", HubFault.Invalid, "no path inside a repository");

    [Theory]
    [InlineData("-1")]
    [InlineData("9223372036854775808")]
    [InlineData("1e30")]
    [InlineData("1.5")]
    [InlineData("\"12\"")]
    [InlineData("null")]
    [InlineData("[]")]
    public async Task A_size_that_no_file_has_is_refused(string size)
    {
        await Refused($$"""[{"type":"file","path":"config.json","size":{{size}},"oid":"{{Oid}}"}]""", HubFault.Invalid, "no size");
        await Refused($$"""[{"type":"file","path":"a.safetensors","size":1,"oid":"{{Oid}}","lfs":{"oid":"{{Sha}}","size":{{size}} } }]""", HubFault.Invalid, "no size");
    }

    [Theory]
    [InlineData("""{"error":"x"}""", "no list")]
    [InlineData("null", "no list")]
    [InlineData("[1,2]", "no path")]
    [InlineData("[[[]]]", "no path")]
    [InlineData("""[{"type":"file","path":7,"size":1,"oid":"x"}]""", "no path")]
    [InlineData("""[{"type":"file","path":"\ud800","size":1,"oid":"x"}]""", "is no text")]
    [InlineData("""[{"type":"file","path":"config.json","size":1}]""", "no hash")]
    [InlineData("""[{"type":"file","path":"config.json","size":1,"oid":"XYZ"}]""", "no hash")]
    [InlineData("""[{"type":"file","path":"config.json","size":1,"oid":{"a":1}}]""", "no hash")]
    [InlineData("""[{"type":"file","path":"a.safetensors","size":1,"oid":"x","lfs":[]}]""", "no size")]
    [InlineData("""[{"type":"file","path":"a.safetensors","size":1,"oid":"x","lfs":{"size":1,"oid":"short"}}]""", "no hash")]
    [InlineData("""[{"type":"file","path":"a","path":"b","size":1,"oid":"x"}]""", "not the JSON")]
    [InlineData("[{", "not the JSON")]
    [InlineData("", "not the JSON")]
    public Task A_list_of_another_shape_is_refused(string json, string words) => Refused(json, HubFault.Invalid, words);

    [Fact]
    public Task Json_of_a_million_levels_is_refused() => Refused(new string('[', 1_000_000), HubFault.Invalid, "not the JSON");

    [Theory]
    [InlineData("CONFIG.json")]
    [InlineData("config.json")]
    public async Task A_file_that_is_listed_twice_is_refused(string again)
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Listing = entries => [.. entries.Select(entry => entry!.DeepClone()), JsonNode.Parse($$"""{"type":"file","path":"{{again}}","size":1,"oid":"{{Oid}}"}""")];
        await HubTrial.FailsAsync(HubFault.Invalid, "twice", hub.ReadAsync);
    }

    [Fact]
    public async Task Thousands_of_files_are_refused()
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Listing = _ => [.. Enumerable.Range(0, 2001).Select(i => JsonNode.Parse($$"""{"type":"file","path":"f{{i}}","size":1,"oid":"{{Oid}}"}"""))];
        await HubTrial.FailsAsync(HubFault.TooLarge, "more than 2000 files", hub.ReadAsync);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_list_without_end_is_refused(bool isLoop)
    {
        await using var hub = await HubTrial.StartAsync();
        var pages = 0;
        hub.Server.Bend = async context =>
        {
            if (!HubServer.IsListing(context))
            {
                return false;
            }

            pages++;
            context.Response.Headers.Link = $"<{context.Request.Path}?cursor={(isLoop ? 1 : pages)}>; rel=\"next\"";
            return await HubServer.JsonAsync(context, "[]");
        };
        await HubTrial.FailsAsync(HubFault.Invalid, "no end", hub.ReadAsync);
        Assert.Equal(isLoop ? 2 : 100, pages);
    }

    [Fact]
    public async Task A_packed_answer_is_not_unpacked()
    {
        await using var hub = await HubTrial.StartAsync();
        using var packed = new MemoryStream();
        await using (var gzip = new GZipStream(packed, CompressionLevel.SmallestSize, leaveOpen: true))
        {
            await gzip.WriteAsync(new byte[50_000_000]);
        }

        hub.Server.Bend = async context =>
        {
            context.Response.Headers.ContentEncoding = "gzip";
            await context.Response.Body.WriteAsync(packed.ToArray());
            return true;
        };
        await HubTrial.FailsAsync(HubFault.Invalid, "packed", hub.ReadAsync);
    }

    [Fact]
    public async Task A_page_for_people_is_not_read_as_json()
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Bend = async context =>
        {
            context.Response.ContentType = "text/html";
            await context.Response.WriteAsync("<html>Log in first</html>");
            return true;
        };
        await HubTrial.FailsAsync(HubFault.Invalid, "not the JSON", hub.ReadAsync);
    }

    [Fact]
    public async Task An_answer_of_many_megabytes_is_not_read_to_its_end()
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Bend = async context =>
        {
            var piece = Encoding.ASCII.GetBytes(new string(' ', 1 << 20));
            context.Response.ContentType = "application/json";
            while (!context.RequestAborted.IsCancellationRequested)
            {
                await context.Response.Body.WriteAsync(piece, context.RequestAborted);
            }

            return true;
        };
        await HubTrial.FailsAsync(HubFault.TooLarge, "larger than", hub.ReadAsync);
    }

    [Fact]
    public async Task An_answer_that_drips_is_given_up()
    {
        await using var hub = await HubTrial.StartAsync(options => options with { IdleSeconds = 0.3 });
        hub.Server.Bend = async context =>
        {
            context.Response.ContentType = "application/json";
            while (!context.RequestAborted.IsCancellationRequested)
            {
                await context.Response.WriteAsync(" ", context.RequestAborted);
                await context.Response.Body.FlushAsync(context.RequestAborted);
                await Task.Delay(20, context.RequestAborted);
            }

            return true;
        };
        await HubTrial.FailsAsync(HubFault.Unreachable, "stalled", hub.ReadAsync);
    }

    [Fact]
    public async Task A_hub_that_stumbles_is_asked_again()
    {
        await using var hub = await HubTrial.StartAsync();
        var left = 2;
        hub.Server.Bend = context => Task.FromResult(left-- > 0 && HubServer.Status(context, left == 1 ? 503 : 429));
        Assert.Equal(2, (await hub.ReadAsync()).Files.Count);
    }

    [Theory]
    [InlineData("config.json", "no config.json")]
    [InlineData("model.safetensors", "Python pickle alone ('pytorch_model.bin')")]
    public async Task A_repository_that_lacks_what_it_takes_says_what_to_do(string missing, string words)
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Files["pytorch_model.bin"] = [1];
        hub.Server.Files.Remove(missing);
        await HubTrial.FailsAsync(HubFault.Invalid, words, hub.ReadAsync);
    }

    [Fact]
    public async Task Files_above_the_limits_are_refused()
    {
        await using (var hub = await HubTrial.StartAsync(options => options with { LargestFileBytes = 1000 }))
        {
            await HubTrial.FailsAsync(HubFault.TooLarge, "Hub:LargestFileBytes", hub.ReadAsync);
        }

        await using (var hub = await HubTrial.StartAsync(options => options with { LargestSmallFileBytes = 100 }))
        {
            await HubTrial.FailsAsync(HubFault.TooLarge, "Hub:LargestSmallFileBytes", hub.ReadAsync);
        }

        await using (var hub = await HubTrial.StartAsync(options => options with { LargestModelBytes = 1000 }))
        {
            var repository = await hub.ReadAsync();
            await HubTrial.FailsAsync(
                HubFault.TooLarge, "Hub:LargestModelBytes", () => Task.FromResult(HubSelection.WithShards(repository, null, hub.Client.Options)));
        }
    }

    [Theory]
    [InlineData("org/tiny", true)]
    [InlineData("gpt2", true)]
    [InlineData("../etc", false)]
    [InlineData("org/../x", false)]
    [InlineData("org/tiny/more", false)]
    [InlineData("org/tiny?x=1", false)]
    [InlineData("org/tiny\n", false)]
    [InlineData("", false)]
    public void An_id_is_a_name_and_no_path(string name, bool isGood)
    {
        if (isGood)
        {
            Assert.Equal(name, HubModelId.Of(name, null).Name);
        }
        else
        {
            Assert.Throws<HubException>(() => HubModelId.Of(name, null));
        }
    }

    private static async Task Refused(string listing, HubFault fault, string words)
    {
        await using var hub = await HubTrial.StartAsync();
        hub.Server.Bend = async context => HubServer.IsListing(context) && await HubServer.JsonAsync(context, listing);
        await HubTrial.FailsAsync(fault, words, hub.ReadAsync);
    }
}
