using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LoraGaTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new LoraGaConfig { Rank = 4, Alpha = 8 };

    protected override double StartError => 1e-5;

    protected override Calibration? CalibrationData => TinyModel.Calibration();

    [Fact]
    public void The_factors_have_the_gradients_directions_and_the_papers_length()
    {
        // ∇W = U·S·Vᵀ, m = 64, γ = 16: rows of A and columns of B have length 64^¼/√16 = 0.7071; A·V has A's directions in the first four,
        // Uᵀ·B has B's in the next four.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var gradient = GradientOf(model, "model.layers.0.self_attn.q_proj");
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        using var off = no_grad();
        var (u, _, vt) = linalg.svd(gradient, fullMatrices: false);
        var (a, b) = (adapter.Trainable[0].Parameter, adapter.Trainable[1].Parameter);

        Assert.InRange(Numbers.RelativeError(a.mm(vt.t()).narrow(1, 0, 4).abs(), eye(4) * Math.Sqrt(0.5)), 0, 1e-3);
        Assert.InRange(Numbers.RelativeError(u.t().mm(b).narrow(0, 4, 4).abs(), eye(4) * Math.Sqrt(0.5)), 0, 1e-3);
    }

    [Theory]
    [InlineData(LoraGaDirection.AFirst)]
    [InlineData(LoraGaDirection.BFirst)]
    [InlineData(LoraGaDirection.Alternating)]
    public void The_first_step_goes_where_the_whole_weights_would(LoraGaDirection direction)
    {
        // A small step of A and B changes W by −λ·s²·(B·Bᵀ·∇W + ∇W·Aᵀ·A): projections onto the gradient's leading directions. Its angle to the
        // gradient is that of the best matrix of rank 2r, and larger for LoRA, whose A is random and whose B is zero.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var gradient = GradientOf(model, "model.layers.0.self_attn.q_proj");

        var ours = CosineOfStep(new LoraGaConfig { Rank = 4, Direction = direction }, gradient);
        var lora = CosineOfStep(new LoraConfig { Rank = 4, Alpha = 4 }, gradient);
        var values = linalg.svdvals(gradient);
        var best = (values.narrow(0, 0, 8).norm() / values.norm()).item<float>();

        Assert.InRange(ours, best - 0.01, best + 0.01);
        Assert.True(lora < best - 0.1, $"{lora} {best}");
    }

    [Fact]
    public void A_rank_above_half_of_a_layers_directions_is_refused()
    {
        var error = new LoraGaConfig { Rank = 20 }.Check(Spec.SpecModels.Stories260K)[0];

        Assert.Equal("adapter.rank", error.Path);
        Assert.Contains("use at most 16", error.Message, StringComparison.Ordinal);
    }

    private static Tensor GradientOf(Training.Models.CausalLm model, string module)
    {
        var layers = LayerPlan.Create(new LoraGaConfig(), model.Config).Layers.Where(layer => layer.Name == module).ToList();
        return TinyModel.Calibration().MeanGradients(model, layers, 3)[module];
    }

    private static double CosineOfStep(LayerAdapterConfig config, Tensor gradient)
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = config.Attach(model, seed: 1, TinyModel.Calibration());
        Step(model, adapter, 1e-3, steps: 1);
        using var off = no_grad();
        var change = adapter.Updates[0].Delta;
        return -((change * gradient).sum() / (change.norm() * gradient.norm())).item<float>();
    }
}
