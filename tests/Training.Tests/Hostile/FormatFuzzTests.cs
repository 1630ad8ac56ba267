using System.Text;
using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Data;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>Two thousand damaged files of each format that strangers bring: each is read, or refused in our words.</summary>
public sealed class FormatFuzzTests : IDisposable
{
    private const int Rounds = 2_000;

    private readonly FastFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("rows.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Hé\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1}}}]}]}\n{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n")]
    [InlineData("rows.json", "[{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\", \"history\": [[\"x\", \"y\"]]},\n {\"instruction\": \"d\", \"input\": \"\", \"output\": \"e\"}]")]
    [InlineData("rows.csv", "prompt,completion\r\n\"a \"\"b\"\", c\",d\r\ne,\"f\ng\"\r\n")]
    [InlineData("ids.jsonl", "{\"input_ids\": [1, 2, 3, 4], \"labels\": [-100, 2, 3, 4], \"attention_mask\": [1, 1, 1, 1]}\n{\"input_ids\": [5, 6]}\n")]
    public void Rows(string name, string text)
    {
        var path = _folder.File(name);
        File.WriteAllText(_folder.File("tokenizer.json"), """{"model": {"type": "BPE", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "b": 2}, "merges": []}}""");
        var tokenizer = Tokenizer.Load(_folder.Path);
        var errors = 0;
        Fuzz(Encoding.UTF8.GetBytes(text), 1, bytes =>
        {
            File.WriteAllBytes(path, bytes);
            var report = DataSets.Validate(path, null, tokenizer, 256, use: RowUse.Answers, cancellationToken: TestContext.Current.CancellationToken);
            errors += report.ErrorCount;
            Assert.All(report.Errors, error => Assert.InRange(error.Message.Length, 5, 1100));
        });
        Assert.InRange(errors, Rounds / 5, 10 * Rounds);
    }

    [Fact]
    public void Compressed_rows()
    {
        var path = _folder.File("rows.jsonl.gz");
        var text = string.Concat(Enumerable.Range(0, 30).Select(i => $"{{\"text\": \"row {i} of a file\"}}\n"));
        Fuzz(TextFile.Gzip(Encoding.UTF8.GetBytes(text)), 2, bytes =>
        {
            File.WriteAllBytes(path, bytes);
            DataSets.Validate(path, null, null, null, use: RowUse.Answers, cancellationToken: TestContext.Current.CancellationToken);
        });
    }

    [Fact]
    public void Tokenizer_json()
    {
        const string Plain = """
            {"added_tokens": [{"id": 5, "content": "<s>", "special": true, "lstrip": true}, {"id": 6, "content": "<<", "normalized": true}],
             "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}]},
             "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [5]}}},
             "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
             "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "▁": 4}, "merges": ["a b"]}}
            """;
        Fuzz(Encoding.UTF8.GetBytes(Plain), 3, bytes => Use("tokenizer.json", bytes));
    }

    [Fact]
    public void Tokenizer_config()
    {
        const string Json = """
            {"tokenizer_class": "GPT2Tokenizer", "bos_token": {"content": "a"}, "eos_token": "b", "add_bos_token": true, "add_prefix_space": false,
             "added_tokens_decoder": {"7": {"content": "<x>", "special": true}}, "additional_special_tokens": ["a", {"content": "b"}],
             "chat_template": "{% for m in messages %}{{ m.role ~ ': ' ~ m.content | trim }}{% endfor %}"}
            """;
        File.WriteAllText(_folder.File("vocab.json"), """{"a": 0, "b": 1, "ab": 2}""");
        File.WriteAllText(_folder.File("merges.txt"), "#version: 0.2\na b\n");
        Fuzz(Encoding.UTF8.GetBytes(Json), 4, bytes => Use("tokenizer_config.json", bytes));
    }

    [Fact]
    public void SentencePiece_models()
    {
        for (var type = 1; type <= 2; type++)
        {
            Fuzz(SentencePieceBytes.Model(type), 4 + type, bytes => Use("tokenizer.model", bytes), Rounds / 2);
        }
    }

    [Fact]
    public void Model_configurations()
    {
        const string Json = """
            {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "eos_token_id": [1, 2],
             "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}
            """;
        var spec = Spec.SpecModels.Spec("");
        Fuzz(Encoding.UTF8.GetBytes(Json), 7, bytes =>
        {
            var config = ModelConfig.Parse(Encoding.UTF8.GetString(bytes));
            Assert.True(config.ParameterCount > 0);
            var estimate = Estimate.For(spec with { Adapter = new Training.Adapters.FullConfig() }, config);
            Assert.True(estimate.Memory.TotalBytes > config.ParameterCount);
        });
    }

    [Fact]
    public void Shard_indexes()
    {
        const string Json = """{"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}""";
        foreach (var (file, tensor) in new[] { ("model-1.safetensors", "a"), ("model-2.safetensors", "b") })
        {
            var header = "{\"" + tensor + "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
            File.WriteAllBytes(_folder.File(file), SafeTensorsFuzzTests.FileOf(header, 4));
        }

        Fuzz(Encoding.UTF8.GetBytes(Json), 8, bytes =>
        {
            File.WriteAllBytes(_folder.File("model.safetensors.index.json"), bytes);
            using var folder = CheckpointFolder.Open(_folder.Path);
        });
    }

    [Fact]
    public void Adapter_configurations()
    {
        var golden = SharedData.Path("golden", "peft", "lora", "adapter");
        File.Copy(Path.Combine(golden, "adapter_model.safetensors"), _folder.File("adapter_model.safetensors"));
        using var scope = NewDisposeScope();
        using var model = Adapters.TinyModel.Load();
        Fuzz(File.ReadAllBytes(Path.Combine(golden, "adapter_config.json")), 9, bytes =>
        {
            File.WriteAllBytes(_folder.File("adapter_config.json"), bytes);
            using var inner = NewDisposeScope();
            using var adapter = new Training.Adapters.LoraConfig { From = _folder.Path }.Attach(model, seed: 0);
        });
    }

    [Fact]
    public void Specs()
    {
        const string Json = """
            {"model": "m", "data": {"train": "t", "max_length": 64, "columns": {"a": "b"}}, "objective": {"type": "sft"}, "adapter": {"type": "lora", "rank": 4, "target_modules": ["q_proj"],
             "rank_pattern": {"q_.*": 2}}, "optimizer": {"type": "adamw", "learning_rate": 1e-4}, "schedule": {"epochs": 2, "batch_size": 4}, "seed": 7}
            """;
        Fuzz(Encoding.UTF8.GetBytes(Json), 10, bytes =>
        {
            var result = SpecJson.Parse(Encoding.UTF8.GetString(bytes));
            Assert.Equal(result.Spec is null, result.Errors.Count > 0);
            if (result.Spec is { Adapter: Training.Adapters.LoraConfig adapter })
            {
                LayerChecksOf(adapter);
            }
        });
    }

    [Fact]
    public void Manifests_and_checkpoint_states()
    {
        File.WriteAllText(_folder.File("a.bin"), "abc");
        const string Manifested =
            """{"files": [{"path": "a.bin", "bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "content_type": "application/octet-stream"}]}""";
        File.WriteAllText(_folder.File(Manifest.FileName), Manifested);
        Fuzz(Encoding.UTF8.GetBytes(Manifested), 11, bytes =>
        {
            File.WriteAllBytes(_folder.File(Manifest.FileName), bytes);
            Assert.True(Manifest.Verify(_folder.Path, out var problem) || problem!.Length > 5);
        });
    }

    private static void LayerChecksOf(Training.Adapters.LayerAdapterConfig config)
    {
        foreach (var error in Training.Adapters.LayerChecks.Of(config, Spec.SpecModels.Stories260K))
        {
            Assert.NotEmpty(error.Message);
        }
    }

    /// <summary>Loads the folder's tokenizer and takes a text there and back.</summary>
    private void Use(string file, byte[] content)
    {
        const string Text = "ab  A12½ <s> é💥 \uD800 b";
        File.WriteAllBytes(_folder.File(file), content);
        var tokenizer = Tokenizer.Load(_folder.Path);
        var (ids, offsets) = tokenizer.EncodeWithOffsets(Text);
        Assert.All(ids, id => Assert.InRange(id, 0, tokenizer.VocabularySize - 1));
        Assert.All(offsets, offset => Assert.True(offset.Start >= 0 && offset.Length >= 0 && offset.Start + offset.Length <= Text.Length));
        tokenizer.Decode(ids, skipSpecialTokens: false);
        tokenizer.ChatTemplate?.Render([new ChatMessage("user", "x")], addGenerationPrompt: true);
    }

    private static void Fuzz(byte[] original, int seed, Action<byte[]> use, int rounds = Rounds)
    {
        use(original);   // what is damaged is whole at first
        var mutation = new Mutation(seed);
        for (var round = 0; round < rounds; round++)
        {
            var bytes = mutation.Of(original);
            try
            {
                use(bytes);
            }
            catch (TrainingException error)
            {
                Assert.True(error.Code is FailureCode.InvalidData or FailureCode.InvalidSpec, error.Message);
                Assert.InRange(error.Message.Length, 10, 4100);
            }
            catch (Exception error) when (error is not Xunit.Sdk.XunitException)
            {
                Assert.Fail($"round {round}: {error.GetType().Name}: {error.Message}\n{error.StackTrace}\n{Encoding.UTF8.GetString(bytes)}");
            }
        }
    }
}
