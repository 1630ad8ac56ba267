using TorchSharp.Modules;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Models;

/// <summary>Functions with gradients of their own against the same formula in libtorch's functions.</summary>
public class FusedFunctionTests
{
    private const double Epsilon = 1e-5;

    [Fact]
    public void The_norm()
    {
        Same([Wave(0.2, 2, 5, 12), Wave(0.8, 12)],
            x => RmsNormFunction.apply(x[0], x[1], Epsilon),
            x => x[1] * (x[0] * x[0].square().mean([-1L], keepdim: true).add(Epsilon).rsqrt()));
    }

    [Fact]
    public void The_gated_activation() =>
        Same([Wave(0.2, 2, 5, 12), Wave(0.8, 2, 5, 12)], x => GatedSilu.Run(x[0], x[1]), x => x[0] * x[0].sigmoid() * x[1]);

    [Fact]
    public void The_rotary_turn()
    {
        using var scope = NewDisposeScope();
        using var rope = new Rope([1f, 0.3f, 0.05f], CPU);
        var (cos, sin) = rope.At(arange(5, ScalarType.Int64).expand(2, 5), 5);

        Same([Wave(0.2, 2, 5, 4, 6)],
            x => Rope.Turn(x[0].transpose(1, 2), cos, sin),
            x =>
            {
                var (first, second) = (x[0].transpose(1, 2).narrow(-1, 0, 3), x[0].transpose(1, 2).narrow(-1, 3, 3));
                var half = cos.narrow(-1, 0, 3);
                return cat([first * half - second * sin, second * half + first * sin], -1);
            });
    }

    [Fact]
    public void Inputs_that_do_not_train_get_no_gradient()
    {
        using var scope = NewDisposeScope();
        using var norm = new RmsNorm(new Parameter(Wave(0.8, 12), requires_grad: false), Epsilon);
        var x = Wave(0.2, 5, 12).requires_grad_();

        BackwardPass.OfThisThread.Run(norm.call(x).sum());

        Assert.NotNull(x.grad);
        Assert.Null(norm.weight.grad);
    }

    [Fact]
    public void In_bfloat16_the_norm_divides_in_float32()
    {
        using var scope = NewDisposeScope();
        var (x, weight) = (Wave(0.2, 5, 12).to(ScalarType.BFloat16), Wave(0.8, 12).to(ScalarType.BFloat16));
        using var off = no_grad();

        var wide = x.to(ScalarType.Float32);
        var expected = weight * (wide * wide.square().mean([-1L], keepdim: true).add(Epsilon).rsqrt()).to(ScalarType.BFloat16);
        Assert.True(RmsNormFunction.apply(x, weight, Epsilon).equal(expected).all().item<bool>());
    }

    private static void Same(Tensor[] inputs, Func<Tensor[], Tensor> mine, Func<Tensor[], Tensor> formula)
    {
        using var scope = NewDisposeScope();
        Tensor[] left = [.. inputs.Select(input => input.clone().requires_grad_())];
        Tensor[] right = [.. inputs.Select(input => input.clone().requires_grad_())];

        var (one, other) = (mine(left), formula(right));
        BackwardPass.OfThisThread.Run((one * Wave(2.3, one.shape)).sum());
        (other * Wave(2.3, other.shape)).sum().backward();

        Assert.InRange(Numbers.RelativeError(one, other), 0, 1e-6);
        Assert.All(left.Zip(right), pair => Assert.InRange(Numbers.RelativeError(pair.First.grad!, pair.Second.grad!), 0, 1e-6));
    }

    private static Tensor Wave(double phase, params long[] shape) =>
        arange(shape.Aggregate((a, b) => a * b), ScalarType.Float32).mul(0.37).add(phase).sin().reshape(shape);
}
