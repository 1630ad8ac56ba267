using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class LoraSbTests : AdapterContract
{
    private const string Module = "model.layers.0.self_attn.q_proj";

    protected override LayerAdapterConfig Config => new LoraSbConfig { Rank = 6, StepSize = 1e-6 };

    protected override double StartError => 1e-3;   // the first step is in it

    protected override double LearningRate => 0.5;

    protected override Calibration? CalibrationData => TinyModel.Calibration();

    [Fact]
    public void It_starts_at_the_best_approximation_of_the_first_full_step()
    {
        // ΔW* = −η·sign(∇W). The error of its best approximation of rank r is the norm of the remaining singular values (Eckart and Young), so no
        // r x r matrix between any bases is nearer. The best ones between LoRA-XS's, between axes and between others do much worse.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var step = StepOf(model);
        using var adapter = Config.Attach(model, seed: 1, CalibrationData);
        using var off = no_grad();
        var values = linalg.svdvals(step);
        var best = values.narrow(0, 6, values.shape[0] - 6).norm();

        var error = (adapter.Updates[0].Delta - step).norm();

        Assert.InRange(Numbers.RelativeError(error, best), 0, 1e-4);
        using var other = TinyModel.Load();
        var (u, _, vt) = linalg.svd(((Training.Models.Linear)other.Linears.First(slot => slot.Name == Module).Module).weight, fullMatrices: false);
        var waves = linalg.qr(arange(64 * 12, dtype: ScalarType.Float32).square().sin().view(64, 12)).Q;
        (Tensor Left, Tensor Right)[] bases = [(u, vt.t()), (eye(64), eye(64)), (waves, waves.narrow(1, 6, 6))];
        Assert.All(bases, pair =>
        {
            var (left, right) = (pair.Left.narrow(1, 0, 6), pair.Right.narrow(1, 0, 6));
            var nearest = left.mm(left.t()).mm(step).mm(right).mm(right.t());
            Assert.InRange(error.item<float>(), 0, 0.95 * (nearest - step).norm().item<float>());
        });
    }

    [Fact]
    public void The_gradient_of_the_core_is_the_projection_of_the_full_one()
    {
        // dL/dR = Bᵀ·∇W·Aᵀ. At a step of 1e-12 the model is the base model.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var (ids, labels) = TinyModel.Batch();
        using var other = TinyModel.Load();
        var weight = ((Training.Models.Linear)other.Linears.First(slot => slot.Name == Module).Module).weight;
        weight.requires_grad = true;
        TinyModel.Loss(other, ids, labels).backward();
        using var adapter = new LoraSbConfig { Rank = 6, StepSize = 1e-12 }.Attach(model, seed: 1, CalibrationData);
        TinyModel.Loss(model, ids, labels).backward();
        using var off = no_grad();
        var factors = adapter.Updates[0].Factors!;
        var (core, right) = (adapter.Trainable[0].Parameter, factors.Right);
        var left = linalg.solve(core.t(), factors.Left.t()).t();   // B·R is saved together

        Assert.InRange(Numbers.RelativeError(core.grad!, left.t().mm(weight.grad!).mm(right.t())), 0, 1e-3);
    }

    [Fact]
    public void A_quantised_base_is_refused() => Assert.Contains(
        SpecJson.Parse("""{"model": "m", "data": {"train": "t"}, "adapter": {"type": "lora_sb"}, "quantization": {"type": "nf4"}}""").Errors,
        error => error.Path == "quantization");

    private static Tensor StepOf(Training.Models.CausalLm model) =>
        TinyModel.Calibration().MeanGradients(model, Layers(model), 3)[Module].sign() * -1e-6;

    private static List<LinearShape> Layers(Training.Models.CausalLm model) =>
        LayerPlan.Create(new LoraSbConfig(), model.Config).Layers.Where(layer => layer.Name == Module).ToList();
}
