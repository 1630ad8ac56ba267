using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LoraXsTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LoraXsConfig { Rank = 6, Alpha = 12 };

    protected override double StartError => 1e-3;   // the noise of 1e-5 in R

    protected override double LearningRate => 0.5;

    [Fact]
    public void Each_layer_trains_the_square_of_the_rank_whatever_its_size()
    {
        var counts = new LoraXsConfig { Rank = 6 }.Count(Spec.SpecModels.Stories260K);

        Assert.Equal(36 * LayerPlan.Create(new LoraXsConfig { Rank = 6 }, Spec.SpecModels.Stories260K).Layers.Count, counts.Added);
    }

    [Fact]
    public void A_unit_core_adds_the_principal_part_of_the_weight()
    {
        // With R = I and s = 2, ΔW = 2·U_r·diag(S_r)·V_rᵀ: W' has the leading singular values three times as large and the others as before.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        foreach (var (update, tensor) in adapter.Updates.Zip(adapter.Trainable))
        {
            tensor.Parameter.copy_(eye(6));
            var expected = linalg.svdvals(update.Weight);
            expected.narrow(0, 0, 6).mul_(3);

            Assert.InRange(Numbers.RelativeError(linalg.svdvals(Adapter.Merge(update)), expected), 0, 1e-5);
        }
    }

    [Fact]
    public void Its_change_is_a_plain_lora_of_the_same_rank()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        adapter.Trainable[0].Parameter.copy_(arange(36.0f).reshape(6, 6).sin());
        var factors = adapter.Updates[0].Factors!;

        Assert.Equal(6, factors.Right.shape[0]);
        Assert.InRange(Numbers.RelativeError(factors.Left.mm(factors.Right) * factors.Scale, adapter.Updates[0].Delta), 0, 1e-6);
    }
}

[Collection(nameof(RandomNumbers))]
public class RandomizedLoraXsTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LoraXsConfig { Rank = 6, Alpha = 12, Iterations = 10 };

    protected override double StartError => 1e-3;

    protected override double LearningRate => 0.5;
}
