using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using TrainingService.Training.Tests.Models;
using TrainingService.Training.Tests.Spec;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class OftTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new OftConfig { BlockSize = 16 };

    [Fact]
    public void A_block_of_two_is_a_rotation_of_the_plane()
    {
        // Q = [0 q; -q 0] with q = tan(θ/2): (I - Q)·(I + Q)⁻¹ turns by θ. With q = 1/2: cos θ = (1 - q²)/(1 + q²) = 0.6, sin θ = 0.8.
        using var scope = NewDisposeScope();
        using var skew = new SkewMatrices(2, CPU);

        var turned = Orthogonal.Cayley(skew.Of(tensor(new[] { 0.5f }).reshape(1, 1)));

        Assert.InRange(Numbers.RelativeError(turned, tensor(new[] { 0.6f, -0.8f, 0.8f, 0.6f }).reshape(1, 2, 2)), 0, 1e-6);
    }

    [Fact]
    public void The_series_is_that_of_peft()
    {
        // Five terms: I + 2Q + 2Q² + 2Q³ + Q⁴. For Q = [0 q; -q 0], Q² = -q²·I: the diagonal is 1 - 2q² + q⁴, the corner 2q - 2q³.
        using var scope = NewDisposeScope();
        using var skew = new SkewMatrices(2, CPU);

        var turned = Orthogonal.Neumann(skew.Of(tensor(new[] { 0.5f }).reshape(1, 1)), 5);

        Assert.InRange(Numbers.RelativeError(turned, tensor(new[] { 0.5625f, 0.75f, -0.75f, 0.5625f }).reshape(1, 2, 2)), 0, 1e-6);
    }

    [Fact]
    public void Rotations_are_orthogonal_and_keep_singular_values_and_lengths_and_angles_of_rows()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        foreach (var tensor in adapter.Trainable)
        {
            tensor.Parameter.add_(arange(tensor.Parameter.numel()).reshape(tensor.Parameter.shape).sin(), alpha: 0.2);
        }

        using (var skew = new SkewMatrices(16, CPU))
        {
            var turned = Orthogonal.Cayley(skew.Of(adapter.Trainable[0].Parameter));
            Assert.InRange(Numbers.RelativeError(turned.bmm(turned.transpose(1, 2)), eye(16).expand(4, 16, 16)), 0, 1e-5);
        }

        foreach (var update in adapter.Updates)
        {
            Assert.True(update.Delta.norm().item<float>() > 0.1 * update.Weight.norm().item<float>());
            OrthogonalMethods.KeepsSpectrumAndAngles(update);
        }
    }

    [Fact]
    public void Each_block_has_as_many_numbers_as_stand_above_its_diagonal()
    {
        // q_proj and v_proj of a Llama 3.2 3B: 28 layers, 96 blocks of 32 inputs each, 32·31/2 numbers a block.
        var config = new OftConfig { TargetModules = ModuleSelector.OfNames(["q_proj", "v_proj"]) };

        Assert.Equal(28 * 2 * 96 * 496, config.Count(SpecModels.Llama32Of3B).Total);
        Assert.Equal(28 * 2 * 496, (config with { ShareBlocks = true }).Count(SpecModels.Llama32Of3B).Total);
    }

    [Theory]
    [InlineData(64, 32, 32)]
    [InlineData(172, 32, 43)]   // 4 and 43 divide 172, and 43 is nearer
    [InlineData(24, 10, 8)]     // 8 and 12 are equally near: the smaller
    [InlineData(8, 32, 8)]
    public void A_size_that_does_not_divide_the_inputs_gives_way_to_the_nearest_that_does(long inputs, long wanted, long size) =>
        Assert.Equal(size, OftConfig.BlockOf(inputs, wanted));
}

[Collection(nameof(RandomNumbers))]
public class SharedOftTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new OftConfig { BlockSize = 8, ShareBlocks = true };
}

[Collection(nameof(RandomNumbers))]
public class NeumannOftTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new OftConfig { BlockSize = 16, NeumannTerms = 5 };
}

/// <summary>What methods hold to that only turn a matrix.</summary>
internal static class OrthogonalMethods
{
    /// <summary>
    /// The merged matrix has the singular values of the frozen one, and its rows, the neurons, have the lengths and the angles that they had:
    /// W'·W'ᵀ = W·Wᵀ. So any energy of their directions on the sphere is the same.
    /// </summary>
    public static void KeepsSpectrumAndAngles(LayerUpdate update)
    {
        using var scope = NewDisposeScope();
        var (before, after) = (update.Weight.to_type(ScalarType.Float64), Adapter.Merge(update).to_type(ScalarType.Float64));
        Assert.InRange(Numbers.RelativeError(linalg.svdvals(after), linalg.svdvals(before)), 0, 1e-5);
        Assert.InRange(Numbers.RelativeError(after.mm(after.t()), before.mm(before.t())), 0, 1e-5);
    }
}
