using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class CordaTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new CordaConfig { Rank = 4, Alpha = 8 };

    protected override double StartError => 1e-5;

    protected override double LearningRate => 0.02;

    protected override Calibration? CalibrationData => TinyModel.Calibration();

    [Fact]
    public void With_inputs_alike_in_all_directions_it_is_pissa()
    {
        // C = I: the singular values of W·1.01 are those of W times 1.01, and the inverse takes the factor back.
        using var scope = NewDisposeScope();
        var weight = arange(40 * 24, dtype: ScalarType.Float32).reshape(40, 24).sin() * arange(24, 0, -1);
        var (covariance, inverse) = Corda.Damp(eye(24), damping: 0.01);

        var (left, values, right) = Corda.Split(weight, covariance, inverse);

        var (u, s, vt) = SingularVectors.Largest(weight, 5);
        var ours = (left.narrow(1, 0, 5) * values.narrow(0, 0, 5)).mm(right.narrow(0, 0, 5)).to_type(ScalarType.Float32);
        Assert.InRange(Numbers.RelativeError(ours, (u * s).mm(vt)), 0, 1e-5);
    }

    [Fact]
    public void All_components_make_the_weight()
    {
        // U·S·Vᵀ·C⁻¹ = W·C·C⁻¹ = W, with covariances of rows of the model.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        var config = new CordaConfig { Rank = 4 };
        var measured = config.Measure(model, LayerPlan.Create(config, model.Config).Layers, CalibrationData);
        foreach (var slot in model.Linears.Where(slot => measured.ContainsKey(slot.Name)))
        {
            var weight = ((Training.Models.Linear)slot.Module).weight;
            var (covariance, inverse) = Corda.Damp(measured[slot.Name], damping: 0.01);
            var (left, values, right) = Corda.Split(weight, covariance, inverse);

            Assert.InRange(Numbers.RelativeError((left * values).mm(right).to_type(ScalarType.Float32), weight), 0, 1e-4);
        }
    }

    [Fact]
    public void The_covariance_is_that_of_the_inputs_divided_by_their_largest_number()
    {
        // X = [[1, -4], [2, 0]]: the largest number is 2, the largest size 4. XᵀX = [[5, -4], [-4, 16]].
        using var scope = NewDisposeScope();
        var inputs = tensor(new float[,] { { 1, -4 }, { 2, 0 } });
        var product = tensor(new float[,] { { 5, -4 }, { -4, 16 } });

        Assert.True(Corda.Covariance(inputs, CordaInputScale.Largest).equal(product / 4).all().item<bool>());
        Assert.True(Corda.Covariance(inputs, CordaInputScale.LargestMagnitude).equal(product / 16).all().item<bool>());
    }

    [Fact]
    public void What_is_previewed_matters_most_for_the_rows_and_what_is_preserved_least()
    {
        // ‖s·B·A·C‖ is the norm of the singular values that were taken: no rank-r part of W changes the outputs for these rows more, or less.
        var (most, pissa, least) = (ChangeFor(CordaMode.InstructionPreviewed), Pissa(), ChangeFor(CordaMode.KnowledgePreserved));

        Assert.True(most > pissa && pissa > 3 * least, $"{most} {pissa} {least}");
    }

    [Fact]
    public void Layers_that_read_one_tensor_are_measured_once()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var config = new CordaConfig();
        var measured = config.Measure(model, LayerPlan.Create(config, model.Config).Layers, CalibrationData);

        Assert.Same(measured["model.layers.1.self_attn.q_proj"], measured["model.layers.1.self_attn.v_proj"]);
        Assert.Same(measured["model.layers.1.mlp.gate_proj"], measured["model.layers.1.mlp.up_proj"]);
        Assert.NotSame(measured["model.layers.1.self_attn.q_proj"], measured["model.layers.1.self_attn.o_proj"]);
    }

    [Fact]
    public void Without_rows_it_says_that_it_needs_them()
    {
        using var model = TinyModel.Load();

        var error = Assert.Throws<TrainingException>(() => Config.Attach(model, seed: 1));

        Assert.Contains("corda looks at training rows", error.Message, StringComparison.Ordinal);
    }

    // How much of the first layer's outputs for the rows would be gone without the part that trains.
    private double ChangeFor(CordaMode mode)
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new CordaConfig { Rank = 4, Mode = mode }.Attach(model, seed: 1, CalibrationData);
        return PartFor(adapter);
    }

    private double Pissa()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new PissaConfig { Rank = 4 }.Attach(model, seed: 1);
        return PartFor(adapter);
    }

    private double PartFor(Adapter adapter)
    {
        using var off = no_grad();
        using var other = TinyModel.Load();
        var config = new CordaConfig();
        var covariance = config.Measure(other, LayerPlan.Create(config, other.Config).Layers, CalibrationData)[adapter.Updates[0].Module];
        var (a, b) = (adapter.Trainable[0].Parameter, adapter.Trainable[1].Parameter);
        var (damped, _) = Corda.Damp(covariance, damping: 0.01);
        return b.mm(a).to_type(damped.dtype).mm(damped).norm().item<double>();
    }
}

[Collection(nameof(RandomNumbers))]
public class KnowledgePreservingCordaTests : AdapterContract
{
    protected override LayerAdapterConfig Config =>
        new CordaConfig { Rank = 4, Mode = CordaMode.KnowledgePreserved, CalibrationRows = 2, InputScale = CordaInputScale.LargestMagnitude };

    protected override double StartError => 1e-5;

    protected override Calibration? CalibrationData => TinyModel.Calibration();
}
