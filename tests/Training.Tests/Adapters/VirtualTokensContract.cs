using System.Text.Json;
using System.Text.Json.Nodes;
using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Exports;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using TrainingService.Training.Spectra;
using TrainingService.Training.Tests.Models;
using TrainingService.Training.Tests.Spec;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>What every method of trained tokens before each row holds to.</summary>
public abstract class VirtualTokensContract
{
    /// <summary>Real tokens of the small model.</summary>
    protected static readonly int[] Tokens = [7, 41, 3, 200, 5];

    private static readonly ModelCard Card = new("base");
    private static readonly HashSet<int> NoStop = [];

    /// <summary>The method at its defaults but for the number of tokens.</summary>
    protected abstract VirtualTokensConfig Config { get; }

    /// <summary>Every field of PEFT's configuration, in the order of the alphabet.</summary>
    protected abstract IReadOnlyList<string> PeftFields { get; }

    /// <summary>It starts as if <see cref="Tokens"/> stood before each row.</summary>
    protected VirtualTokensConfig AsTokens => Config with { NumVirtualTokens = Tokens.Length, Init = VirtualTokenStart.Text, InitText = "t", InitTokens = Tokens };

    [Fact]
    public void Real_tokens_as_virtual_ones_give_the_logits_of_the_base_model_behind_them()
    {
        // Causal attention sees no difference between a row that begins with tokens and one that is told what its layers would see of them.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var ids = TinyModel.Batch().Ids;
        var behind = TinyModel.Logits(model, cat([Before(ids.shape[0]), ids], dim: 1)).narrow(1, Tokens.Length, ids.shape[1]);
        var plain = TinyModel.Logits(model, ids);

        using var adapter = AsTokens.Attach(model, seed: 1);

        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), behind), 0, 1e-6);
        Assert.True(Numbers.RelativeError(plain, behind) > 1e-2);   // it does not start at the base model
    }

    [Fact]
    public void Generation_goes_on_as_the_base_model_does_behind_the_tokens_for_each_prompt_alone()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        int[][] prompts = [[9, 30, 4], [17], [2, 8, 100, 101, 7]];
        var expected = prompts.Select(prompt => Generation.Greedy(model, [.. Tokens, .. prompt], 12, NoStop)).ToArray();

        using var adapter = AsTokens.Attach(model, seed: 1);

        Assert.Equal(expected, Generation.GreedyBatch(model, prompts, 12, NoStop));
        Assert.Equal(expected, prompts.Select(prompt => Generation.Greedy(model, prompt, 12, NoStop)));
        Assert.Equal(128 - Tokens.Length - 1, Generation.Greedy(model, [17], 200, NoStop).Length);   // 128 positions
    }

    [Fact]
    public void Packed_examples_equal_separate_rows()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        long[] first = [5, 9, 17, 3], second = [8, 8, 2], third = [30];
        var ids = tensor((long[])[.. first, .. second, .. third, 0, 0]).unsqueeze(0);
        var positions = tensor((long[])[0, 1, 2, 3, 0, 1, 2, 0, 0, 0]).unsqueeze(0);
        var segments = tensor((int[])[1, 1, 1, 1, 2, 2, 2, 3, 0, 0]).unsqueeze(0);

        var packed = model.Forward(ids, positions, segments)[0];

        Assert.InRange(Numbers.RelativeError(packed.narrow(0, 0, 4), Alone(first)), 0, 1e-5);
        Assert.InRange(Numbers.RelativeError(packed.narrow(0, 4, 3), Alone(second)), 0, 1e-5);
        Assert.InRange(Numbers.RelativeError(packed.narrow(0, 7, 1), Alone(third)), 0, 1e-5);
        Assert.True(packed.isfinite().all().item<bool>());

        Tensor Alone(long[] tokens) => TinyModel.Logits(model, tensor(tokens).unsqueeze(0))[0];
    }

    [Fact]
    public void The_table_alone_moves_and_lowers_the_loss_and_the_model_is_the_base_again_without_it()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var before = model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter.detach().clone());
        var (ids, labels) = TinyModel.Batch();
        var plain = TinyModel.Logits(model, ids);
        using (var adapter = Config.Attach(model, seed: 1))
        {
            var first = TinyModel.Loss(model, ids, labels).item<float>();
            var start = adapter.Trainable[0].Parameter.detach().clone();

            Step(model, adapter, steps: 3);

            Assert.InRange(TinyModel.Loss(model, ids, labels).item<float>(), 0, first - 1e-3);
            Assert.True((adapter.Trainable[0].Parameter - start).abs().amax(1).gt(0).all().item<bool>());   // every token
            Assert.Empty(adapter.Updates);
        }

        Assert.All(model.NamedWeights(), weight => Assert.True(weight.Parameter.equal(before[weight.Name]).all().item<bool>(), weight.Name));
        Assert.True(TinyModel.Logits(model, ids).equal(plain).all().item<bool>());
    }

    [Fact]
    public void It_is_saved_as_peft_saves_it_and_loaded_again()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        var ids = TinyModel.Batch().Ids;
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, steps: 2);
        var trained = TinyModel.Logits(model, ids);
        adapter.Save(folder, Card);

        using (var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors")))
        {
            var (key, table) = Assert.Single(file.Entries);
            Assert.Equal("prompt_embeddings", key);
            Assert.Equal([Config.NumVirtualTokens, Config.WidthOf(model.Config)], table.Shape);
        }

        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "adapter_config.json")));
        Assert.Equal(PeftFields, document.RootElement.EnumerateObject().Select(field => field.Name));
        Assert.Equal(Config.NumVirtualTokens, document.RootElement.GetProperty("num_virtual_tokens").GetInt32());
        Assert.Equal((3, 1), (document.RootElement.GetProperty("num_layers").GetInt32(), document.RootElement.GetProperty("num_transformer_submodules").GetInt32()));

        using var other = TinyModel.Load();
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 9);
        loaded.SetTraining(false);
        Assert.True(TinyModel.Logits(other, ids).equal(trained).all().item<bool>());
        Assert.Empty(SpectraWriter.Write(loaded, TinyModel.NewFolder()).Layers);
    }

    [Fact]
    public void A_checkpoint_goes_on_to_the_bit()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, steps: 1);
        adapter.Save(folder, Card);
        Step(model, adapter, steps: 2);

        using var other = TinyModel.Load();
        using var resumed = Config.Attach(other, seed: 1, restoring: folder);
        resumed.Load(folder);
        Step(other, resumed, steps: 2);

        Assert.True(adapter.Trainable[0].Parameter.equal(resumed.Trainable[0].Parameter).all().item<bool>());
    }

    [Theory, InlineData(VirtualTokenStart.SampleVocab), InlineData(VirtualTokenStart.Random)]
    public void A_seed_gives_the_same_start_and_another_seed_another(VirtualTokenStart start)
    {
        using var scope = NewDisposeScope();
        var (one, same, other) = (First(1), First(1), First(2));

        Assert.True(one.equal(same).all().item<bool>());
        Assert.True((one - other).abs().amax(1).gt(0).any().item<bool>());

        Tensor First(int seed)
        {
            using var model = TinyModel.Load();
            using var adapter = (Config with { Init = start }).Attach(model, seed);
            return adapter.Trainable[0].Parameter.detach().clone();
        }
    }

    [Fact]
    public void The_estimate_counts_what_trains()
    {
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);

        var counted = Assert.Single(Config.Trained(model.Config));

        Assert.Equal(adapter.Trainable[0].Parameter.shape, counted.Shape);
        Assert.Equal((adapter.Trainable[0].Role, true), (counted.Role, counted.IsAdded));
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Steps_leave_no_tensor_behind(bool recomputes)
    {
        using var model = TinyModel.Load();
        model.Checkpointing = recomputes ? ActivationCheckpointing.Full : ActivationCheckpointing.Off;
        using var adapter = Config.Attach(model, seed: 1);
        Backward();   // the first gives the table its gradient
        Backward();
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        for (var step = 0; step < 3; step++)
        {
            Backward();
        }

        Generation.Greedy(model, [1, 2], 3, NoStop);
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);

        void Backward()
        {
            using var scope = NewDisposeScope();
            var (ids, labels) = TinyModel.Batch();
            Training.Numerics.BackwardPass.OfThisThread.Run(TinyModel.Loss(model, ids, labels));
        }
    }

    [Fact]
    public void It_trains_over_bfloat16_weights_with_a_table_in_float32()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load(dtype: ScalarType.BFloat16);
        using var adapter = Config.Attach(model, seed: 1);
        var (ids, labels) = TinyModel.Batch();

        Step(model, adapter, steps: 1);

        Assert.Equal(ScalarType.BFloat16, TinyModel.Logits(model, ids).dtype);
        Assert.Equal(ScalarType.Float32, adapter.Trainable[0].Parameter.dtype);
        Assert.True(double.IsFinite(TinyModel.Loss(model, ids, labels).to_type(ScalarType.Float32).item<float>()));
    }

    [Fact]
    public void It_trains_beside_quantised_weights_and_says_how_they_were_held()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        using var model = TinyModel.Load(quantization: new Nf4Config());
        using var adapter = Config.Attach(model, seed: 1);
        var (ids, labels) = TinyModel.Batch();
        var first = TinyModel.Loss(model, ids, labels).item<float>();

        Step(model, adapter, steps: 3);
        adapter.Save(folder, Card);

        Assert.InRange(TinyModel.Loss(model, ids, labels).item<float>(), 0, first - 1e-3);
        Assert.IsType<Nf4Config>(QuantizedBase.Of(folder));
    }

    [Fact]
    public void What_has_to_become_weights_is_refused_before_anything_is_loaded_and_a_peft_export_holds()
    {
        using var scope = NewDisposeScope();
        var folder = Saved();

        foreach (var format in (string[])["merged", "lora"])
        {
            var error = Assert.Throws<TrainingException>(() => format == "merged"
                ? Exporter.Merged("no model", folder, TinyModel.NewFolder())
                : LoraExporter.Write("no model", folder, TinyModel.NewFolder(), rank: 4));
            Assert.Contains($"cannot be exported as {format}: its virtual tokens are read by the attention", error.Message, StringComparison.Ordinal);
            Assert.Equal("format", error.Param);
        }

        using var model = TinyModel.Load();
        var mixed = Assert.Throws<TrainingException>(() => new AtlasConfig { TaskVectors = [folder, folder] }.Attach(model, seed: 0));
        Assert.Contains("It changes no weights", mixed.Message, StringComparison.Ordinal);
        using (var adapter = AdapterConfig.Saved(folder).Attach(model, seed: 0))
        {
            Assert.Throws<TrainingException>(adapter.MergeIntoModel);
        }

        var report = Exporter.Peft(TinyModel.Folder(), folder, TinyModel.NewFolder());
        Assert.True(report is { RelativeError: < 1e-6, AdapterEffect: > 1e-3 });
    }

    [Fact]
    public void A_folder_of_another_method_number_or_base_is_refused_with_the_values()
    {
        using var scope = NewDisposeScope();
        var folder = Saved();
        using var model = TinyModel.Load();

        Refused(new LoraConfig { From = folder }, "adapter.type", $"was saved by {Config.Name}; set adapter.type to {Config.Name}");
        Refused(Config with { NumVirtualTokens = 9, From = folder }, "adapter.num_virtual_tokens", $"sets num_virtual_tokens to 9, the adapter in 'from' was saved with {Config.NumVirtualTokens}");

        var path = Path.Combine(folder, "adapter_config.json");
        var document = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        document["num_layers"] = 2;
        File.WriteAllText(path, document.ToJsonString());
        Refused(Config with { From = folder }, "adapter_config.json:num_layers", "sets num_layers to 2, and this model needs 3");

        void Refused(AdapterConfig config, string param, string words)
        {
            var error = Assert.Throws<TrainingException>(() => config.Attach(model, seed: 0));
            Assert.Contains(words, error.Message, StringComparison.Ordinal);
            Assert.Equal(param, error.Param);
        }
    }

    [Fact]
    public void Tokens_and_rows_must_fit_into_the_positions_of_the_model()
    {
        var spec = SpecModels.Spec("");
        spec = spec with { Adapter = Config with { NumVirtualTokens = 100 } };

        Assert.Empty(SpecChecks.AgainstModel(spec, SpecModels.Stories260K));   // the default length is lowered
        Assert.Equal(
            "data.max_length is 500, more than the 512 positions of the model less adapter.num_virtual_tokens, 100; use at most 412.",
            Assert.Single(SpecChecks.AgainstModel(spec with { Data = spec.Data with { MaxLength = 500 } }, SpecModels.Stories260K)).Message);
        var error = Assert.Single(SpecChecks.AgainstModel(spec with { Adapter = Config with { NumVirtualTokens = 512 } }, SpecModels.Stories260K));
        Assert.Equal("adapter.num_virtual_tokens", error.Path);
        Assert.Contains("use at most 510", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_text_is_what_init_text_needs_and_it_needs_a_tokenizer()
    {
        var name = Config.Name;
        Assert.Equal("adapter.init_text", Error($$"""{ "type": "{{name}}", "init": "text" }""").Path);
        Assert.Contains("set init to text", Error($$"""{ "type": "{{name}}", "init_text": "a" }""").Message, StringComparison.Ordinal);

        var error = Assert.Throws<TrainingException>(() => (Config with { Init = VirtualTokenStart.Text, InitText = "a" }).Reading(tokenizer: null));
        Assert.Contains("needs the model's tokenizer", error.Message, StringComparison.Ordinal);

        static SpecError Error(string adapter) => Assert.Single(SpecJson.Parse($$"""{"model": "m", "data": {"train": "t"}, "adapter": {{adapter}}}""").Errors);
    }

    [Fact]
    public void It_comes_back_from_a_spec()
    {
        var json = JsonSerializer.Serialize<AdapterConfig>(Config with { Init = VirtualTokenStart.Text, InitText = "Once" }, SpecJson.Options);
        var spec = SpecJson.Parse($$"""{"model": "m", "data": {"train": "t"}, "adapter": {{json}}}""");

        Assert.Empty(spec.Errors);
        Assert.Equal(json, JsonSerializer.Serialize(spec.Spec!.Adapter, SpecJson.Options));
    }

    /// <summary>A folder of the method, a little trained.</summary>
    protected string Saved()
    {
        var folder = TinyModel.NewFolder();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, steps: 1);
        adapter.Save(folder, Card);
        return folder;
    }

    private static void Step(CausalLm model, Adapter adapter, int steps)
    {
        using var scope = NewDisposeScope();
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 0.5);
        var (ids, labels) = TinyModel.Batch();
        for (var step = 0; step < steps; step++)
        {
            optimizer.zero_grad();
            TinyModel.Loss(model, ids, labels).backward();
            optimizer.step();
        }
    }

    private static Tensor Before(long rows) => tensor(Array.ConvertAll(Tokens, token => (long)token)).unsqueeze(0).expand(rows, Tokens.Length);
}
