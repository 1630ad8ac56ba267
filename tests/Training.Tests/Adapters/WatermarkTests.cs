using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class WatermarkTests : AdapterContract
{
    private const int Key = 20_260_417;

    protected override LayerAdapterConfig Config => new WatermarkConfig { Rank = 4, Alpha = 8, Key = Key };

    [Theory]
    [InlineData(34, 2.7576e-3)]
    [InlineData(35, 1.04405e-3)]
    [InlineData(36, 3.58635e-4)]
    [InlineData(40, 1.65263e-6)]
    public void The_tail_is_the_binomial_one(int matches, double expected) =>
        Assert.InRange(WatermarkReader.TailProbability(matches, 48) / expected, 0.9999, 1.0001);

    [Fact]
    public void The_tail_is_exact_at_its_ends()
    {
        // All of n bits match in one of 2ⁿ cases; at least none match in all.
        Assert.Equal(1, WatermarkReader.TailProbability(0, 48), 1e-12);
        Assert.Equal(Math.Pow(2, -48), WatermarkReader.TailProbability(48, 48), 1e-27);
        Assert.Equal(0.5, WatermarkReader.TailProbability(513, 1025), 1e-12);
        Assert.Equal(11.0 / 16, WatermarkReader.TailProbability(2, 4), 1e-12);   // 6 + 4 + 1 of 16
    }

    [Fact]
    public void The_message_of_a_key_is_balanced_and_its_own()
    {
        Assert.Equal(24, WatermarkReader.MessageOf(Key).Count(bit => bit == '1'));
        Assert.Equal(48, WatermarkReader.MessageOf(Key).Length);
        Assert.NotEqual(WatermarkReader.MessageOf(Key), WatermarkReader.MessageOf(Key + 1));
    }

    [Fact]
    public void An_update_of_zero_costs_a_bit_per_bit()
    {
        // σ(0) = ½, so the cross entropy is ln 2, whatever the message.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);

        Assert.Equal(0.1 * Math.Log(2), adapter.Regulariser()!.item<float>(), 1e-6);
    }

    [Fact]
    public void Factors_and_their_product_are_read_alike()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        Filled.ByFormula(adapter, 0.3);
        var factors = adapter.Updates.Select(update => WatermarkReader.Project(update.Factors!, update.Module, Key, 40)).Aggregate((sum, next) => sum + next);

        var reading = WatermarkReader.Read(adapter, Key, new string('1', 40));

        Assert.Equal(string.Concat(factors.data<float>().Select(value => value > 0 ? '1' : '0')), reading.Bits);
        Assert.Equal(reading.Bits.Count(bit => bit == '1'), reading.Matches);
    }

    [Fact]
    public void A_message_is_read_back_after_training_rounding_and_merging_at_the_task_loss_of_lora()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var lora = new LoraConfig { Rank = 4, Alpha = 8 }.Attach(model, seed: 1);
        var plain = Trained(model, lora);
        lora.Dispose();
        using var adapter = Config.Attach(model, seed: 1);
        var marked = Trained(model, adapter);
        var message = WatermarkReader.MessageOf(Key);
        Assert.InRange(marked, 0, plain * 1.02);
        Assert.InRange(WatermarkReader.Read(adapter, Key, message).BitAccuracy, 0.95, 1);

        // Without the key there is nothing to see.
        Assert.InRange(WatermarkReader.Read(adapter, Key + 1, WatermarkReader.MessageOf(Key + 1)).TailProbability, 1e-3, 1);

        // The folder is a plain LoRA and tells nothing of key and message.
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        Assert.All(Directory.GetFiles(folder, "*.json").Append(Path.Combine(folder, "README.md")), file => Assert.False(
            File.ReadAllText(file).Contains(Key.ToString(System.Globalization.CultureInfo.InvariantCulture), StringComparison.Ordinal), file));

        // Merged and rounded to bfloat16; the base was float32, so its own rounding is in the difference.
        adapter.MergeIntoModel();
        using (no_grad())
        {
            foreach (var weight in model.NamedWeights())
            {
                weight.Parameter.copy_(weight.Parameter.to_type(ScalarType.BFloat16).to_type(ScalarType.Float32));
            }
        }

        var merged = Path.Combine(TinyModel.NewFolder(), "merged");
        HuggingFaceFolder.Save(model, merged, copyTokenizerFrom: null);
        var reading = WatermarkReader.Read(TinyModel.Folder(), merged, Key, message);
        Assert.InRange(reading.BitAccuracy, 0.95, 1);
        Assert.InRange(reading.TailProbability, 0, 1e-9);
    }

    [Fact]
    public void A_run_goes_on_with_a_key_of_the_spec()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var folder = TinyModel.NewFolder();
        using (var adapter = Config.Attach(model, seed: 1))
        {
            adapter.Save(folder, Card);
        }

        using var again = new WatermarkConfig { From = folder, Key = Key, Weight = 2 }.Attach(model, seed: 0);

        Assert.Equal(2 * Math.Log(2), again.Regulariser()!.item<float>(), 1e-5);
    }

    [Theory]
    [InlineData("0120")]
    [InlineData("")]
    public void A_message_that_is_no_bits_is_refused(string message) => Assert.Contains(
        SpecJson.Parse($$"""{"model": "m", "data": {"train": "t"}, "adapter": {"type": "watermark", "message": "{{message}}"} }""").Errors,
        error => error.Path == "adapter.message");

    private static double Trained(CausalLm model, Adapter adapter)
    {
        using var scope = NewDisposeScope();
        using var optimizer = optim.AdamW(adapter.Trainable.Select(tensor => tensor.Parameter), lr: 5e-3, weight_decay: 0);
        var (ids, labels) = TinyModel.Batch();
        for (var step = 0; step < 60; step++)
        {
            using var inner = NewDisposeScope();
            optimizer.zero_grad();
            var loss = TinyModel.Loss(model, ids, labels);
            (adapter.Regulariser() is { } regulariser ? loss + regulariser : loss).backward();
            optimizer.step();
        }

        return TinyModel.Loss(model, ids, labels).item<float>();
    }
}
