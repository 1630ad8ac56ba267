using System.Text.Json;
using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Exports;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using TrainingService.Training.Spectra;
using TrainingService.Training.Tests.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Quantization;

[Collection(nameof(RandomNumbers))]
public class QuantizedModelTests
{
    private const string Module = "model.layers.0.self_attn.q_proj";
    private static readonly ModelCard Card = new("base");

    public static TheoryData<QuantizationConfig> Configs => [new Nf4Config(), new Int8Config()];

    [Fact]
    public void Each_weight_is_in_codes_before_the_next_one_is_read()
    {
        using var scope = NewDisposeScope();
        using var checkpoint = CheckpointFolder.Open(TinyModel.Folder());
        Tensor? last = null;
        var wasQuantised = false;
        var config = HuggingFaceFolder.ReadConfig(TinyModel.Folder());
        using var model = config.Build(
            weight =>
            {
                Assert.True(last is null || !wasQuantised || last.IsInvalid, weight.Name);
                (last, wasQuantised) = (checkpoint.Read(weight.Name), QuantizationConfig.Covers(weight));
                return last;
            },
            new Nf4Config());

        Assert.Equal(21, model.Linears.Count(slot => slot.Base is QuantizedLinear));
        Assert.Equal(
            config.Weights.Where(weight => !weight.Name.EndsWith("_proj.weight", StringComparison.Ordinal)).Select(weight => weight.Name),
            model.NamedWeights().Select(weight => weight.Name));
        Assert.Contains(model.NamedWeights(), weight => weight.Name == "lm_head.weight");
    }

    [Theory]
    [MemberData(nameof(Configs))]
    public void Logits_and_gradients_are_those_of_the_dequantised_weights(QuantizationConfig config)
    {
        using var scope = NewDisposeScope();
        var (ids, labels) = TinyModel.Batch();
        using var model = Load(config);
        using var plain = Dequantised(config);
        using var adapter = Trained(model);
        using var same = Trained(plain);

        TinyModel.Loss(model, ids, labels).backward();
        TinyModel.Loss(plain, ids, labels).backward();

        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), TinyModel.Logits(plain, ids)), 0, 1e-6);
        Assert.All(adapter.Trainable.Zip(same.Trainable), pair =>
            Assert.InRange(Numbers.RelativeError(pair.First.Parameter.grad!, pair.Second.Parameter.grad!), 0, 1e-5));
        using var untouched = TinyModel.Load();
        using var update = Trained(untouched);
        Assert.InRange(
            Numbers.RelativeError(TinyModel.Logits(model, ids), TinyModel.Logits(untouched, ids)), 1e-4, config is Nf4Config ? 1 : 0.1);
    }

    [Fact]
    public void It_trains_in_bfloat16()
    {
        using var scope = NewDisposeScope();
        var (ids, labels) = TinyModel.Batch();
        using var model = CausalLm.Load(TinyModel.Folder(), ScalarType.BFloat16, CPU, new Nf4Config());
        using var adapter = Trained(model);
        using var wide = Load(new Nf4Config());
        using var same = Trained(wide);

        TinyModel.Loss(model, ids, labels).backward();
        TinyModel.Loss(wide, ids, labels).backward();

        Assert.Equal(ScalarType.BFloat16, TinyModel.Logits(model, ids).dtype);

        // Through three layers, roundings of 2⁻⁹ each in weights, products, norms and softmax.
        Assert.All(adapter.Trainable.Zip(same.Trainable), pair =>
            Assert.InRange(Numbers.RelativeError(pair.First.Parameter.grad!, pair.Second.Parameter.grad!), 1e-6, 0.05));
    }

    [Fact]
    public void Steps_leave_nothing_behind()
    {
        using var scope = NewDisposeScope();
        var (ids, labels) = TinyModel.Batch();
        using var model = Load(new Nf4Config());
        using var adapter = Trained(model);
        Step();
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        for (var step = 0; step < 5; step++)
        {
            Step();
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);

        void Step()
        {
            using var inner = NewDisposeScope();
            TinyModel.Loss(model, ids, labels).backward();
        }
    }

    [Theory]
    [MemberData(nameof(Configs))]
    public void A_merged_model_is_the_dequantised_one_with_the_update(QuantizationConfig config)
    {
        using var scope = NewDisposeScope();
        var (folder, target) = (TinyModel.NewFolder(), Path.Combine(TinyModel.NewFolder(), "merged"));
        Tensor logits, expected;
        var ids = TinyModel.Batch().Ids;
        using (var model = Load(config))
        using (var adapter = Trained(model))
        {
            adapter.Save(folder, Card);
            logits = TinyModel.Logits(model, ids);
            expected = Adapter.Merge(adapter.Updates.Single(update => update.Module == Module));
        }

        var report = Exporter.Merged(TinyModel.Folder(), folder, target);

        Assert.InRange(report.RelativeError, 0, 1e-5);
        Assert.True(report.AdapterEffect > 1e-3);
        using var merged = CausalLm.Load(target, ScalarType.Float32, CPU);
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(merged, ids), logits), 1e-12, 1e-5);
        Assert.InRange(Numbers.RelativeError(merged.NamedWeights().Single(weight => weight.Name == Module + ".weight").Parameter, expected), 0, 1e-7);
    }

    [Fact]
    public void The_folder_says_how_the_base_was_held_and_its_configuration_stays_PEFTs()
    {
        using var scope = NewDisposeScope();
        var (folder, plain) = (TinyModel.NewFolder(), TinyModel.NewFolder());
        using (var model = Load(new Nf4Config { BlockSize = 128 }))
        using (var adapter = Trained(model))
        {
            adapter.Save(folder, Card);
        }

        using (var model = TinyModel.Load())
        using (var adapter = Trained(model))
        {
            File.Copy(Path.Combine(folder, QuantizedBase.FileName), Path.Combine(plain, QuantizedBase.FileName));
            adapter.Save(plain, Card);
        }

        Assert.Equal(new Nf4Config { BlockSize = 128 }, QuantizedBase.Of(folder));
        Assert.Null(QuantizedBase.Of(plain));
        Assert.Equal(File.ReadAllText(Path.Combine(plain, "adapter_config.json")), File.ReadAllText(Path.Combine(folder, "adapter_config.json")));
        Assert.Equal(0, Exporter.Peft(TinyModel.Folder(), folder, Path.Combine(TinyModel.NewFolder(), "peft")).RelativeError);
    }

    [Theory]
    [InlineData("null")]
    [InlineData("{")]
    [InlineData("""{ "type": "nf5" }""")]
    [InlineData("""{ "type": "nf4", "block_size": 63 }""")]
    public void A_damaged_file_is_refused(string text)
    {
        var folder = TinyModel.NewFolder();
        File.WriteAllText(Path.Combine(folder, QuantizedBase.FileName), text);

        var error = Assert.Throws<TrainingException>(() => QuantizedBase.Of(folder));

        Assert.Equal((FailureCode.InvalidData, QuantizedBase.FileName), (error.Code, error.Param));
    }

    [Fact]
    public void Spectra_are_those_of_the_dequantised_weights_and_say_so()
    {
        using var scope = NewDisposeScope();
        var (folder, saved) = (TinyModel.NewFolder(), TinyModel.NewFolder());
        using var model = Load(new Nf4Config());
        using var adapter = Trained(model);

        var report = SpectraWriter.Write(adapter, folder);
        adapter.Save(saved, Card);
        var analysed = SpectraWriter.Analyze(TinyModel.Folder(), saved, againstFolder: null, TinyModel.NewFolder());

        var weight = ((QuantizedLinear)model.Linears.Single(slot => slot.Name == Module).Base).Weight.Dequantize(ScalarType.Float32);
        Assert.Equal(weight.norm().item<float>(), report.Layers[0].Weight.FrobeniusNorm, 1e-4);
        Assert.Equal(report.Layers[0].Weight.SingularValues[0], analysed.Layers[0].Weight.SingularValues[0], 1e-6);
        using var json = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, SpectraReport.FileName)));
        Assert.Equal("nf4", json.RootElement.GetProperty("quantization").GetString());
    }

    [Fact]
    public void What_trains_in_full_cannot_be_in_codes()
    {
        using var model = Load(new Nf4Config());

        var full = Assert.Throws<TrainingException>(() => new FullConfig().Attach(model, seed: 0));
        var saved = Assert.Throws<TrainingException>(() => new LoraConfig
        {
            TargetModules = ModuleSelector.OfNames(["q_proj"]),
            ModulesToSave = ["down_proj", "lm_head"],
        }.Attach(model, seed: 0));

        Assert.Equal((FailureCode.InvalidSpec, "quantization"), (full.Code, full.Param));
        Assert.Equal((FailureCode.InvalidSpec, "adapter.modules_to_save"), (saved.Code, saved.Param));
        Assert.Contains("model.layers.0.mlp.down_proj", saved.Message, StringComparison.Ordinal);
        using var head = new LoraConfig { TargetModules = ModuleSelector.OfNames(["q_proj"]), ModulesToSave = ["lm_head"] }.Attach(model, seed: 0);
        Assert.Contains(head.Trainable, tensor => tensor.Name.EndsWith("lm_head.weight", StringComparison.Ordinal));
    }

    [Fact]
    public void A_layer_may_be_given_other_codes()
    {
        using var scope = NewDisposeScope();
        var config = new Nf4Config { DoubleQuantization = false };   // what is a value of the code book times a scale stays one
        using var model = Load(config);
        var layer = (QuantizedLinear)model.Linears[0].Base;
        var input = ones(1, 64);

        layer.Weight = config.Quantize(layer.Weight.Dequantize(ScalarType.Float32).mul(2), "twice");

        using var before = Load(config);
        Assert.InRange(Numbers.RelativeError(layer.call(input), before.Linears[0].Base.call(input) * 2), 0, 1e-6);
    }

    private static CausalLm Load(QuantizationConfig? config)
    {
        set_num_threads(1);
        return CausalLm.Load(TinyModel.Folder(), ScalarType.Float32, CPU, config);
    }

    /// <summary>The golden model with each covered weight replaced by what its codes stand for.</summary>
    private static CausalLm Dequantised(QuantizationConfig config)
    {
        var model = Load(config);
        model.Dequantize();
        Assert.All(model.Linears, slot => Assert.IsType<Training.Models.Linear>(slot.Base));
        return model;
    }

    /// <summary>LoRA on all layers whose B is not zero.</summary>
    private static Adapter Trained(CausalLm model)
    {
        var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 3);
        using var off = no_grad();
        foreach (var (_, b) in adapter.Trainable.Where(tensor => tensor.Name.EndsWith("lora_B.weight", StringComparison.Ordinal)))
        {
            using var scope = NewDisposeScope();
            b.copy_(arange(b.numel(), ScalarType.Float32).sin().mul(0.02).view(b.shape));
        }

        return adapter;
    }
}
