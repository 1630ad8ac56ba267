using TorchSharp;
using TorchSharp.Modules;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Optimizers;

public sealed class OptimizerTests
{
    public static TheoryData<OptimizerConfig> Configs =>
    [
        new SgdConfig { WeightDecay = 0.1 },
        new SgdConfig { Momentum = 0.9, WeightDecay = 0.01 },
        new AdamWConfig { WeightDecay = 0.01 },
        new AdamWConfig { Betas = [0.5, 0.9], Eps = 1e-3 },
    ];

    public static TheoryData<OptimizerConfig> AllConfigs =>
    [
        new SgdConfig { WeightDecay = 0.1 },
        new SgdConfig { Momentum = 0.9 },
        new AdamWConfig { WeightDecay = 0.01 },
        new AdamWConfig { StateBits = 8, LoraPlusRatio = 4 },
        new AdafactorConfig { WeightDecay = 0.01 },
        new LionConfig { WeightDecay = 0.01 },
        new MuonConfig { WeightDecay = 0.01 },
    ];

    // g = 0.5, w = 1, lr 0.1, decay 0.1: u = 0.5 + 0.1 = 0.6, w = 0.94; then u = 0.9·0.6 + (0.5 + 0.094) = 1.134, w = 0.8266
    [Fact]
    public void Sgd_with_momentum_follows_the_hand_values() =>
        Assert.Equal([0.94, 0.8266], Steps(new SgdConfig { Momentum = 0.9, WeightDecay = 0.1 }, 1f, 0.5f, 0.1, 2));

    // Constant gradient: both corrected moments are exact, so each step moves by lr after the decay: 1·0.99 - 0.1 = 0.89, 0.89·0.99 - 0.1 = 0.7811
    [Fact]
    public void AdamW_decays_apart_from_the_gradient_and_corrects_its_moments() =>
        Assert.Equal([0.89, 0.7811], Steps(new AdamWConfig { WeightDecay = 0.1 }, 1f, 0.5f, 0.1, 2));

    /// <summary>TorchSharp binds PyTorch's own optimizers: they are the reference, over tensors of several shapes and changing gradients.</summary>
    [Theory, MemberData(nameof(Configs))]
    public void An_update_equals_PyTorchs(OptimizerConfig config)
    {
        using var scope = NewDisposeScope();
        Parameter[] ours = [Filled(0, 3, 4), Filled(12, 5), Filled(17, 2, 2, 2)];
        Parameter[] theirs = [Filled(0, 3, 4), Filled(12, 5), Filled(17, 2, 2, 2)];
        using var flat = new FlatParameters(ours);
        using var optimizer = config.Create(flat);
        using var reference = config switch
        {
            SgdConfig sgd => (torch.optim.Optimizer)torch.optim.SGD(theirs, 0.05, sgd.Momentum, weight_decay: sgd.WeightDecay),
            AdamWConfig adam => torch.optim.AdamW(theirs, 0.05, adam.Betas[0], adam.Betas[1], adam.Eps, adam.WeightDecay),
            _ => throw new InvalidOperationException(),
        };

        for (var step = 0; step < 5; step++)
        {
            flat.ZeroGradients();
            reference.zero_grad();
            foreach (var parameters in new[] { ours, theirs })
            {
                using var stepScope = NewDisposeScope();
                var loss = parameters.Select((p, i) => (p * p * p * (i + 1) + p * step).sum()).Aggregate((a, b) => a + b);
                loss.backward();
            }

            optimizer.Step(0.05);
            reference.step();
        }

        foreach (var (our, their) in ours.Zip(theirs))
        {
            Assert.Equal(their.data<float>().ToArray(), our.data<float>().ToArray(), (a, b) => MathF.Abs(a - b) <= 1e-6f * MathF.Max(1, MathF.Abs(a)));
        }
    }

    /// <summary>Through a file, as in a checkpoint: bytes stay bytes. With float32 weights and with bfloat16 ones and their masters.</summary>
    [Theory, MemberData(nameof(AllConfigs))]
    public void A_restored_optimizer_goes_on_in_the_same_bits(OptimizerConfig config)
    {
        foreach (var dtype in new[] { ScalarType.Float32, ScalarType.BFloat16 })
        {
            using var unbroken = new Flat(config, dtype, Mixed);
            using var resumed = new Flat(config, dtype, Mixed);
            using var folder = new TemporaryFolder();
            unbroken.Run(3, 0.01);
            using (no_grad())
            {
                foreach (var (from, to) in unbroken.Parameters.Zip(resumed.Parameters))
                {
                    to.copy_(from);
                }
            }

            var path = Path.Combine(folder.Path, "optimizer.safetensors");
            SafeTensorsWriter.Write(path, unbroken.Optimizer.State);
            using (var file = unbroken.Optimizer.State.Count == 0 ? null : SafeTensorsFile.Open(path))
            {
                resumed.Optimizer.Load(unbroken.Optimizer.Steps, name => file!.Read(name));
            }

            unbroken.Run(3, 0.01);
            resumed.Run(3, 0.01);

            Assert.All(Enumerable.Range(0, Mixed.Length), index => Assert.Equal(unbroken.Numbers(index), resumed.Numbers(index)));
        }
    }

    [Theory, MemberData(nameof(AllConfigs))]
    public void Its_state_takes_the_bytes_that_an_estimate_announces(OptimizerConfig config)
    {
        using var flat = new Flat(config, Mixed);

        Assert.Equal(config.StateBytes(FlatLayout.Of([.. Mixed.Select(tensor => ((IReadOnlyList<long>)tensor.Shape, tensor.Role))])), flat.StateBytes);
    }

    [Fact]
    public void Bfloat16_weights_keep_float32_masters_so_that_small_updates_are_not_lost()
    {
        using var scope = NewDisposeScope();
        var weight = new Parameter(ones(4, dtype: ScalarType.BFloat16));
        using var flat = new FlatParameters([weight]);
        using var optimizer = new SgdConfig().Create(flat);
        for (var step = 0; step < 32; step++)
        {
            flat.ZeroGradients();
            weight.sum().backward();
            optimizer.Step(0.001);   // half a bfloat16 step below 1 is 0.002: without masters nothing would ever move
        }

        Assert.Equal(1 - 0.032, weight[0].to_type(ScalarType.Float32).item<float>(), 0.004);
        Assert.Equal(1 - 0.032, optimizer.State.Single().Tensor[0].item<float>(), 1e-5);
    }

    [Fact]
    public void The_norm_spans_all_tensors_and_clipping_scales_to_it()
    {
        using var scope = NewDisposeScope();
        Parameter[] parameters = [new(zeros(1)), new(zeros(2, 2))];
        using var flat = new FlatParameters(parameters);
        (parameters[0].sum() * 3 + parameters[1].sum() * 2).backward();   // √(9 + 4·4) = 5

        Assert.Equal(5, flat.GradientNorm(), 1e-6);
        flat.Clip(5, 10);
        Assert.Equal(5, flat.GradientNorm(), 1e-6);
        flat.Clip(5, 1);
        Assert.Equal(1, flat.GradientNorm(), 1e-5);
        Assert.Equal(0.6, parameters[0].grad!.item<float>(), 1e-5);
    }

    [Theory, MemberData(nameof(AllConfigs))]
    public void Steps_leak_no_tensor(OptimizerConfig config)
    {
        using var single = new Flat(config, Mixed);
        using var half = new Flat(config, ScalarType.BFloat16, Mixed);
        single.Run(1, 0.01);
        half.Run(1, 0.01);
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (var step = 0; step < 5; step++)
        {
            foreach (var flat in new[] { single, half })
            {
                flat.Run(1, 0.01);
                flat.Buffers.Clip(flat.Buffers.GradientNorm(), 1);
            }
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private static Parameter Filled(int start, params long[] shape) =>
        new(arange(start, start + shape.Aggregate(1L, (a, b) => a * b), ScalarType.Float32).sin().view(shape));

    /// <summary>Of every role, large and small, one that ends within a block, two of one shape.</summary>
    private static (TensorRole Role, long[] Shape)[] Mixed =>
    [
        (TensorRole.Weight, [16, 300]), (TensorRole.OutputFactor, [65, 64]), (TensorRole.Weight, [7]), (TensorRole.Embedding, [70, 60]),
        (TensorRole.Weight, [16, 300]), (TensorRole.Head, [5, 4]),
    ];

    private static double[] Steps(OptimizerConfig config, float weight, float gradient, double learningRate, int count)
    {
        using var scope = NewDisposeScope();
        var parameter = new Parameter(tensor(new[] { weight }));
        using var flat = new FlatParameters([parameter]);
        using var optimizer = config.Create(flat);
        return [.. Enumerable.Range(0, count).Select(_ =>
        {
            using var step = NewDisposeScope();
            flat.ZeroGradients();
            (parameter * gradient).sum().backward();
            optimizer.Step(learningRate);
            return Math.Round(parameter.item<float>(), 5);
        })];
    }
}
