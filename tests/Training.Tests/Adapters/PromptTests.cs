using System.Text.Json.Nodes;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Tests.Runs;
using TrainingService.Training.Tests.Spec;
using TrainingService.Training.Throughput;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class PromptTests : VirtualTokensContract
{
    protected override VirtualTokensConfig Config => new PromptConfig { NumVirtualTokens = 4 };

    /// <summary>Of PEFT 0.20.0's PromptTuningConfig.</summary>
    protected override IReadOnlyList<string> PeftFields =>
    [
        "auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save", "num_attention_heads", "num_layers", "num_transformer_submodules",
        "num_virtual_tokens", "peft_type", "peft_version", "prompt_tuning_init", "prompt_tuning_init_text", "revision", "task_type", "token_dim",
        "tokenizer_kwargs", "tokenizer_name_or_path",
    ];

    [Fact]
    public void It_trains_one_embedding_per_virtual_token() =>
        Assert.Equal(20 * 3072, new PromptConfig().Count(SpecModels.Llama32Of3B).Total);

    [Fact]
    public void Operations_count_the_virtual_tokens_that_run_through_the_layers()
    {
        // stories260K: 5·(2·64² + 2·64·32 + 3·64·172) + 512·64 = 259,328 numbers in linear layers, attention of width 5·64. As many virtual tokens as
        // the row has double it, and every token reads twice as far.
        var spec = SpecModels.Spec("") with { Adapter = new PromptConfig { NumVirtualTokens = 64 } };

        Assert.Equal(2 * ((4.0 * 259_328) + (6 * 128 * 320)), StepOperations.PerToken(spec, SpecModels.Stories260K, length: 64));
    }

    [Fact]
    public void Sampled_tokens_are_rows_of_the_embedding()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var embedding = model.NamedWeights().Single(weight => weight.Name == "model.embed_tokens.weight").Parameter;

        var distances = (adapter.Trainable[0].Parameter.unsqueeze(1) - embedding.unsqueeze(0)).abs().amax(2);   // [P, V]

        Assert.True(distances.amin(1).eq(0).all().item<bool>());
    }

    [Fact]
    public void A_text_starts_as_the_embeddings_of_its_tokens_cut_or_repeated()
    {
        using var scope = NewDisposeScope();
        var folder = SharedData.Path("data", "models", "stories260K");
        var tokenizer = Tokenizer.Load(folder);
        var tokens = tokenizer.Encode("Once upon a time");
        using var model = CausalLm.Load(folder, ScalarType.Float32, CPU);
        var config = new PromptConfig { NumVirtualTokens = (2 * tokens.Count) - 1, Init = VirtualTokenStart.Text, InitText = "Once upon a time" };

        using var adapter = config.Reading(tokenizer).Attach(model, seed: 1);

        long[] ids = [.. tokens.Concat(tokens).SkipLast(1).Select(token => (long)token)];
        var expected = model.NamedWeights().First().Parameter.index_select(0, tensor(ids));
        Assert.Equal(1, ids[0]);   // the tokenizer's own start
        Assert.True(adapter.Trainable[0].Parameter.equal(expected).all().item<bool>());

        var saved = TinyModel.NewFolder();
        adapter.Save(saved, new ModelCard("stories"));
        var fields = JsonNode.Parse(File.ReadAllText(Path.Combine(saved, "adapter_config.json")))!;
        Assert.Equal(
            ("TEXT", "Once upon a time", "stories"),
            ((string?)fields["prompt_tuning_init"], (string?)fields["prompt_tuning_init_text"], (string?)fields["tokenizer_name_or_path"]));
        using var other = CausalLm.Load(folder, ScalarType.Float32, CPU);
        using var again = AdapterConfig.Saved(saved).Attach(other, seed: 1);
        var copy = TinyModel.NewFolder();
        again.Save(copy, new ModelCard("stories"));
        Assert.Equal(fields.ToJsonString(), JsonNode.Parse(File.ReadAllText(Path.Combine(copy, "adapter_config.json")))!.ToJsonString());
    }

    [Theory, InlineData("prompt"), InlineData("prefix")]
    public void A_run_over_packed_rows_learns_and_resumes_to_the_same_bytes(string name)
    {
        using var folder = new RunFolder();
        var adapter = name == "prompt"
            ? (VirtualTokensConfig)new PromptConfig { NumVirtualTokens = 6, Init = VirtualTokenStart.Text, InitText = "Once upon a time" }
            : new PrefixConfig { NumVirtualTokens = 6, Init = VirtualTokenStart.Text, InitText = "Once upon a time" };
        var spec = new TrainingSpec
        {
            Model = SharedData.Path("data", "models", "stories260K"),
            Data = new() { Train = folder.TokenRows("rows.jsonl", 24), MaxLength = 64 },
            Adapter = adapter,
            Optimizer = new AdamWConfig { LearningRate = 1e-2 },
            Schedule = new() { MaxSteps = 8, BatchSize = 2 },
            Checkpoints = new() { EverySteps = 3 },
        };

        folder.Run(spec);
        var losses = folder.Losses;
        var control = new RunControl();
        Assert.Throws<RunStoppedException>(() => folder.Run(spec, "stopped", control, report =>
        {
            if (report is StepReport { Step: 5 })
            {
                control.RequestCheckpointAndStop();
            }
        }));
        folder.Run(spec, "stopped");

        Assert.True(losses[^1] < losses[0] - 0.05, string.Join(' ', losses));
        Assert.Equal(
            File.ReadAllBytes(folder.In("work", "adapter", "adapter_model.safetensors")), File.ReadAllBytes(folder.In("stopped", "adapter", "adapter_model.safetensors")));
    }
}
