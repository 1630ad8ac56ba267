using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class OloraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new OloraConfig { Rank = 4, Alpha = 8 };

    protected override double StartError => 1e-5;

    protected override double LearningRate => 0.01;

    [Fact]
    public void B_is_an_orthonormal_basis_of_the_first_columns()
    {
        // W = Q·R with R upper triangular: the first r columns of W are combinations of the first r of Q, so that B·A equals them, and
        // their coordinates in the orthonormal B are Bᵀ·W, all of A.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        foreach (var (update, index) in adapter.Updates.Select((update, index) => (update, index)))
        {
            var (a, b) = (adapter.Trainable[2 * index].Parameter, adapter.Trainable[2 * index + 1].Parameter);

            Assert.InRange(Numbers.RelativeError(b.t().mm(b), eye(4)), 0, 1e-5);
            Assert.InRange(Numbers.RelativeError(b.t().mm(update.Weight), a), 0, 1e-5);
            Assert.InRange(Numbers.RelativeError(b.mm(a).narrow(1, 0, 4), update.Weight.narrow(1, 0, 4)), 0, 1e-5);
        }
    }

    [Fact]
    public void At_full_rank_nothing_is_left_of_the_weight()
    {
        // s·B·A = W where B is a whole basis and s = 1, so W_res = 0 and taking the factors away takes all of the layer away.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new OloraConfig { Rank = 64, Alpha = 64, TargetModules = ModuleSelector.OfNames(["q_proj"]) }.Attach(model, seed: 1);
        adapter.Trainable[1].Parameter.zero_();

        Assert.InRange((Adapter.Merge(adapter.Updates[0]).norm() / adapter.Updates[0].Weight.norm()).item<float>(), 0, 1e-5);
    }
}
