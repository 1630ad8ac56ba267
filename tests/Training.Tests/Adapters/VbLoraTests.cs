using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class VbLoraTests : AdapterContract
{
    private static readonly VbLoraConfig Small = new() { Rank = 4, NumVectors = 24, VectorLength = 16, TopK = 3 };

    protected override LayerAdapterConfig Config => Small;

    protected override double StartError => 5e-3;   // bank and mixtures cannot be zero at once: the update is small

    protected override double LearningRate => 10;

    [Fact]
    public void A_stretch_of_a_factor_is_the_softmax_mixture_of_the_vectors_with_the_largest_logits()
    {
        // Logits 1, 3, 2 (and -9 for the rest) with k = 2 choose vectors 1 and 2 with e³ : e², 0.7310586 and 0.2689414.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = (Small with { TopK = 2, NumVectors = 5 }).Attach(model, seed: 1);
        var bank = Filled.Of(adapter, "vblora_vector_bank");
        bank.copy_(arange(bank.numel()).reshape(bank.shape));
        const string Module = "model.layers.0.mlp.up_proj";   // 96 x 64
        var (a, b) = (Filled.Of(adapter, Module + ".vblora_logits_A"), Filled.Of(adapter, Module + ".vblora_logits_B"));
        Assert.Equal([4, 4, 5], a.shape);
        Assert.Equal([6, 4, 5], b.shape);
        foreach (var logits in (Tensor[])[a, b])
        {
            logits.copy_(tensor((float[])[1, 3, 2, -9, -9]).expand(logits.shape));
        }

        var factors = adapter.Updates.Single(update => update.Module == Module).Factors!;

        // Place l of a stretch is 0.7310586·(16 + l) + 0.2689414·(32 + l) = l + 20.3030629.
        Assert.Equal(20.3030629f, factors.Right[2, 48].item<float>(), 1e-4);
        Assert.Equal(7 + 20.3030629f, factors.Right[0, 16 + 7].item<float>(), 1e-4);
        Assert.Equal(15 + 20.3030629f, factors.Left[95, 3].item<float>(), 1e-4);
    }

    [Fact]
    public void With_all_vectors_a_factor_is_the_plain_softmax_times_the_bank()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = (Small with { TopK = 24 }).Attach(model, seed: 1);
        Filled.ByFormula(adapter, 2);
        var update = adapter.Updates[0];
        var bank = Filled.Of(adapter, "vblora_vector_bank").to_type(ScalarType.Float64);
        Tensor Mixed(string name) => nn.functional.softmax(Filled.Of(adapter, update.Module + name).to_type(ScalarType.Float64), -1).matmul(bank);

        var a = Mixed(".vblora_logits_A").reshape(4, 64);
        var b = Mixed(".vblora_logits_B").permute(0, 2, 1).reshape(64, 4);   // [out/length, R, length] → outputs first

        Assert.InRange(Numbers.RelativeError(update.Delta, b.mm(a)), 0, 1e-5);
    }

    [Fact]
    public void It_trains_the_bank_once_and_the_logits_of_each_layer()
    {
        // Bank 24·16; a square layer of 64: logits 4·4·24 for each factor.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();

        var counts = (Config with { TargetModules = ModuleSelector.OfNames(["q_proj"]) }).Count(model.Config);

        Assert.Equal(24 * 16 + 3 * 2 * (4 * 4 * 24), counts.Added);
    }

    [Fact]
    public void Its_folder_has_the_keys_and_fields_of_peft()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();

        adapter.Save(folder, Card);

        Assert.Equal(
            ["base_model.vblora_vector_bank", "base_model.model.model.layers.0.self_attn.q_proj.vblora_logits_A",
             "base_model.model.model.layers.0.self_attn.q_proj.vblora_logits_B"],
            adapter.Trainable.Take(3).Select(tensor => tensor.Name));

        // The fields of VBLoRAConfig in PEFT 0.20.0, tuners/vblora/config.py, and those of its base classes.
        Assert.Equal(
            ["auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_logits_std",
             "init_vector_bank_bound", "layers_pattern", "layers_to_transform", "modules_to_save", "num_vectors", "peft_type", "peft_version", "r",
             "revision", "save_only_topk_weights", "target_modules", "task_type", "topk", "vblora_dropout", "vector_length"],
            Filled.Fields(folder).Keys.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_folder_of_the_largest_weights_alone_is_refused()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var folder = TinyModel.NewFolder();
        using (var adapter = Config.Attach(model, seed: 1))
        {
            adapter.Save(folder, Card);
        }

        Filled.SetField(folder, "save_only_topk_weights", "true");

        Assert.Contains(
            "save_only_topk_weights", Assert.Throws<TrainingException>(() => (Config with { From = folder }).Attach(model, seed: 1)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_length_that_does_not_divide_a_layer_is_refused_with_those_that_do()
    {
        var error = new VbLoraConfig { VectorLength = 48 }.Check(Spec.SpecModels.Stories260K)[0];

        Assert.Equal("adapter.vector_length", error.Path);
        Assert.Contains("choose a divisor of 4.", error.Message, StringComparison.Ordinal);   // sides of 64, 32 and 172
    }

    [Fact]
    public void A_mixture_of_more_vectors_than_there_are_is_refused() =>
        Assert.Equal("adapter.top_k", new VbLoraConfig { TopK = 3, NumVectors = 2 }.Check(Spec.SpecModels.Stories260K)[0].Path);
}
