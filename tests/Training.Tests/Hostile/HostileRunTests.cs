using System.IO.Compression;
using System.Text;
using TrainingService.Training.Tests.Runs;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>What the verb <c>train</c> makes of files that would fill its memory, its stack or its time: one sentence, and exit code 1.</summary>
public sealed class HostileRunTests : IDisposable
{
    private const long TwoGigabytes = 2L << 30;
    private const int PartBytes = 64 << 20;

    private readonly RunFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("rows.jsonl", "{\"text\":\"", 1)]
    [InlineData("rows.json", "[{\"text\":\"a\"},{\"text\":\"", 2)]
    [InlineData("rows.csv", "text\na\n\"", 2)]
    [InlineData("rows.jsonl.gz", "{\"text\":\"", 1)]
    public async Task A_row_of_two_gigabytes_is_refused_by_its_number(string name, string before, int row)
    {
        WriteLong(_folder.In(name), before);

        var run = await MeasuredRun.OfAsync(_folder, Spec(name));

        Assert.Equal((FailureCode.InvalidData, $"data.train:{row}"), (run.Failed.Code, run.Failed.Param));
        Assert.Contains("longer than 16 MiB", run.Failed.Message, StringComparison.Ordinal);
        Assert.InRange(run.PeakBytes, 1, 600L << 20);
        Assert.InRange(run.Cpu.TotalSeconds, 0, 20);
    }

    [Theory]
    [InlineData(4 << 20, "malformed")]
    [InlineData(10_000_000, "4194304")]
    public async Task A_spec_of_millions_of_levels_is_refused(int levels, string says)
    {
        await File.WriteAllTextAsync(_folder.In("spec.json"), new string('[', levels), TestContext.Current.CancellationToken);

        var run = await MeasuredRun.OfAsync(_folder);

        Assert.Equal(FailureCode.InvalidSpec, run.Failed.Code);
        Assert.Contains(says == "malformed" ? "not JSON" : says, run.Failed.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("config.json", "{\"architectures\":")]
    [InlineData("config.json", "")]
    [InlineData("tokenizer.json", "{\"model\":")]
    [InlineData("adapter_config.json", "{\"peft_type\":")]
    [InlineData("rows.jsonl", "{\"text\":")]
    public async Task A_file_of_millions_of_levels_is_refused(string name, string before)
    {
        var golden = SharedData.Path("golden", "peft", "lora", "adapter");
        Directory.CreateDirectory(_folder.In("model"));
        foreach (var file in Directory.GetFiles(SharedData.Path("golden", "models", "llama_untied")).Concat(Directory.GetFiles(golden)))
        {
            File.CreateSymbolicLink(_folder.In("model", Path.GetFileName(file)), file);
        }

        _folder.TokenRows("rows.jsonl", 12);
        var hostile = name == "rows.jsonl" ? _folder.In(name) : _folder.In("model", name);
        File.Delete(hostile);
        await File.WriteAllTextAsync(hostile, before + new string('[', name == "rows.jsonl" ? 10_000_000 : 2_000_000), TestContext.Current.CancellationToken);
        var spec = Spec("rows.jsonl", _folder.In("model"));
        if (name == "adapter_config.json")
        {
            spec["adapter"] = new { type = "lora", from = _folder.In("model") };
        }

        var run = await MeasuredRun.OfAsync(_folder, spec);

        Assert.Equal(FailureCode.InvalidData, run.Failed.Code);
        Assert.InRange(run.Failed.Message.Length, 20, 4001);
    }

    [Theory]
    [InlineData("optimizer.learning_rate", "NaN")]
    [InlineData("optimizer.learning_rate", "1e308")]
    [InlineData("schedule.batch_size", "2147483648")]
    [InlineData("schedule.epochs", "1e400")]
    [InlineData("seed", "9223372036854775808")]
    public async Task A_number_at_its_extreme_is_refused(string path, string value)
    {
        var parts = path.Split('.');
        var spec = Spec("rows.jsonl");
        spec[parts[0]] = parts.Length == 1 ? "@here@" : new Dictionary<string, object> { ["type"] = "adamw", [parts[1]] = "@here@" };
        if (parts[0] == "schedule")
        {
            spec[parts[0]] = new Dictionary<string, object> { [parts[1]] = "@here@" };
        }

        var text = System.Text.Json.JsonSerializer.Serialize(spec).Replace("\"@here@\"", value, StringComparison.Ordinal);
        await File.WriteAllTextAsync(_folder.In("spec.json"), text, TestContext.Current.CancellationToken);

        var run = await MeasuredRun.OfAsync(_folder);

        Assert.Equal(FailureCode.InvalidSpec, run.Failed.Code);
        Assert.True(run.Failed.Param == path || value == "NaN", run.Failed.Param);   // NaN is no JSON, so it stands nowhere
    }

    /// <summary>Nothing of the model is there but its configuration, as for pretraining; no tensor is allocated before the refusal.</summary>
    [Fact]
    public async Task A_model_of_two_hundred_terabytes_is_refused_before_it_is_made()
    {
        Directory.CreateDirectory(_folder.In("model"));
        await File.WriteAllTextAsync(
            _folder.In("model", "config.json"),
            """
            {"architectures": ["LlamaForCausalLM"], "hidden_size": 131072, "intermediate_size": 1048576, "num_hidden_layers": 120, "num_attention_heads": 1024,
             "num_key_value_heads": 1024, "vocab_size": 1000000, "max_position_embeddings": 1024, "tie_word_embeddings": false}
            """,
            TestContext.Current.CancellationToken);
        _folder.TokenRows("rows.jsonl", 3);
        var spec = Spec("rows.jsonl", _folder.In("model"));
        spec["objective"] = new { type = "pretraining" };
        spec["adapter"] = new { type = "full" };

        var run = await MeasuredRun.OfAsync(_folder, spec);

        Assert.Equal((FailureCode.OutOfMemory, "model"), (run.Failed.Code, run.Failed.Param));
        Assert.Contains("smaller model", run.Failed.Message, StringComparison.Ordinal);
        Assert.InRange(run.PeakBytes, 1, 600L << 20);
    }

    private Dictionary<string, object> Spec(string rows, string? model = null) => new()
    {
        ["model"] = model ?? SharedData.Path("golden", "models", "llama_untied"),
        ["data"] = new { train = _folder.In(rows), max_length = 16 },
        ["adapter"] = new { type = "lora", rank = 4 },
        ["schedule"] = new { max_steps = 1 },
        ["spectra"] = new { enabled = false },
    };

    /// <summary>Two gigabytes behind a beginning: a hole in the file, or letters that compress to next to nothing.</summary>
    private static void WriteLong(string path, string before)
    {
        using var file = File.Create(path);
        if (!path.EndsWith(".gz", StringComparison.Ordinal))
        {
            file.Write(Encoding.UTF8.GetBytes(before));
            file.SetLength(TwoGigabytes);
            return;
        }

        file.Write(Gzip(Encoding.UTF8.GetBytes(before)));
        var part = Gzip(Enumerable.Repeat((byte)'a', PartBytes).ToArray());
        for (var written = 0L; written < TwoGigabytes; written += PartBytes)
        {
            file.Write(part);
        }

        Assert.InRange(file.Length, 1, 4 << 20);
    }

    private static byte[] Gzip(byte[] bytes)
    {
        using var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Optimal))
        {
            gzip.Write(bytes);
        }

        return packed.ToArray();
    }
}
