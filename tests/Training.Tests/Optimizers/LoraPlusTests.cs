using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Optimizers;

public sealed class LoraPlusTests
{
    private static readonly (TensorRole Role, long[] Shape)[] Tensors =
    [
        (TensorRole.Weight, [4, 6]), (TensorRole.OutputFactor, [6, 4]), (TensorRole.Weight, [4, 6]), (TensorRole.OutputFactor, [6, 4]),
        (TensorRole.Weight, [6]),
    ];

    /// <summary>The groups of PEFT's <c>create_loraplus_optimizer</c>: A at the rate, B at 16 times the rate, a bias so too and without decay.</summary>
    [Fact]
    public void B_learns_at_the_rate_times_the_ratio()
    {
        var config = new AdamWConfig { LoraPlusRatio = 16, WeightDecay = 0.1 };
        using var flat = new Flat(config, Tensors);
        flat.Run(3, 0.01);

        for (var index = 0; index < Tensors.Length; index++)
        {
            var (parameter, (role, shape)) = (index, Tensors[index]);
            var count = flat.Parameters[index].numel();
            var expected = AdamWTests.Reference(
                config.Betas, config.Eps, shape.Length == 1 ? 0 : 0.1, Flat.Start(index, count), step => Flat.Gradient(parameter, step, count),
                role == TensorRole.OutputFactor || shape.Length == 1 ? 0.16 : 0.01, 3);
            Assert.InRange(Flat.Difference(flat.Numbers(index), expected), 0, 1e-5);
        }
    }

    [Theory]
    [InlineData("adamw")]
    [InlineData("adafactor")]
    [InlineData("lion")]
    [InlineData("muon")]
    [InlineData("sgd")]
    public void Every_optimizer_takes_a_ratio(string name)
    {
        var config = SpecJson.Parse($$"""{ "model": "m", "data": { "train": "f" }, "optimizer": { "type": "{{name}}", "lora_plus_ratio": 3 } }""").Spec!.Optimizer;
        using var plus = new Flat(config, Tensors);
        using var plain = new Flat(config with { LoraPlusRatio = null }, Tensors);
        plus.Run(1, 0.01);
        plain.Run(1, 0.01);

        for (var index = 0; index < Tensors.Length; index++)
        {
            var moved = Moved(plus, index) / Moved(plain, index);
            Assert.Equal(index is 0 or 2 ? 1 : 3, moved, 0.01);
        }
    }

    [Fact]
    public void Lora_says_which_of_its_tensors_are_B_and_which_weights_are_tables_and_heads()
    {
        using var scope = NewDisposeScope();
        using var model = CausalLm.Load(SharedData.Path("golden", "models", "llama_untied"), ScalarType.Float32, CPU);
        using var adapter = new LoraConfig { ModulesToSave = ["embed_tokens", "lm_head"] }.Attach(model, 1);
        var roles = adapter.Trainable.ToLookup(tensor => tensor.Role, tensor => tensor.Name);

        Assert.All(roles[TensorRole.OutputFactor], name => Assert.EndsWith("lora_B.weight", name, StringComparison.Ordinal));
        Assert.All(roles[TensorRole.Weight], name => Assert.EndsWith("lora_A.weight", name, StringComparison.Ordinal));
        Assert.Equal(roles[TensorRole.Weight].Count(), roles[TensorRole.OutputFactor].Count());
        Assert.EndsWith("embed_tokens.weight", Assert.Single(roles[TensorRole.Embedding]), StringComparison.Ordinal);
        Assert.EndsWith("lm_head.weight", Assert.Single(roles[TensorRole.Head]), StringComparison.Ordinal);
    }

    [Fact]
    public void Tensors_that_would_train_are_those_that_train()
    {
        using var scope = NewDisposeScope();
        using var model = CausalLm.Load(SharedData.Path("golden", "models", "llama_untied"), ScalarType.Float32, CPU);
        foreach (AdapterConfig config in new AdapterConfig[] { new FullConfig(), new LoraConfig { ModulesToSave = ["embed_tokens"], Bias = BiasTraining.All } })
        {
            using var adapter = config.Attach(model, 1);

            Assert.Equal(
                adapter.Trainable.Select(tensor => (tensor.Role, string.Join(',', tensor.Parameter.shape))).Order(),
                config.Trained(model.Config).Select(tensor => (tensor.Role, string.Join(',', tensor.Shape))).Order());
        }
    }

    private static double Moved(Flat flat, int index) =>
        flat.Numbers(index).Zip(Flat.Start(index, flat.Parameters[index].numel()), (a, b) => Math.Abs(a - b)).Sum();
}
