using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class SvfitTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new SvfitConfig { Rank = 6 };

    protected override double LearningRate => 1;

    [Fact]
    public void With_all_values_the_spectrum_of_the_weight_is_what_trains()
    {
        // W' = U·diag(σ)·Vᵀ: whatever positive numbers σ holds are the singular values of W', and σ starts at W's own.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new SvfitConfig().Attach(model, seed: 1);
        foreach (var (update, tensor) in adapter.Updates.Zip(adapter.Trainable))
        {
            Assert.Equal(Math.Min(update.Weight.shape[0], update.Weight.shape[1]), tensor.Parameter.numel());
            Assert.InRange(Numbers.RelativeError(tensor.Parameter, linalg.svdvals(update.Weight)), 0, 1e-5);

            tensor.Parameter.mul_(0.5).add_(arange(tensor.Parameter.numel(), 0, -1) * 0.01);

            Assert.InRange(Numbers.RelativeError(linalg.svdvals(Adapter.Merge(update)), tensor.Parameter.sort(descending: true).Values), 0, 1e-5);
        }
    }

    [Fact]
    public void Values_of_zero_leave_what_the_largest_do_not_hold()
    {
        // ‖W − U_r·diag(σ_r)·V_rᵀ‖² is the sum of the squares of the remaining singular values.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        adapter.Trainable[0].Parameter.zero_();
        var values = linalg.svdvals(adapter.Updates[0].Weight);
        var rest = values.narrow(0, 6, values.shape[0] - 6).norm();

        Assert.InRange(Numbers.RelativeError(Adapter.Merge(adapter.Updates[0]).norm(), rest), 0, 1e-5);
    }

    [Fact]
    public void It_trains_a_sixteenth_of_what_lora_of_rank_8_trains()
    {
        // The paper's setting: as many values as the model is wide, for square layers: d of 2·8·d.
        var model = Spec.SpecModels.Stories260K;
        var targets = ModuleSelector.OfNames(["q_proj", "o_proj"]);

        Assert.Equal(
            new LoraConfig { Rank = 8, TargetModules = targets }.Count(model).Added,
            16 * new SvfitConfig { TargetModules = targets }.Count(model).Added);
    }

    [Fact]
    public void All_values_are_fewer_than_lora_of_rank_1_trains()
    {
        // The shorter side of a matrix against the sum of both.
        var model = Spec.SpecModels.Stories260K;

        Assert.InRange(new SvfitConfig().Count(model).Added, 1, new LoraConfig { Rank = 1 }.Count(model).Added / 2);
    }
}
