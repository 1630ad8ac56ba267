using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Exports;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Runs;

/// <summary>The verbs that use a model, as a person meets them: a process with files, a line on standard error and an exit code.</summary>
public sealed class VerbTests
{
    private static string Model => SharedData.Path("golden", "models", "llama_untied");

    private static string Adapter => SharedData.Path("golden", "peft", "lora", "adapter");

    private static string Stories => SharedData.Path("data", "models", "stories260K");

    [Fact]
    public void Logits_are_written_for_a_batch_of_tokens()
    {
        using var folder = new RunFolder();
        File.WriteAllText(folder.In("tokens.json"), "[[1, 5, 9], [2, 6, 10]]");
        var (exit, errors) = Run(["logits", "--model", Model, "--tokens", folder.In("tokens.json"), "--out", folder.In("logits.safetensors")]);

        Assert.True(exit == 0, errors);
        using var file = SafeTensorsFile.Open(folder.In("logits.safetensors"));
        Assert.Equal([2, 3, 256], file.Entries["logits"].Shape);
        Assert.Equal(SafeTensorType.F32, file.Entries["logits"].DType);
    }

    [Theory]
    [InlineData("[[1, 2], [3]]")]
    [InlineData("[[1, 999]]")]
    [InlineData("{")]
    public void Tokens_that_are_no_batch_are_refused_in_one_line(string tokens)
    {
        using var folder = new RunFolder();
        File.WriteAllText(folder.In("tokens.json"), tokens);
        var (exit, errors) = Run(["logits", "--model", Model, "--tokens", folder.In("tokens.json"), "--out", folder.In("logits.safetensors")]);

        Assert.Equal(1, exit);
        Assert.Contains("error: tokens.json: ", errors);
        Assert.DoesNotContain("   at ", errors);
    }

    [Fact]
    public void Logits_with_an_adapter_are_those_of_peft()
    {
        using var folder = new RunFolder();
        using var scope = NewDisposeScope();
        using var golden = SafeTensorsFile.Open(SharedData.Path("golden", "peft", "lora", "tensors.safetensors"));
        var expected = golden.Read("logits|state0");
        var ids = Adapters.TinyModel.Batch().Ids;
        var rows = ids.data<long>().ToArray().Chunk((int)ids.shape[1]);
        File.WriteAllText(folder.In("tokens.json"), JsonSerializer.Serialize(rows));

        var (exit, errors) = Run(
            ["logits", "--model", Model, "--adapter", Adapter, "--tokens", folder.In("tokens.json"), "--out", folder.In("logits.safetensors")]);

        Assert.True(exit == 0, errors);
        using var file = SafeTensorsFile.Open(folder.In("logits.safetensors"));
        var logits = file.Read("logits");
        Assert.InRange(
            Numbers.RelativeError(logits.narrow(1, logits.shape[1] - expected.shape[1], expected.shape[1]), expected), 0, 1e-5);
    }

    [Fact]
    public void Generate_completes_prompts_in_their_order()
    {
        using var folder = new RunFolder();
        File.WriteAllText(folder.In("prompts.jsonl"), """
            {"prompt": "The dog"}

            {"prompt": "Once upon a time"}
            """);

        var (exit, errors) = Run(
            ["generate", "--model", Stories, "--prompts", folder.In("prompts.jsonl"), "--out", folder.In("out.jsonl"), "--max-new-tokens", "20"]);

        Assert.True(exit == 0, errors);
        var completions = File.ReadAllLines(folder.In("out.jsonl"))
            .Select(line => JsonDocument.Parse(line).RootElement.GetProperty("completion").GetString()!).ToArray();
        Assert.Equal(2, completions.Length);
        Assert.Equal(", there was a little girl named Lily. She loved to play outsid", completions[1]);   // greedy_20 of golden.json
    }

    [Fact]
    public void Analyze_describes_what_an_adapter_changes()
    {
        using var folder = new RunFolder();

        var (exit, errors) = Run(["analyze", "--model", Model, "--adapter", Adapter, "--out", folder.In("spectra")]);

        Assert.True(exit == 0, errors);
        using var report = JsonDocument.Parse(File.ReadAllBytes(folder.In("spectra", "spectra.json")));
        var layers = report.RootElement.GetProperty("layers").EnumerateArray().ToArray();
        Assert.Equal(21, layers.Length);   // 42 factors of rank 4
        Assert.NotEmpty(Directory.GetFiles(folder.In("spectra"), "*.svg", SearchOption.AllDirectories));
    }

    [Theory]
    [InlineData("peft", "adapter_model.safetensors", "adapter_config.json")]
    [InlineData("merged", "model.safetensors", "config.json")]
    public void Export_writes_what_it_has_compared(string format, params string[] files)
    {
        using var folder = new RunFolder();

        var (exit, errors) = Run(["export", "--model", Model, "--adapter", Adapter, "--format", format, "--out", folder.In("out")]);

        Assert.True(exit == 0, errors);
        Assert.Contains("logits differ by", errors);
        Assert.All(files, file => Assert.True(File.Exists(folder.In("out", file)), file));
        using var report = JsonDocument.Parse(File.ReadAllBytes(folder.In("out", ExportReport.FileName)));
        Assert.Equal(format, report.RootElement.GetProperty("format").GetString());
        Assert.InRange(report.RootElement.GetProperty("relative_error").GetDouble(), 0, 1e-5);
    }

    [Theory]
    [InlineData("--model", "logits", "--model", "nowhere", "--tokens", "tokens.json", "--out", "out")]
    [InlineData("--adapter", "logits", "--model", "MODEL", "--adapter", "nowhere", "--tokens", "tokens.json", "--out", "out")]
    [InlineData("tokens.json", "logits", "--model", "MODEL", "--tokens", "nowhere/tokens.json", "--out", "out")]
    [InlineData("--model", "generate", "--model", "nowhere", "--prompts", "prompts.jsonl", "--out", "out")]
    [InlineData("prompts.jsonl", "generate", "--model", "STORIES", "--prompts", "nowhere/prompts.jsonl", "--out", "out")]
    [InlineData("--model", "analyze", "--model", "nowhere", "--out", "out")]
    [InlineData("--adapter", "analyze", "--model", "MODEL", "--adapter", "nowhere", "--out", "out")]
    [InlineData("--against", "analyze", "--model", "MODEL", "--against", "nowhere", "--out", "out")]
    [InlineData("--model", "export", "--model", "nowhere", "--adapter", "ADAPTER", "--format", "peft", "--out", "out")]
    [InlineData("--adapter", "export", "--model", "MODEL", "--adapter", "nowhere", "--format", "merged", "--out", "out")]
    public void What_does_not_exist_is_named(string named, params string[] words)
    {
        var error = Refused(words);

        Assert.Contains("error: ", error);
        Assert.Contains(named, error);
        Assert.Contains("nowhere", error);
    }

    [Fact]
    public void An_unknown_format_is_answered_with_those_that_exist()
    {
        var error = Refused(["export", "--model", "MODEL", "--adapter", "ADAPTER", "--format", "gguf", "--out", "out"]);

        Assert.Contains("gguf", error);
        Assert.Contains("peft", error);
        Assert.Contains("merged", error);
    }

    [Fact]
    public void A_missing_option_is_named() => Assert.Contains("--out", Refused(["analyze", "--model", "MODEL"]));

    [Theory]
    [InlineData("{\"text\": \"a\"}", "A row needs prompt (text) or messages.")]
    [InlineData("[1]", "not a JSON object")]
    [InlineData("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "no chat template")]
    public void A_prompt_that_cannot_be_read_is_named_by_its_row(string row, string message)
    {
        var error = Refused(["generate", "--model", "STORIES", "--prompts", "prompts.jsonl", "--out", "out"], row);

        Assert.Contains("error: prompts.jsonl:2: ", error);
        Assert.Contains(message, error);
    }

    /// <summary>Runs a verb that must refuse; in its words MODEL, ADAPTER and STORIES stand for real folders.</summary>
    private static string Refused(string[] words, string secondPrompt = "{\"prompt\": \"b\"}")
    {
        using var folder = new RunFolder();
        File.WriteAllText(folder.In("tokens.json"), "[[1]]");
        File.WriteAllText(folder.In("prompts.jsonl"), "{\"prompt\": \"a\"}\n" + secondPrompt + "\n");
        var (exit, errors) = Run([.. words.Select((word, index) => word switch
        {
            "MODEL" => Model,
            "ADAPTER" => Adapter,
            "STORIES" => Stories,
            _ when index > 0 && words[index - 1] is var option && option.StartsWith("--", StringComparison.Ordinal) && option != "--format" => folder.In(word),
            _ => word,
        })]);

        Assert.Equal(1, exit);
        Assert.DoesNotContain("   at ", errors);
        Assert.False(Path.Exists(folder.In("out")));
        return errors;
    }

    private static (int Exit, string Errors) Run(string[] arguments)
    {
        var (exit, _, errors) = WorkerProcess.Run(arguments);
        return (exit, errors);
    }
}
