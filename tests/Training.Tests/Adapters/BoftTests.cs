using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tests.Models;
using TrainingService.Training.Tests.Spec;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class BoftTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new BoftConfig { BlockSize = 8, ButterflyFactors = 3 };

    [Fact]
    public void Orders_put_the_even_half_blocks_of_a_group_before_the_odd_ones()
    {
        // Blocks of 4 are two units of 2. The second factor has groups of 8 = 4 units: 0 2 1 3. The third has groups of 16: 0 2 4 6 1 3 5 7.
        Assert.Equal([0, 1, 2, 3, 4, 5, 6, 7], BoftLinear.Order(8, 4, 0));
        Assert.Equal([0, 1, 4, 5, 2, 3, 6, 7], BoftLinear.Order(8, 4, 1));
        Assert.Equal([0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15], BoftLinear.Order(16, 4, 2));
    }

    [Fact]
    public void The_merged_matrix_is_the_product_of_the_factors_written_out()
    {
        // W'ᵀ = B₃·B₂·B₁·Wᵀ, rows scaled by s, with B = P·diag(R)·Pᵀ and P[i, order[i]] = 1.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Filled(model);
        var (blocks, magnitude, update) = (adapter.Trainable[0].Parameter, adapter.Trainable[1].Parameter, adapter.Updates[0]);
        var product = eye(64);
        for (var factor = 0; factor < 3; factor++)
        {
            var rotation = zeros(64, 64);
            for (var block = 0; block < 8; block++)
            {
                var skew = (blocks[factor, block] - blocks[factor, block].t()) / 2;
                rotation.narrow(0, 8 * block, 8).narrow(1, 8 * block, 8).copy_((eye(8) - skew).mm(linalg.inv(eye(8) + skew)));
            }

            var order = eye(64).index_select(0, tensor(BoftLinear.Order(64, 8, factor)));
            product = order.mm(rotation).mm(order.t()).mm(product);
        }

        Assert.InRange(Numbers.RelativeError(product.mm(product.t()), eye(64)), 0, 1e-5);
        Assert.InRange(Numbers.RelativeError(Adapter.Merge(update), product.mm(update.Weight.t()).t() * magnitude), 0, 1e-5);
    }

    [Fact]
    public void Without_the_scale_it_keeps_singular_values_and_angles()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Filled(model);
        foreach (var scale in adapter.Trainable.Where(tensor => tensor.Name.EndsWith("boft_s", StringComparison.Ordinal)))
        {
            scale.Parameter.fill_(1);
        }

        Assert.All(adapter.Updates, OrthogonalMethods.KeepsSpectrumAndAngles);
    }

    [Theory]
    [InlineData(1, 64 * 2)]
    [InlineData(3, 64 * 8)]
    [InlineData(6, 64 * 64)]
    public void Every_factor_doubles_what_an_input_reaches(int factors, long reached)
    {
        // Blocks of 2, each a rotation with cosine 0.6: after log₂ 64 = 6 factors of 32 blocks every input meets every other, by at least 0.6⁶ = 0.047.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new BoftConfig { BlockSize = 2, ButterflyFactors = factors, TargetModules = ModuleSelector.OfNames(["q_proj"]) }.Attach(model, seed: 1);
        var (blocks, update) = (adapter.Trainable[0].Parameter, adapter.Updates[0]);
        blocks.zero_();
        blocks.select(2, 0).select(2, 1).fill_(1);

        var rotation = linalg.inv(update.Weight.to_type(ScalarType.Float64)).mm(Adapter.Merge(update).to_type(ScalarType.Float64));   // W' = W·R

        Assert.Equal(reached, rotation.abs().gt(0.01).sum().item<long>());
        Assert.Equal(128 * factors, blocks.numel());
    }

    [Fact]
    public void A_bias_is_not_scaled()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load("qwen2");
        using var adapter = Filled(model, new BoftConfig());
        var ids = TinyModel.Batch().Ids;
        var adapted = TinyModel.Logits(model, ids);

        adapter.MergeIntoModel();

        Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), adapted), 0, 1e-5);
    }

    [Fact]
    public void The_permutations_that_peft_saves_are_passed_over()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        var path = Path.Combine(folder, "adapter_model.safetensors");
        List<(string, Tensor)> tensors;
        using (var file = SafeTensorsFile.Open(path))
        {
            tensors = [.. file.Entries.Keys.Select(key => (key, file.Read(key))), ("base_model.model.model.layers.0.self_attn.q_proj.boft_P", ones(3, 64, 64))];
        }

        SafeTensorsWriter.Write(path, tensors, new Dictionary<string, string> { ["format"] = "pt" });
        using var other = TinyModel.Load();
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 1);

        Assert.Equal(adapter.Trainable.Count, loaded.Trainable.Count);
    }

    [Fact]
    public void The_counts_are_those_of_square_blocks_and_a_scale_for_each_output()
    {
        // q_proj and v_proj of a Llama 3.2 3B: 28 layers; 2 factors of 768 blocks of 4·4 each; 3072 and 1024 outputs.
        var config = new BoftConfig { ButterflyFactors = 2, TargetModules = ModuleSelector.OfNames(["q_proj", "v_proj"]) };

        Assert.Equal(28 * (2 * 2 * 768 * 16 + 3072 + 1024), config.Count(SpecModels.Llama32Of3B).Total);
    }

    [Theory]
    [InlineData(8, 1, "block_size")]          // 172 inputs are no multiple of 8
    [InlineData(4, 2, "butterfly_factors")]   // nor of 8 again
    [InlineData(43, 2, "block_size")]         // no halves
    public void Sizes_that_do_not_fit_are_refused(int size, int factors, string member) => Assert.Equal(
        "adapter." + member, new BoftConfig { BlockSize = size, ButterflyFactors = factors }.Check(SpecModels.Stories260K)[0].Path);

    private Adapter Filled(Training.Models.CausalLm model, BoftConfig? config = null)
    {
        var adapter = (config ?? Config).Attach(model, seed: 1);
        foreach (var tensor in adapter.Trainable)
        {
            tensor.Parameter.add_(arange(tensor.Parameter.numel()).reshape(tensor.Parameter.shape).sin(), alpha: 0.2);
        }

        return adapter;
    }
}

[Collection(nameof(RandomNumbers))]
public class PlainBoftTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new BoftConfig();
}
