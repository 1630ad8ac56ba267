using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LolduTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LolduConfig { Rank = 12, Alpha = 24 };

    protected override double LearningRate => 0.1;

    [Fact]
    public void The_triangles_and_the_diagonal_make_the_weight()
    {
        // P·L·diag(z)·U = W with unit diagonals in the triangles, for wide, tall and square layers.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new LolduConfig().Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        using var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors"));
        foreach (var update in adapter.Updates)
        {
            var key = $"base_model.model.{update.Module}.loldu_";
            var (left, values, right) = (file.Read(key + "left"), file.Read(key + "values"), file.Read(key + "right"));

            Assert.InRange(Numbers.RelativeError((left * values).mm(right), update.Weight), 0, 1e-5);
            Assert.InRange(Numbers.RelativeError(right.diagonal(), ones(values.shape[0])), 0, 1e-6);
            Assert.InRange(left.abs().max().item<float>(), 1, 1);   // partial pivoting: no number of L is above its unit diagonal
        }
    }

    [Fact]
    public void A_step_of_one_value_adds_its_column_times_its_row()
    {
        // ΔW = s·l_k·δ·u_k with s = 24/12.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var update = adapter.Updates[0];
        adapter.Trainable[0].Parameter[5] += 0.25f;
        var factors = update.Factors!;

        Assert.Equal(1, linalg.matrix_rank(update.Delta, 1e-4).item<long>());
        Assert.InRange(Numbers.RelativeError(factors.Left.narrow(1, 5, 1).abs().max(), tensor(0.5f)), 0, 1e-6);
    }
}
