using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

public class SaraTests : AdapterContract
{
    private const string Module = "model.layers.0.self_attn.q_proj";   // 64 x 64

    protected override LayerAdapterConfig Config => new SaraConfig { Share = 0.1 };

    protected override double LearningRate => 1;

    /// <summary>Two numbers of one layer.</summary>
    private static SaraConfig Two => new() { Share = 2.0 / 4096, TargetModules = ModuleSelector.OfNames([Module]) };

    [Fact]
    public void It_touches_the_smallest_numbers_only()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var before = model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter.detach().clone());
        using var adapter = Config.Attach(model, seed: 1);
        Step(model, adapter, LearningRate, steps: 2);
        adapter.MergeIntoModel();

        var adapted = adapter.Updates.Select(update => update.Module + ".weight").ToHashSet();
        foreach (var (name, weight) in model.NamedWeights().Where(weight => adapted.Contains(weight.Name)))
        {
            var (old, changed) = (before[name], weight.ne(before[name]));
            var kept = changed.logical_not();
            Assert.InRange(changed.sum().item<long>(), 1, (long)(0.1 * old.numel()));
            Assert.True(old[changed].abs().max().item<float>() <= old[kept].abs().topk(1, 0, largest: true).values.item<float>(), name);
            Assert.Equal((long)(0.1 * old.numel()), changed.sum().item<long>() + old[kept].abs().le(old[changed].abs().max()).sum().item<long>());
        }

        Assert.All(model.NamedWeights().Where(weight => !adapted.Contains(weight.Name)), weight =>
            Assert.True(weight.Parameter.equal(before[weight.Name]).all().item<bool>(), weight.Name));
    }

    [Fact]
    public void The_regulariser_is_the_sum_of_the_singular_values_of_what_trains()
    {
        // All of W is 1 but 0.03 at (0, 0) and -0.04 at (5, 7): those two train. In a matrix of zeros their singular values are 0.04 and 0.03.
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        SetSmallest(model);
        using var adapter = (Two with { NuclearNorm = 0.5 }).Attach(model, seed: 1);
        using var values = Filled.Of(adapter, SaraConfig.Values).alias();

        var penalty = adapter.Regulariser()!;
        penalty.backward();

        Assert.Equal(0.035, penalty.item<float>(), 1e-7);
        Assert.Equal([0.5, -0.5], values.grad!.data<float>().Select(number => Math.Round(number, 5)));   // λ times the signs
    }

    [Fact]
    public void Numbers_that_outgrow_the_choice_stop()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        SetSmallest(model);
        using var adapter = (Two with { RefreshAt = 0.5 }).Attach(model, seed: 1);
        adapter.Begin(4);
        var values = Filled.Of(adapter, SaraConfig.Values);

        adapter.AfterStep(1);
        values.copy_(tensor(new[] { 0.05f, 0.01f }));   // 0.08 and -0.03, beside 0.04 as the largest of the start
        adapter.AfterStep(2);
        values.copy_(tensor(new[] { 0.06f, 0.02f }));
        adapter.AfterStep(3);

        Assert.Equal([0.05f, 0.02f], values.data<float>().ToArray());
    }

    [Fact]
    public void A_resume_knows_what_has_stopped_and_draws_the_same_layers()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        var config = (SaraConfig)Config with { NuclearNorm = 1e-3 };
        using var model = TinyModel.Load();
        using var adapter = config.Attach(model, seed: 3);
        adapter.Begin(8);
        Run(model, adapter, from: 1, to: 5);   // the choice is renewed after step 4
        adapter.Save(folder, Card);
        var state = adapter.State;

        using var other = TinyModel.Load();
        using var resumed = config.Attach(other, seed: 3, restoring: folder);
        resumed.Begin(8);
        resumed.Load(folder);
        resumed.Restore(state);
        var layers = Run(model, adapter, from: 6, to: 8);

        Assert.Equal(layers, Run(other, resumed, from: 6, to: 8));
        Assert.True(layers.Distinct().Count() > 1);
        Assert.True(state.Tensors.Sum(tensor => tensor.Tensor.sum().item<long>()) > 0);
        Assert.All(adapter.Trainable.Zip(resumed.Trainable), pair =>
            Assert.True(pair.First.Parameter.equal(pair.Second.Parameter).all().item<bool>(), pair.First.Name));
    }

    [Fact]
    public void Places_that_a_weight_does_not_have_are_refused()
    {
        using var scope = NewDisposeScope();
        var folder = TinyModel.NewFolder();
        using var model = TinyModel.Load();
        using (var adapter = Two.Attach(model, seed: 1))
        {
            adapter.Save(folder, Card);
        }

        var path = Path.Combine(folder, "adapter_model.safetensors");
        var bytes = File.ReadAllBytes(path);
        var places = bytes.AsSpan()[^16..];   // two float32 and two int32, in whichever order
        BitConverter.TryWriteBytes(places, 4096);
        BitConverter.TryWriteBytes(places[8..], 4096);
        File.WriteAllBytes(path, bytes);

        var error = Assert.Throws<TrainingException>(() => AdapterConfig.Saved(folder).Attach(model, seed: 1));
        Assert.Contains("numbers that its weight does not have", error.Message, StringComparison.Ordinal);
    }

    /// <returns>The regulariser's value at each step, which tells the layers apart.</returns>
    private static List<float> Run(CausalLm model, Adapter adapter, int from, int to)
    {
        List<float> penalties = [];
        using var scope = NewDisposeScope();
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 1);
        var (ids, labels) = TinyModel.Batch();
        for (var step = from; step <= to; step++)
        {
            optimizer.zero_grad();
            var penalty = adapter.Regulariser()!;
            (TinyModel.Loss(model, ids, labels) + penalty).backward();
            optimizer.step();
            adapter.AfterStep(step);
            penalties.Add(penalty.item<float>());
        }

        return penalties;
    }

    private static void SetSmallest(CausalLm model)
    {
        using var off = no_grad();
        var weight = model.NamedWeights().Single(weight => weight.Name == Module + ".weight").Parameter;
        weight.fill_(1);
        weight[0, 0] = 0.03f;
        weight[5, 7] = -0.04f;
    }
}
