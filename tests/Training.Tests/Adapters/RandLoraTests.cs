using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

[Collection(nameof(RandomNumbers))]
public class RandLoraTests : AdapterContract
{
    protected override LayerAdapterConfig Config => new RandLoraConfig { Rank = 10 };   // divides no layer: the last basis is not used up

    protected override double LearningRate => 1e-3;   // the update is large: α/r is 64

    /// <remarks>
    /// The saved state is badly conditioned (α/r is 80, the gradient's norm 112): one unit in the last place of λ, 1.2e-7, moves the gradients by up
    /// to 1.1e-4, three steps of AdamW by up to 2e-5 and three steps of gradient descent by up to 6e-3; another order of the gradient's sums moves these
    /// by 9e-3. PEFT's merge differs from its own forward pass by 6e-5.
    /// </remarks>
    [Fact]
    public void Its_numbers_are_those_of_peft() =>
        PeftGolden.Holds("randlora", new RandLoraConfig(), mergedTolerance: 1e-4, gradientTolerance: 1e-4, descentTolerance: 2e-2);

    [Fact]
    public void Its_folder_is_that_of_peft_without_the_copies_beside_each_layer() => PeftGolden.IsSavedAlike(
        "randlora", new RandLoraConfig(), key => key.StartsWith("base_model.model.", StringComparison.Ordinal) && key[^11..] is ".randlora_A" or ".randlora_B");

    [Fact]
    public void A_copy_of_a_shared_matrix_that_differs_is_refused()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var folder = TinyModel.NewFolder();
        using (var adapter = Config.Attach(model, seed: 1))
        {
            adapter.Save(folder, Card);
        }

        const string Copy = "base_model.model.model.layers.1.mlp.up_proj.randlora_A";
        var path = Path.Combine(folder, "adapter_model.safetensors");
        Dictionary<string, Tensor> tensors;
        using (var file = SafeTensorsFile.Open(path))
        {
            tensors = file.Entries.Keys.ToDictionary(key => key, key => file.Read(key));
        }

        void WriteCopy(Tensor value) => SafeTensorsWriter.Write(
            path, [.. tensors.Select(entry => (entry.Key, entry.Value)), (Copy, value)], new Dictionary<string, string> { ["format"] = "pt" });

        WriteCopy(tensors["base_model.randlora_A"]);
        (Config with { From = folder }).Attach(model, seed: 1).Dispose();

        WriteCopy(tensors["base_model.randlora_A"] + 1);
        var error = Assert.Throws<TrainingException>(() => (Config with { From = folder }).Attach(model, seed: 1));
        Assert.Contains(Copy, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(3072, 297_984)]   // together 9,289,728 numbers for 28 layers' query and value of Llama 3.2 3B: PEFT's method comparison
    [InlineData(1024, 33_792)]
    public void It_trains_as_many_numbers_as_the_reference_counts(int outputs, int expected) => Assert.Equal(
        expected, new RandLoraConfig().TensorsOf(new("layer", outputs, 3072)).Sum(tensor => tensor.Shape.Aggregate(1L, (product, side) => product * side)));

    [Fact]
    public void The_change_has_full_rank_with_the_numbers_of_a_lora_of_rank_32()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = new RandLoraConfig { Rank = 32 }.Attach(model, seed: 1);
        Filled.ByFormula(adapter, 0.1);
        foreach (var tensor in adapter.Trainable)
        {
            tensor.Parameter.add_(0.2);
        }

        foreach (var update in adapter.Updates)
        {
            var values = linalg.svdvals(update.Delta.to_type(ScalarType.Float64));
            Assert.InRange((values[-1] / values[0]).item<double>(), 1e-6, 1);   // entries are rounded by 6e-8
        }

        // 2 bases for a square layer of 64: 32·2 + 2·64 numbers, where LoRA with rank 1 has 128 and rank 1.
        Assert.Equal(192, adapter.Trainable.Where(tensor => tensor.Name.Contains("0.self_attn.q_proj", StringComparison.Ordinal)).Sum(tensor => tensor.Parameter.numel()));
    }

    [Theory]
    [InlineData(RandLoraBases.Sparse, 3.0)]
    [InlineData(RandLoraBases.VerySparse, 9.797958971)]   // √96
    public void Sparse_bases_hold_one_value_in_two_signs_and_zeros(RandLoraBases bases, double oneIn)
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = new RandLoraConfig { Rank = 10, Bases = bases }.Attach(model, seed: 1);
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        using var file = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors"));
        var values = file.Read("base_model.randlora_B");

        // Standard deviation 1 with one number in q at ±v and zeros elsewhere: v is √q.
        var size = values.abs().max().item<float>();
        Assert.True((values.abs().eq(size) | values.eq(0)).all().item<bool>());
        Assert.InRange(values.ne(0).to_type(ScalarType.Float32).mean().item<float>(), 0.9 / oneIn, 1.1 / oneIn);
        Assert.InRange(size, 0.95 * Math.Sqrt(oneIn), 1.05 * Math.Sqrt(oneIn));
        Assert.Equal(1f, values.std().item<float>(), 1e-4);
        Assert.Equal(bases == RandLoraBases.Sparse, Filled.Fields(folder)["sparse"].GetBoolean());
        Assert.Equal(bases, ((RandLoraConfig)PeftFolder.Open(folder).Config).Bases);
    }
}
