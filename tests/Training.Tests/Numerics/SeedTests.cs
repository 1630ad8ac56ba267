using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Numerics;

[Collection(nameof(RandomNumbers))]
public sealed class SeedTests
{
    [Fact]
    public void Equal_seed_and_step_draw_equal_numbers_and_others_do_not()
    {
        using var scope = NewDisposeScope();
        Seed.Torch(42, 7);
        var first = rand(8);
        Seed.Torch(42, 8);
        var nextStep = rand(8);
        Seed.Torch(42, 7);
        var again = rand(8);

        Assert.Equal(first.data<float>().ToArray(), again.data<float>().ToArray());
        Assert.NotEqual(first.data<float>().ToArray(), nextStep.data<float>().ToArray());
    }

    [Fact]
    public void Seed_and_step_do_not_swap() => Assert.NotEqual(Seed.Mix(1, 2), Seed.Mix(2, 1));
}
