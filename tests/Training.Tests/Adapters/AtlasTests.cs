using TrainingService.Training.Adapters;
using TrainingService.Training.Exports;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>Fine-tuned models of the small model, each made once.</summary>
public sealed class TaskVectors
{
    public string Lora { get; } = Made(new LoraConfig { Rank = 4 }, rows: 0);

    /// <summary>Another rank in some layers, and other rows.</summary>
    public string Uneven { get; } = Made(new LoraConfig { Rank = 3, RankPattern = new Dictionary<string, int> { ["q_proj"] = 5 } }, rows: 1);

    /// <summary>No thin factors.</summary>
    public string Miss { get; } = Made(new MissConfig { Rank = 7 }, rows: 2);

    public static string Made(LayerAdapterConfig config, int rows)
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = config.Attach(model, seed: rows);
        using var optimizer = optim.SGD(adapter.Trainable.Select(tensor => tensor.Parameter), 0.5);
        var (ids, labels) = TinyModel.Batch();
        for (var step = 0; step < 6; step++)
        {
            optimizer.zero_grad();
            TinyModel.Loss(model, ids.narrow(0, rows, 1), labels.narrow(0, rows, 1)).backward();
            optimizer.step();
        }

        var folder = TinyModel.NewFolder();
        adapter.Save(folder, new("base"));
        return folder;
    }
}

[Collection(nameof(RandomNumbers))]
public class AtlasTests(TaskVectors vectors) : AdapterContract, IClassFixture<TaskVectors>
{
    protected override LayerAdapterConfig Config => new AtlasConfig { TaskVectors = [vectors.Lora, vectors.Uneven] };

    protected override double LearningRate => 0.02;

    [Fact]
    public void One_coefficient_of_one_is_that_fine_tuned_model()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var ids = TinyModel.Batch().Ids;
        foreach (var (index, folder) in ((AtlasConfig)Config).TaskVectors.Index())
        {
            using var tuned = TinyModel.Load();
            using var alone = AdapterConfig.Saved(folder).Attach(tuned, seed: 0);
            using var model = TinyModel.Load();
            using var mixed = Config.Attach(model, seed: 0);
            foreach (var coefficients in mixed.Trainable)
            {
                coefficients.Parameter[index] = 1f;
            }

            Assert.InRange(Numbers.RelativeError(TinyModel.Logits(model, ids), TinyModel.Logits(tuned, ids)), 0, 1e-5);
        }
    }

    [Fact]
    public void The_change_is_the_sum_of_the_scaled_changes()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var changes = ((AtlasConfig)Config).TaskVectors.Select(ChangeOf).ToList();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 0);
        adapter.Trainable[0].Parameter.copy_(tensor(new[,] { { 0.5f }, { -2f } }));

        Assert.InRange(Numbers.RelativeError(adapter.Updates[0].Delta, changes[0] * 0.5 - changes[1] * 2), 0, 1e-6);
        Assert.Equal(5, Filled.Fields(Saved(adapter))["vector_ranks"][1].GetInt32());
    }

    [Fact]
    public void It_trains_one_number_for_each_layer_and_task_vector() =>
        Assert.Equal(2 * 3 * 7, Config.Count(Training.Models.HuggingFaceFolder.ReadConfig(TinyModel.Folder())).Added);

    [Fact]
    public void It_is_used_without_the_folders_that_it_was_made_from()
    {
        using var scope = NewDisposeScope();
        var source = TaskVectors.Made(new LoraConfig { Rank = 2 }, rows: 1);
        using var model = TinyModel.Load();
        using var adapter = new AtlasConfig { TaskVectors = [source], Start = 0.75 }.Attach(model, seed: 0);
        var trained = TinyModel.Logits(model, TinyModel.Batch().Ids);
        var folder = Saved(adapter);
        Directory.Delete(source, recursive: true);

        using var other = TinyModel.Load();
        using var loaded = AdapterConfig.Saved(folder).Attach(other, seed: 0);

        Assert.True(TinyModel.Logits(other, TinyModel.Batch().Ids).equal(trained).all().item<bool>());
        Assert.DoesNotContain(Path.GetTempPath(), File.ReadAllText(Path.Combine(folder, "adapter_config.json")), StringComparison.Ordinal);
    }

    [Fact]
    public void A_model_folder_has_the_change_of_the_adapter_that_was_merged_into_it()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var merged = Path.Combine(TinyModel.NewFolder(), "merged");
        Exporter.Merged(TinyModel.Folder(), vectors.Lora, merged);
        using var model = TinyModel.Load();
        using var adapter = new AtlasConfig { TaskVectors = [merged], Start = 1 }.Attach(model, seed: 0);

        Assert.InRange(Numbers.RelativeError(adapter.Updates[0].Delta, ChangeOf(vectors.Lora)), 0, 1e-5);
    }

    [Fact]
    public void Layers_that_no_task_vector_changes_are_left_alone()
    {
        using var scope = NewDisposeScope();
        var source = TaskVectors.Made(new LoraConfig { Rank = 2, TargetModules = ModuleSelector.OfNames(["q_proj"]) }, rows: 0);
        using var model = TinyModel.Load();
        using var adapter = new AtlasConfig { TaskVectors = [source] }.Attach(model, seed: 0);

        Assert.Equal(3, adapter.Updates.Count);
        Assert.All(adapter.Updates, update => Assert.EndsWith("q_proj", update.Module, StringComparison.Ordinal));
    }

    [Fact]
    public void Learned_coefficients_beat_the_best_common_one_on_a_mixed_task()
    {
        // Task arithmetic has one coefficient for all layers and task vectors; the rows are those of both tasks.
        using var scope = NewDisposeScope();
        var (ids, labels) = TinyModel.Batch();
        (ids, labels) = (ids.narrow(0, 0, 2), labels.narrow(0, 0, 2));
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 0);
        var best = double.MaxValue;
        using (no_grad())
        {
            foreach (var common in Enumerable.Range(0, 16).Select(step => step * 0.2))
            {
                adapter.Trainable.ToList().ForEach(tensor => tensor.Parameter.fill_(common));
                best = Math.Min(best, TinyModel.Loss(model, ids, labels).item<float>());
            }

            adapter.Trainable.ToList().ForEach(tensor => tensor.Parameter.zero_());
        }

        using var optimizer = optim.AdamW(adapter.Trainable.Select(tensor => tensor.Parameter), lr: 0.1, weight_decay: 0);
        for (var step = 0; step < 40; step++)
        {
            optimizer.zero_grad();
            TinyModel.Loss(model, ids, labels).backward();
            optimizer.step();
        }

        Assert.InRange(TinyModel.Loss(model, ids, labels).item<float>(), 0, best * 0.95);
    }

    [Fact]
    public void A_fine_tuned_model_that_cannot_be_mixed_is_named()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        var full = TaskVectors.Made(new LoraConfig { Rank = 2, ModulesToSave = ["lm_head"] }, rows: 0);
        var before = model.NamedWeights().Select(weight => weight.Parameter.sum().item<float>()).ToList();
        string[] unusable = [full, Path.Combine(full, "absent"), TinyModel.Folder("qwen2")];

        Assert.All(unusable, folder =>
        {
            var error = Assert.Throws<TrainingException>(() => new AtlasConfig { TaskVectors = [vectors.Lora, folder] }.Attach(model, seed: 0));
            Assert.Equal("adapter.task_vectors[1]", error.Param);
        });
        Assert.Equal(before, model.NamedWeights().Select(weight => weight.Parameter.sum().item<float>()));
    }

    [Fact]
    public void A_whole_model_beside_quantised_weights_is_refused()
    {
        using var scope = NewDisposeScope();
        using var model = Training.Models.CausalLm.Load(TinyModel.Folder(), ScalarType.Float32, CPU, new Nf4Config());

        var error = Assert.Throws<TrainingException>(() => new AtlasConfig { TaskVectors = [TinyModel.Folder()] }.Attach(model, seed: 0));

        Assert.Contains("leave quantization out", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"type": "atlas"}""")]
    [InlineData("""{"type": "atlas", "task_vectors": ["a"], "from": "b"}""")]
    public void Task_vectors_come_from_one_place(string adapter) => Assert.Contains(
        SpecJson.Parse($$"""{"model": "m", "data": {"train": "t"}, "adapter": {{adapter}}}""").Errors, error => error.Path == "adapter.task_vectors");

    [Fact]
    public void Every_source_is_placed_anew()
    {
        var config = new AtlasConfig { TaskVectors = ["a", "b"], From = "c" };

        Assert.Equal(["c", "a", "b"], config.Sources());
        Assert.Equal(["/c", "/a", "/b"], config.WithSources(name => "/" + name).Sources());
    }

    private static Tensor ChangeOf(string folder)
    {
        using var model = TinyModel.Load();
        using var adapter = AdapterConfig.Saved(folder).Attach(model, seed: 0);
        return adapter.Updates[0].Delta.detach();
    }

    private static string Saved(Adapter adapter)
    {
        var folder = TinyModel.NewFolder();
        adapter.Save(folder, Card);
        return folder;
    }
}

[Collection(nameof(RandomNumbers))]
public class GroupedAtlasTests(TaskVectors vectors) : AdapterContract, IClassFixture<TaskVectors>
{
    protected override LayerAdapterConfig Config => new AtlasConfig { TaskVectors = [vectors.Lora, vectors.Miss], Groups = 4, GroupSeed = 3 };

    protected override double LearningRate => 0.5;

    [Fact]
    public void Every_number_belongs_to_one_group_and_groups_are_about_as_large()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var model = TinyModel.Load();
        using var adapter = Config.Attach(model, seed: 0);
        var coefficients = adapter.Trainable[0].Parameter;
        var update = adapter.Updates[0];
        coefficients.zero_();
        coefficients[1] = tensor(new[] { 1f, 2, 3, 4 });
        var scaled = update.Delta;
        coefficients[1] = 1f;

        var groups = (scaled / update.Delta).round().to_type(ScalarType.Int64).flatten().bincount(null);

        Assert.Equal(5, groups.shape[0]);
        Assert.InRange(groups.narrow(0, 1, 4).min().item<long>(), update.Weight.numel() / 5, update.Weight.numel() / 4);
    }

    [Fact]
    public void Another_seed_makes_other_groups()
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var changes = Enumerable.Range(0, 2).Select(seed =>
        {
            using var model = TinyModel.Load();
            using var adapter = ((AtlasConfig)Config with { GroupSeed = seed }).Attach(model, seed: 0);
            Filled.ByFormula(adapter, 1);
            return adapter.Updates[0].Delta.detach();
        }).ToList();

        Assert.True(Numbers.RelativeError(changes[0], changes[1]) > 0.1);
    }
}
