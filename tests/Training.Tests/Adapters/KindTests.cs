using TorchSharp.Modules;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Exports;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>An adapter that was taught two classes at once, made once.</summary>
public sealed class TaughtClasses
{
    internal static readonly KindConfig Config = new() { Classes = ["a", "b"], Learngenes = 4, Tailors = 3 };

    public string Folder { get; } = Teach();

    /// <summary>Four prompts, the same in both classes, with answers of two tokens that are the class's own.</summary>
    public static IReadOnlyList<Example> Rows(string name) =>
    [
        .. Enumerable.Range(0, 4).Select(row =>
        {
            var answer = (name == "a" ? 100 : 150) + 7 * row;
            int[] ids = [5 + 3 * row, 20 + 5 * row, 60 + row, answer, answer + 30];
            return new Example(ids, [.. ids.Select((id, place) => place < 3 ? Example.Ignored : id)], row + 1) { Class = name == "a" ? 0 : 1 };
        }),
    ];

    private static string Teach()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new AdamWConfig { WeightDecay = 0 }.Create(parameters);
        var plan = new BatchPlan([.. Rows("a"), .. Rows("b")], batchSize: 8, padId: 0, packTo: null, shuffleSeed: 3);
        for (var step = 0; step < 40; step++)
        {
            TrainingStep.Backward(model, adapter, new SftConfig(), parameters, [.. plan.ForEpoch(step).Select(plan.Collate)], CPU);
            optimizer.Step(1e-2);
        }

        var folder = TinyModel.NewFolder();
        adapter.Save(folder, new("base"));
        return folder;
    }
}

[Collection(nameof(RandomNumbers))]
public class KindTests(TaughtClasses taught) : AdapterContract, IClassFixture<TaughtClasses>
{
    private const int Shared = 4;
    private const int Own = 3;

    protected override LayerAdapterConfig Config => Kind with { ActiveClass = "a" };

    protected override double StartError => 1e-6;   // the start is subtracted, and sums round

    protected override double LearningRate => 0.02;

    private static KindConfig Kind => TaughtClasses.Config;

    [Theory]
    [InlineData(null, new[] { 1f, 0, 0, 0 })]
    [InlineData("a", new[] { 1f, 0, 0, 2 })]
    [InlineData("b", new[] { 1f, 0, 0, -1 })]
    public void The_change_of_a_small_matrix_is_the_one_by_hand(string? active, float[] expected)
    {
        // W = diag(3, 1): the learngene starts as 3·e₁e₁ᵀ, and both tailors as 1·e₂e₂ᵀ. With σ = (4, 3, 0) they change by 1, 2 and -1.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var layer = Small(active);

        Assert.Equal(expected, layer.Delta().data<float>().ToArray(), (one, other) => Math.Abs(one - other) < 1e-6);
    }

    [Fact]
    public void Each_token_passes_its_own_gate()
    {
        // (W + ΔW)·(1, 1) of the three cases above: class a, class b, none.
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var layer = Small(active: null);
        layer.SetGate(KindGate.Of(Two, tensor(new long[] { 0, 1, Batch.NoClass }, [1, 3])));

        var outputs = layer.forward(ones(1, 3, 2)).data<float>().ToArray();

        Assert.Equal((float[])[4, 3, 4, 0, 4, 1], outputs, (one, other) => Math.Abs(one - other) < 1e-5);
    }

    [Fact]
    public void Rows_of_one_class_give_no_gradient_to_another()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = Kind.Attach(model, seed: 1);
        var plan = new BatchPlan(TaughtClasses.Rows("a"), batchSize: 4, padId: 0, packTo: null, shuffleSeed: null);
        var batch = plan.Collate(plan.ForEpoch(0)[0]);
        using (adapter.BeginBatch(batch))
        {
            BackwardPass.OfThisThread.Run(new SftConfig().Measure(model, null, batch, CPU).Sum);
        }

        foreach (var trained in adapter.Trainable)
        {
            var axis = trained.Name.EndsWith(KindConfig.Left, StringComparison.Ordinal) ? 1 : 0;
            var gradient = trained.Parameter.grad!;
            Assert.True(gradient.narrow(axis, 0, Shared).abs().max().item<float>() > 0, trained.Name);
            Assert.True(gradient.narrow(axis, Shared, Own).abs().max().item<float>() > 0, trained.Name);
            Assert.Equal(0, gradient.narrow(axis, Shared + Own, Own).abs().max().item<float>());
        }
    }

    [Fact]
    public void What_two_classes_merge_differs_by_their_own_components()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Kind.Attach(model, seed: 1);
        Filled.ByFormula(adapter, 0.5);
        var (left, values, right) = (Filled.Of(adapter, "0.self_attn.q_proj.kind_u"), Filled.Of(adapter, "0.self_attn.q_proj.kind_s"), Filled.Of(adapter, "0.self_attn.q_proj.kind_v"));
        var folder = Saved(adapter);
        var merged = ((string[])["a", "b"]).Select(name =>
        {
            using var other = TinyModel.Load();
            using var saved = AdapterConfig.Saved(folder, name).Attach(other, seed: 0);
            var update = saved.Updates.Single(update => update.Module.EndsWith("0.self_attn.q_proj", StringComparison.Ordinal));
            return Adapter.Merge(update);
        }).ToList();

        Tensor OwnOf(int number) => (left.narrow(1, Shared + number * Own, Own) * values.narrow(0, Shared + number * Own, Own))
            .mm(right.narrow(0, Shared + number * Own, Own));
        Assert.InRange(Numbers.RelativeError(merged[0] - merged[1], OwnOf(0) - OwnOf(1)), 0, 1e-4);
    }

    [Theory]
    [InlineData(1, null, false)]
    [InlineData(3, null, false)]
    [InlineData(2, 12, false)]
    [InlineData(1, 40, false)]
    [InlineData(2, 12, true)]
    public void Classes_do_not_mix_in_batches_and_packed_rows(int batchSize, int? packTo, bool recomputed)
    {
        IReadOnlyList<Example> rows = [.. TaughtClasses.Rows("a").Zip(TaughtClasses.Rows("b"), (one, other) => new[] { one, other }).SelectMany(pair => pair)];
        var (loss, gradient) = Measured(rows, batchSize: 8, packTo: null, recomputed: false);

        var (otherLoss, otherGradient) = Measured(rows, batchSize, packTo, recomputed);

        Assert.Equal(loss, otherLoss, 1e-5);
        Assert.True(Runs.RunFolder.RelativeError(otherGradient, gradient) <= 1e-4);
    }

    [Fact]
    public void The_part_of_a_class_swaps_behaviour()
    {
        // The same prompts with one answer in class a and another in class b. What is taught is what the class in use answers.
        using var scope = NewDisposeScope();
        var folder = taught.Folder;
        var (a, b) = (TaughtClasses.Rows("a"), TaughtClasses.Rows("b"));
        foreach (var (name, own, others) in new[] { ("a", a, b), ("b", b, a) })
        {
            using var model = TinyModel.Load();
            using var adapter = AdapterConfig.Saved(folder, name).Attach(model, seed: 0);
            adapter.SetTraining(false);
            Assert.Equal(own.Select(Answer), own.Select(row => Said(model, row)));
            Assert.InRange(LossOf(model, own), 0, 1);
            Assert.InRange(LossOf(model, others), 4, 1000);
        }
    }

    [Fact]
    public void A_class_is_exported_by_itself()
    {
        var folder = taught.Folder;
        var merged = Path.Combine(TinyModel.NewFolder(), "merged");
        Assert.True(Exporter.Merged(TinyModel.Folder(), folder, merged, "b").Holds);
        using var model = CausalLm.Load(merged, ScalarType.Float32, CPU);
        Assert.Equal(TaughtClasses.Rows("b").Select(Answer), TaughtClasses.Rows("b").Select(row => Said(model, row)));

        var clean = Path.Combine(TinyModel.NewFolder(), "peft");
        Assert.Equal(0, Exporter.Peft(TinyModel.Folder(), folder, clean, "b").RelativeError);
        Assert.Equal("b", Filled.Fields(clean)["active_class"].GetString());

        // Twice seven components: what trained, and what it started as.
        var report = LoraExporter.Write(TinyModel.Folder(), folder, Path.Combine(TinyModel.NewFolder(), "lora"), 2 * (Shared + Own), "b");
        Assert.InRange(report.ApproximationError!.Value, 0, 1e-5);
    }

    [Fact]
    public void A_class_that_there_is_not_is_refused()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var lora = new LoraConfig { Rank = 2 }.Attach(model, seed: 0);
        var plain = Saved(lora);
        lora.Dispose();
        using var adapter = Kind.Attach(model, seed: 0);
        var folder = Saved(adapter);
        adapter.Dispose();

        Assert.Equal("adapter.active_class", Assert.Throws<TrainingException>(() => AdapterConfig.Saved(folder, "c").Attach(model, seed: 0)).Param);
        Assert.Contains("no parts by class", Assert.Throws<TrainingException>(() => AdapterConfig.Saved(plain, "a")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Without_shared_components_and_without_a_class_it_is_the_base_model()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var ids = TinyModel.Batch().Ids;
        var before = TinyModel.Logits(model, ids);
        using var adapter = (Kind with { Learngenes = 0 }).Attach(model, seed: 1);
        Filled.ByFormula(adapter, 1);

        Assert.True(TinyModel.Logits(model, ids).equal(before).all().item<bool>());
        Assert.Equal(0, adapter.Updates[0].Delta.abs().max().item<float>());
        adapter.MergeIntoModel();
        Assert.True(TinyModel.Logits(model, ids).equal(before).all().item<bool>());
    }

    [Fact]
    public void A_component_costs_its_two_vectors_and_its_number()
    {
        // Seven layers in each of three blocks of the small model; the formula of the paper's form, (m + n + 1) a component.
        var model = HuggingFaceFolder.ReadConfig(TinyModel.Folder());

        Assert.Equal(LayerPlan.LinearsOf(model).Sum(layer => (Shared + 2 * Own) * (layer.In + layer.Out + 1)), Kind.Count(model).Added);
    }

    [Theory]
    [InlineData("""{"type": "kind"}""", "adapter.classes", "is empty")]
    [InlineData("""{"type": "kind", "classes": ["a", "a"]}""", "adapter.classes", "2 times")]
    [InlineData("""{"type": "kind", "classes": ["a", " "]}""", "adapter.classes[1]", "is empty")]
    [InlineData("""{"type": "kind", "classes": ["a"], "active_class": "b"}""", "adapter.active_class", "use one of 'a'")]
    public void Classes_that_cannot_be_are_named(string adapter, string path, string words) => Assert.Contains(
        SpecJson.Parse($$"""{"model": "m", "data": {"train": "t"}, "adapter": {{adapter}}}""").Errors,
        error => error.Path == path && error.Message.Contains(words, StringComparison.Ordinal));

    [Fact]
    public void More_components_than_a_layer_has_are_refused()
    {
        var error = Assert.Single((Kind with { Learngenes = 30, Tailors = 3 }).Check(HuggingFaceFolder.ReadConfig(TinyModel.Folder())));

        Assert.Equal(("adapter.learngenes", SpecErrorCodes.RankTooLarge), (error.Path, error.Code));
        Assert.Contains("at most 32", error.Message, StringComparison.Ordinal);
    }

    private static KindConfig Two => new() { Classes = ["a", "b"], Learngenes = 1, Tailors = 1 };

    /// <summary>A layer around diag(3, 1), away from its start.</summary>
    private static KindLinear Small(string? active)
    {
        var config = Two with { ActiveClass = active };
        var shape = new LinearShape("layer", Out: 2, In: 2);
        var frozen = new Training.Models.Linear(new Parameter(tensor(new[,] { { 3f, 0 }, { 0, 1f } }), requires_grad: false), null);
        var tensors = config.TensorsOf(shape).ToDictionary(
            declared => declared.Name, declared => new Parameter(zeros([.. declared.Shape], dtype: ScalarType.Float32), declared.Trains));
        var layer = new KindLinear(new(new LinearSlot("layer", nn.Identity(), "layer", frozen), shape, tensors, new Dictionary<string, Tensor>()), config);
        using var random = new Generator(0, CPU);
        layer.Initialise(new(random, new Dictionary<string, Tensor>()));
        tensors[KindConfig.Values].copy_(tensor(new[] { 4f, 3, 0 }));
        return layer;
    }

    private static (double Loss, float[] Gradient) Measured(IReadOnlyList<Example> rows, int batchSize, int? packTo, bool recomputed)
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        model.Checkpointing = recomputed ? ActivationCheckpointing.Full : ActivationCheckpointing.Off;
        using var adapter = Kind.Attach(model, seed: 1);
        using (no_grad())
        {
            foreach (var tensor in adapter.Trainable)
            {
                tensor.Parameter.add_(arange(tensor.Parameter.numel(), dtype: ScalarType.Float32).sin().mul(0.05).reshape(tensor.Parameter.shape));
            }
        }

        using var parameters = new FlatParameters(adapter.Trainable);
        var plan = new BatchPlan(rows, batchSize, padId: 0, packTo, shuffleSeed: null);
        var result = TrainingStep.Backward(model, adapter, new SftConfig(), parameters, [.. plan.ForEpoch(0).Select(plan.Collate)], CPU);
        return (result.Loss, [.. adapter.Trainable.SelectMany(tensor => tensor.Parameter.grad!.data<float>().ToArray())]);
    }

    private static int Answer(Example row) => row.InputIds[3];

    /// <summary>The token that the model finds most likely behind a prompt.</summary>
    private static int Said(CausalLm model, Example row)
    {
        using var scope = NewDisposeScope();
        var prompt = tensor(row.InputIds[..3].Select(id => (long)id).ToArray()).unsqueeze(0);
        return (int)TinyModel.Logits(model, prompt)[0, -1].argmax().item<long>();
    }

    private static double LossOf(CausalLm model, IReadOnlyList<Example> rows)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var plan = new BatchPlan(rows, batchSize: 4, padId: 0, packTo: null, shuffleSeed: null);
        var batch = plan.Collate(plan.ForEpoch(0)[0]);
        return new SftConfig().Measure(model, null, batch, CPU).Sum.item<float>() / batch.TrainableTokens;
    }

    private static string Saved(Adapter adapter)
    {
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        return folder;
    }
}
