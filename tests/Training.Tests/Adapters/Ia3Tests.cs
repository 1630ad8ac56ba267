using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Models;
using TrainingService.Training.Tests.Spec;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class Ia3Tests : AdapterContract
{
    protected override LayerAdapterConfig Config => new Ia3Config();

    [Fact]
    public void Outputs_are_scaled_by_rows_and_feed_forward_inputs_by_columns()
    {
        // l = 3 at output 2 and one elsewhere: ΔW = 2·W in row 2. In down_proj the same in column 2.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        foreach (var tensor in adapter.Trainable)
        {
            tensor.Parameter.flatten()[2] = 3;
        }

        foreach (var update in adapter.Updates)
        {
            var axis = update.Module.EndsWith("down_proj", StringComparison.Ordinal) ? 1 : 0;
            var expected = zeros_like(update.Weight);
            expected.select(axis, 2).copy_(update.Weight.select(axis, 2) * 2);
            Assert.True(update.Delta.equal(expected).all().item<bool>(), update.Module);
        }
    }

    [Fact]
    public void A_bias_of_a_scaled_output_is_scaled_and_merged_with_it()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load("qwen2");
        using var adapter = new Ia3Config { TargetModules = ModuleSelector.AllLinear }.Attach(model, seed: 1);
        foreach (var tensor in adapter.Trainable)
        {
            tensor.Parameter.add_(arange(tensor.Parameter.numel()).reshape(tensor.Parameter.shape).sin(), alpha: 0.3);
        }

        var ids = TinyModel.Batch().Ids;
        var key = model.Linears.Single(slot => slot.Name == "model.layers.0.self_attn.k_proj");
        var input = arange(3 * 64, dtype: ScalarType.Float32).reshape(3, -1).sin().narrow(1, 0, ((Linear)key.Base).weight.shape[1]);
        var factor = adapter.Trainable.Single(tensor => tensor.Name.EndsWith("layers.0.self_attn.k_proj.ia3_l", StringComparison.Ordinal)).Parameter;
        Assert.InRange(Numbers.RelativeError(key.Module.forward(input), key.Base.call(input) * factor.squeeze(1)), 0, 1e-6);

        var adapted = TinyModel.Logits(model, ids);
        adapter.MergeIntoModel();
        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), adapted), 0, 1e-5);
    }

    [Fact]
    public void It_trains_as_many_numbers_as_the_paper_counts()
    {
        // Per layer the keys (8·128), the values (8·128) and the hidden units (8192) of a Llama 3.2 3B, of 28 layers.
        Assert.Equal(28 * (1024 + 1024 + 8192), new Ia3Config().Count(SpecModels.Llama32Of3B).Total);
    }

    [Fact]
    public void Without_feed_forward_layers_a_folder_says_so_and_comes_back()
    {
        using var model = TinyModel.Load();
        using var adapter = new Ia3Config { FeedforwardModules = null }.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);

        using var other = TinyModel.Load();
        using var loaded = (AdapterConfig.Saved(folder) as Ia3Config)!.Attach(other, seed: 1);

        Assert.Contains("\"feedforward_modules\": []", File.ReadAllText(Path.Combine(folder, "adapter_config.json")), StringComparison.Ordinal);
        Assert.All(loaded.Trainable, tensor => Assert.Equal(1, tensor.Parameter.shape[1]));
    }
}
