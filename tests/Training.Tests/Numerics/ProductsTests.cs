using TrainingService.Training.Numerics;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Numerics;

public class ProductsTests
{
    [Fact]
    public void Both_libraries_give_the_same_product()
    {
        using var scope = NewDisposeScope();
        var (x, weight) = (Wave(0.2, 50, 24), Wave(0.8, 40, 24));

        Assert.InRange(Numbers.RelativeError(Products.OneDnn(x, weight), x.mm(weight.t())), 0, 1e-6);
    }

    [Fact]
    public void A_turned_weight_and_turned_rows_are_multiplied_as_they_are_read()
    {
        using var scope = NewDisposeScope();
        var (x, weight) = (Wave(0.2, 24, 50).t(), Wave(0.8, 24, 40));

        Assert.InRange(Numbers.RelativeError(Products.OneDnn(x, weight.t()), x.mm(weight)), 0, 1e-6);
    }

    private static Tensor Wave(double phase, params long[] shape) =>
        arange(shape.Aggregate((a, b) => a * b), ScalarType.Float32).mul(0.37).add(phase).sin().reshape(shape);
}
