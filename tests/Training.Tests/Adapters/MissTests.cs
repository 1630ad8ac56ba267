using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class MissTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new MissConfig { Rank = 7 };   // divides no layer: the last stride is padded

    [Fact]
    public void Its_numbers_are_those_of_peft() => PeftGolden.Holds("miss", new MissConfig());

    [Fact]
    public void Its_folder_is_that_of_peft() => PeftGolden.IsSavedAlike("miss", new MissConfig());

    [Fact]
    public void The_change_repeats_the_block_along_the_inputs()
    {
        // ΔW[o, i] = D[i mod r, o].
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var block = adapter.Trainable[0].Parameter;
        block.copy_(arange(block.numel()).reshape(block.shape));

        var delta = adapter.Updates[0].Delta;

        Assert.Equal(block[3, 5].item<float>(), delta[5, 7 * 4 + 3].item<float>());
        Assert.Equal(block[0, 9].item<float>(), delta[9, 63].item<float>());   // 63 = 9·7
    }
}

[Collection(nameof(RandomNumbers))]
public class AffineMissTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new MissConfig { Rank = 8, Variant = MissVariant.Affine };

    [Fact]
    public void A_block_turns_and_shifts_the_blocks_of_its_outputs()
    {
        // With D = c·I in every block, W' = W + c·W + c·I in each r x r block.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var update = adapter.Updates[0];
        adapter.Trainable[0].Parameter.copy_(eye(8) * 0.5);

        var tiled = eye(8).repeat(update.Weight.shape[0] / 8, update.Weight.shape[1] / 8);

        Assert.InRange(Numbers.RelativeError(update.Delta, update.Weight * 0.5 + tiled * 0.5), 0, 1e-6);
    }
}

[Collection(nameof(RandomNumbers))]
public class MiniMissTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new MissConfig { Rank = 8, MiniRank = 16, Variant = MissVariant.Mini };

    [Fact]
    public void A_number_of_columns_that_does_not_divide_the_outputs_is_refused_with_the_layer()
    {
        var error = new MissConfig { Rank = 8, MiniRank = 5, Variant = MissVariant.Mini }.Check(Spec.SpecModels.Stories260K)[0];

        Assert.Equal("adapter.mini_rank", error.Path);
        Assert.Contains("is 5, which does not divide the outputs of layer", error.Message, StringComparison.Ordinal);
    }
}
