using TrainingService.Training.Adapters;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class DoraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new DoraConfig { Rank = 4, Alpha = 8 };

    protected override double StartError => 1e-6;   // g/ν is one, up to the rounding of the norms

    [Fact]
    public void Its_numbers_are_those_of_peft() => PeftGolden.Holds("dora", new DoraConfig());

    [Fact]
    public void Its_folder_is_that_of_peft() => PeftGolden.IsSavedAlike("dora", new DoraConfig());

    [Fact]
    public void The_merged_rows_are_as_long_as_the_magnitudes()
    {
        // W' = diag(g/ν)·V with ν the norms of V's rows: whatever A and B became, row i of W' has length g_i.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        var rate = 1.0;
        foreach (var tensor in adapter.Trainable)
        {
            tensor.Parameter.add_(arange(tensor.Parameter.numel()).reshape(tensor.Parameter.shape).sin(), alpha: 0.01 * ++rate % 3);
        }

        foreach (var update in adapter.Updates)
        {
            var magnitude = adapter.Trainable.Single(tensor => tensor.Name.EndsWith(update.Module + ".lora_magnitude_vector", StringComparison.Ordinal));
            Assert.InRange(Numbers.RelativeError(Adapter.Merge(update).norm(1, false, 2), magnitude.Parameter.abs()), 0, 1e-5);
        }
    }
}
