using TrainingService.Training.Adapters;
using TrainingService.Training.Numerics;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>Shared products against the formula written out, with the gradients of libtorch's own functions.</summary>
public class LowRankProductsTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void Values_and_gradients_are_those_of_the_formula(int count)
    {
        using var scope = NewDisposeScope();
        var (input, layers) = Case(count, ScalarType.Float32);

        var outputs = LowRankProducts.Run(input, layers);
        BackwardPass.OfThisThread.Run(Weighted(outputs));
        var mine = Gradients(input, layers);

        var (plainInput, plainLayers) = Case(count, ScalarType.Float32);
        var plain = plainLayers.ConvertAll(layer => Formula(plainInput, layer));
        Weighted(plain).backward();

        Assert.All(outputs.Zip(plain), pair => Assert.InRange(Numbers.RelativeError(pair.First, pair.Second), 0, 1e-6));
        Assert.All(mine.Zip(Gradients(plainInput, plainLayers)), pair =>
            Assert.InRange(Numbers.RelativeError(pair.First, pair.Second), 0, 1e-6));
        Assert.All(layers, layer => Assert.Null(layer.Weight.grad));
    }

    [Fact]
    public void Over_bfloat16_weights_the_factors_and_their_gradients_are_float32()
    {
        using var scope = NewDisposeScope();
        var (input, layers) = Case(2, ScalarType.BFloat16);
        var outputs = LowRankProducts.Run(input, layers);
        BackwardPass.OfThisThread.Run(Weighted(outputs));

        var (plainInput, plainLayers) = Case(2, ScalarType.Float32);
        var plain = plainLayers.ConvertAll(layer => Formula(plainInput, layer));
        Weighted(plain).backward();

        Assert.All(outputs, output => Assert.Equal(ScalarType.BFloat16, output.dtype));
        Assert.All(layers, layer => Assert.Equal((ScalarType.Float32, ScalarType.Float32), (layer.A.grad!.dtype, layer.B.grad!.dtype)));
        Assert.All(outputs.Zip(plain), pair => Assert.InRange(Numbers.RelativeError(pair.First.to(ScalarType.Float32), pair.Second), 0, 1e-2));
        Assert.All(Gradients(input, layers).Zip(Gradients(plainInput, plainLayers)), pair =>
            Assert.InRange(Numbers.RelativeError(pair.First.to(ScalarType.Float32), pair.Second), 0, 1e-2));
    }

    [Fact]
    public void An_output_that_nothing_reads_and_an_input_that_does_not_train_cost_no_gradient()
    {
        using var scope = NewDisposeScope();
        var (trained, layers) = Case(3, ScalarType.Float32);
        var input = trained.detach();

        var outputs = LowRankProducts.Run(input, layers);
        BackwardPass.OfThisThread.Run(Weighted([outputs[2]]));

        Assert.Null(input.grad);
        Assert.Null(layers[0].A.grad);
        Assert.Null(layers[1].B.grad);
        var (_, plainLayers) = Case(3, ScalarType.Float32);
        Weighted([Formula(input, plainLayers[2])]).backward();
        Assert.InRange(Numbers.RelativeError(layers[2].A.grad!, plainLayers[2].A.grad!), 0, 1e-6);
        Assert.InRange(Numbers.RelativeError(layers[2].B.grad!, plainLayers[2].B.grad!), 0, 1e-6);
    }

    /// <summary>Layers of other widths, ranks and scales; the second has a bias that trains.</summary>
    private static (Tensor Input, List<LowRankProduct> Layers) Case(int count, ScalarType dtype)
    {
        var input = Wave(0.3, 2, 5, 8).to(dtype).requires_grad_();
        List<LowRankProduct> layers = [.. Enumerable.Range(0, count).Select(index => new LowRankProduct(
            Wave(0.7 + index, 6 + index, 8).to(dtype),
            index == 1 ? Wave(0.9, 6 + index).to(dtype).requires_grad_() : null,
            Wave(1.1 + index, 2 + index, 8).requires_grad_(),
            Wave(1.7 + index, 6 + index, 2 + index).requires_grad_(),
            Scale: 0.5 + index))];
        return (input, layers);
    }

    private static Tensor Formula(Tensor x, LowRankProduct layer) =>
        nn.functional.linear(x, layer.Weight, layer.Bias) + layer.Scale * nn.functional.linear(nn.functional.linear(x, layer.A), layer.B);

    /// <summary>A scalar that gives each number of each output a gradient of its own.</summary>
    private static Tensor Weighted(IReadOnlyList<Tensor> outputs) => outputs
        .Select((output, index) => (output.to(ScalarType.Float32) * Wave(2.3 + index, output.shape)).sum())
        .Aggregate((sum, next) => sum + next);

    private static List<Tensor> Gradients(Tensor input, List<LowRankProduct> layers) =>
        [input.grad!, .. layers.SelectMany(layer => new[] { layer.A.grad!, layer.B.grad!, layer.Bias?.grad }).OfType<Tensor>()];

    /// <summary>Numbers by formula, all positive: where nothing cancels, bfloat16 keeps its two digits.</summary>
    private static Tensor Wave(double phase, params long[] shape) =>
        arange(shape.Aggregate((a, b) => a * b), ScalarType.Float32).mul(0.37).add(phase).sin().add(1.2).reshape(shape);
}
