using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using TrainingService.Training.Tests.Spec;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class HraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new HraConfig { Rank = 4 };

    protected override double StartError => 1e-5;   // each pair of reflections undoes itself up to rounding

    [Fact]
    public void The_merged_matrix_is_the_chain_of_reflections_written_out()
    {
        // W' = W·H₁·H₂·H₃·H₄ with H = I - 2·u·uᵀ/‖u‖², as PEFT multiplies them.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Filled(model);
        var (update, directions) = (adapter.Updates[0], adapter.Trainable[0].Parameter);
        var chain = eye(64);
        for (var i = 0; i < 4; i++)
        {
            var unit = directions.narrow(1, i, 1) / directions.narrow(1, i, 1).norm();
            chain = chain - 2 * chain.mm(unit).mm(unit.t());
        }

        Assert.InRange(Numbers.RelativeError(chain.mm(chain.t()), eye(64)), 0, 1e-5);
        Assert.InRange(Numbers.RelativeError(Adapter.Merge(update), update.Weight.mm(chain)), 0, 1e-5);
    }

    [Fact]
    public void One_reflection_of_a_pair_turns_a_row_as_by_hand()
    {
        // u₁ = e₀ and u₂ = (e₀ + e₁)/√2: H₁ negates axis 0, H₂ exchanges axes 0 and 1 and negates both. A row (a, b, …) becomes (-b, a, …).
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new HraConfig { Rank = 2 }.Attach(model, seed: 1);
        var (update, directions) = (adapter.Updates[0], adapter.Trainable[0].Parameter);
        directions.zero_();
        directions[0, 0] = 3;
        directions[0, 1] = 5;
        directions[1, 1] = 5;

        var merged = Adapter.Merge(update);

        Assert.Equal(-update.Weight[7, 1].item<float>(), merged[7, 0].item<float>(), 1e-6);
        Assert.Equal(update.Weight[7, 0].item<float>(), merged[7, 1].item<float>(), 1e-6);
        Assert.Equal(update.Weight[7, 2].item<float>(), merged[7, 2].item<float>(), 1e-6);
    }

    [Fact]
    public void It_keeps_singular_values_and_angles_with_a_change_of_low_rank()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Filled(model);

        Assert.All(adapter.Updates, OrthogonalMethods.KeepsSpectrumAndAngles);
        Assert.All(adapter.Updates, update => Assert.Equal(4, linalg.matrix_rank(update.Delta.to_type(ScalarType.Float64), 1e-4).item<long>()));
    }

    [Fact]
    public void It_trains_a_vector_of_the_inputs_for_each_reflection() =>
        Assert.Equal(28 * 2 * 3072 * 8, new HraConfig { TargetModules = ModuleSelector.OfNames(["q_proj", "v_proj"]) }.Count(SpecModels.Llama32Of3B).Total);

    [Fact]
    public void An_odd_number_of_reflections_is_refused() => Assert.Contains(
        SpecJson.Parse("""{"model": "m", "data": {"train": "t"}, "adapter": {"type": "hra", "rank": 3}}""").Errors,
        error => error.Path == "adapter.rank");

    private Adapter Filled(Training.Models.CausalLm model)
    {
        var adapter = Config.Attach(model, seed: 1);
        foreach (var tensor in adapter.Trainable)
        {
            tensor.Parameter.copy_((arange(tensor.Parameter.numel(), ScalarType.Float64).square() * 0.37).sin().reshape(tensor.Parameter.shape));
        }

        return adapter;
    }
}
