using TorchSharp.Modules;
using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Optimizers;

public sealed class FlatLayoutTests
{
    // 4,141 numbers need 17 blocks of 256, 4,352; 5,120 are 20 blocks. Small ones follow, without gaps.
    [Fact]
    public void Equal_tensors_stand_side_by_side_and_large_ones_on_blocks()
    {
        var groups = FlatLayout.Of(
        [
            ([9], TensorRole.Weight), ([101, 41], TensorRole.Weight), ([80, 64], TensorRole.OutputFactor), ([101, 41], TensorRole.Weight),
            ([3, 3], TensorRole.Weight), ([80, 64], TensorRole.Weight), ([9], TensorRole.Weight),
        ]);

        Assert.Equal(
            [(0, 4352, "1 3"), (8704, 5120, "2"), (13824, 5120, "5"), (18944, 9, "0 6"), (18962, 9, "4")],
            groups.Select(group => (group.Offset, group.Stride, string.Join(' ', group.Members))));
    }

    [Fact]
    public void Parameters_keep_their_values_and_become_views_of_the_buffer()
    {
        using var scope = NewDisposeScope();
        Parameter[] parameters = [.. new long[][] { [3], [101, 41], [2, 2], [101, 41], [1, 3] }.Select((shape, index) =>
            new Parameter(arange(shape.Aggregate((a, b) => a * b)).to_type(ScalarType.Float32).add(index).view(shape)))];
        using var flat = new FlatParameters(parameters);
        using var optimizer = new SgdConfig().Create(flat);
        parameters.Select(parameter => parameter.sum()).Aggregate((a, b) => a + b).backward();
        optimizer.Step(0.5);

        Assert.Equal(3 + 2 * 4141 + 4 + 3, flat.Count);
        Assert.Equal(Math.Sqrt(flat.Count), flat.GradientNorm(), 1e-3);   // what fills the gaps has no gradient
        Assert.All(parameters.Select((parameter, index) => (parameter, index)), x => Assert.Equal(
            Enumerable.Range(0, (int)x.parameter.numel()).Select(i => i + x.index - 0.5f), x.parameter.detach().reshape(-1).data<float>().ToArray()));
    }
}
