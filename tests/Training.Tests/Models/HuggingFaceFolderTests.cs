using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;
using static TrainingService.Training.Tests.Models.GoldenModelTests;

namespace TrainingService.Training.Tests.Models;

public class HuggingFaceFolderTests
{
    public HuggingFaceFolderTests() => set_num_threads(1);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_saved_model_comes_back_with_the_same_numbers(bool isTied)
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var model = TinyLlama.Create(("tie_word_embeddings", isTied), ("unknown_but_harmless", "kept"));

        HuggingFaceFolder.Save(model, folder.Path, copyTokenizerFrom: null);

        Assert.Equal(["config.json", "model.safetensors"], FileNames(folder));
        using var again = CausalLm.Load(folder.Path, ScalarType.Float32, CPU);
        Assert.Equal(0, Numbers.RelativeError(Logits(again), Logits(model)));
        using var file = SafeTensorsFile.Open(folder.File("model.safetensors"));
        Assert.Equal(!isTied, file.Entries.ContainsKey("lm_head.weight"));
        Assert.Equal("pt", file.Metadata["format"]);
        var config = JsonNode.Parse(File.ReadAllText(folder.File("config.json")))!;
        Assert.Equal("kept", (string?)config["unknown_but_harmless"]);
        Assert.Equal("float32", (string?)config["torch_dtype"]);
    }

    [Fact]
    public void Shards_replace_a_single_file_and_the_other_way_round()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var first = TinyLlama.Create();
        using var second = CausalLm.Create(first.Config, ScalarType.BFloat16, CPU, seed: 99);

        HuggingFaceFolder.Save(first, folder.Path, null);
        HuggingFaceFolder.Save(second, folder.Path, null, shardBytes: 4_000);

        var names = FileNames(folder);
        Assert.DoesNotContain("model.safetensors", names);
        Assert.Contains("model.safetensors.index.json", names);
        Assert.Contains("model-00001-of-00003.safetensors", names);
        using (var again = CausalLm.Load(folder.Path, ScalarType.BFloat16, CPU))
        {
            Assert.Equal(0, Numbers.RelativeError(Logits(again), Logits(second)));
        }

        using var index = JsonDocument.Parse(File.ReadAllText(folder.File("model.safetensors.index.json")));
        Assert.Equal(2 * first.Config.ParameterCount, index.RootElement.GetProperty("metadata").GetProperty("total_size").GetInt64());

        HuggingFaceFolder.Save(first, folder.Path, null);
        Assert.Equal(["config.json", "model.safetensors"], FileNames(folder));
    }

    [Fact]
    public void Tokenizer_files_travel_with_the_model()
    {
        using var folder = new TemporaryFolder();
        using var model = LoadStories();

        HuggingFaceFolder.Save(model, folder.Path, SharedData.Path("data", "models", "stories260K"));

        Assert.Equal(
            ["config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
             "tokenizer_config.json"],
            FileNames(folder));
        Assert.Equal(model.Config.ParameterCount, HuggingFaceFolder.Check(folder.Path).ParameterCount);
    }

    [Theory]
    [InlineData("embedding only")]
    [InlineData("head only")]
    [InlineData("both")]
    public void A_tied_model_loads_from_either_name(string stored)
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var model = TinyLlama.Create(("tie_word_embeddings", true));
        Rewrite(model, folder, tensors =>
        {
            var embedding = tensors["model.embed_tokens.weight"];
            if (stored == "head only")
            {
                tensors.Remove("model.embed_tokens.weight");
            }

            if (stored != "embedding only")
            {
                tensors["lm_head.weight"] = embedding;
            }
        });

        using var again = CausalLm.Load(folder.Path, ScalarType.Float32, CPU);

        Assert.Equal(0, Numbers.RelativeError(Logits(again), Logits(model)));
    }

    [Fact]
    public void A_tied_model_whose_two_tensors_differ_is_refused()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var model = TinyLlama.Create(("tie_word_embeddings", true));
        Rewrite(model, folder, tensors => tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1);

        Assert.Contains("set tie_word_embeddings to false", LoadError(folder).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Names_without_the_prefix_and_old_buffers_are_accepted()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var model = TinyLlama.Create();
        Rewrite(model, folder, tensors =>
        {
            foreach (var name in tensors.Keys.Where(name => name.StartsWith("model.", StringComparison.Ordinal)).ToArray())
            {
                tensors[name["model.".Length..]] = tensors[name];
                tensors.Remove(name);
            }

            tensors["layers.0.self_attn.rotary_emb.inv_freq"] = ones(2);
        });

        using var again = CausalLm.Load(folder.Path, ScalarType.Float32, CPU);

        Assert.Equal(0, Numbers.RelativeError(Logits(again), Logits(model)));
    }

    [Fact]
    public void Missing_and_surplus_tensors_are_counted_and_the_first_few_named()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var model = TinyLlama.Create();
        Rewrite(model, folder, tensors =>
        {
            foreach (var name in tensors.Keys.Where(name => name.Contains("layers.1", StringComparison.Ordinal)).ToArray())
            {
                tensors.Remove(name);
            }

            tensors["model.layers.0.self_attn.q_proj.bias"] = zeros(16);
        });

        var error = LoadError(folder);

        Assert.Contains("9 missing (model.layers.1.input_layernorm.weight, ", error.Message, StringComparison.Ordinal);
        Assert.Contains(", …), 1 surplus (model.layers.0.self_attn.q_proj.bias)", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_head_says_how_to_tie_it()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var model = TinyLlama.Create();
        Rewrite(model, folder, tensors => tensors.Remove("lm_head.weight"));

        Assert.Contains("set tie_word_embeddings to true", LoadError(folder).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_wrong_shape_and_a_quantised_format_are_named()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var model = TinyLlama.Create();

        Rewrite(model, folder, tensors => tensors["model.norm.weight"] = ones(17));
        Assert.Contains("model.norm.weight has the shape [17], and config.json means [16]", LoadError(folder).Message, StringComparison.Ordinal);

        Rewrite(model, folder, tensors => tensors["model.norm.weight"] = ones(16).to(ScalarType.Int8));
        Assert.Contains("model.norm.weight holds I8", LoadError(folder).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_without_a_configuration_is_named()
    {
        using var folder = new TemporaryFolder();

        Assert.Equal("config.json", LoadError(folder).Param);
    }

    private static TrainingException LoadError(TemporaryFolder folder)
    {
        var error = Assert.Throws<TrainingException>(() => CausalLm.Load(folder.Path, ScalarType.Float32, CPU));
        Assert.Equal(FailureCode.InvalidData, error.Code);
        return error;
    }

    private static void Rewrite(CausalLm model, TemporaryFolder folder, Action<Dictionary<string, Tensor>> change)
    {
        HuggingFaceFolder.Save(model, folder.Path, null);
        var tensors = model.NamedWeights().ToDictionary(weight => weight.Name, weight => (Tensor)weight.Parameter);
        change(tensors);
        SafeTensorsWriter.Write(folder.File("model.safetensors"), [.. tensors.Select(pair => (pair.Key, pair.Value))]);
    }

    private static Tensor Logits(CausalLm model) => model.Forward(Matrix([[3, 1, 4, 1, 5]]), Positions(1, 5));

    private static string[] FileNames(TemporaryFolder folder) =>
        [.. Directory.GetFiles(folder.Path).Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal)];
}
