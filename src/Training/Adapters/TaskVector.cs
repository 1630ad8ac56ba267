using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>What a fine-tuned model changed in the linear layers of its base: θ_t − θ₀.</summary>
internal static class TaskVector
{
    /// <summary>Name of a tensor among those of all layers.</summary>
    public static string Key(string layer, string tensor) => $"{layer}.{tensor}";

    /// <summary>Reads the changes of every folder in the chosen layers; layers that one leaves as they are have none.</summary>
    /// <param name="model">The base, without an adapter.</param>
    /// <param name="folders">Adapter folders of any method on linear layers, or model folders.</param>
    /// <returns>Factors where a layer's change has them, else the change; float32, in the caller's dispose scope.</returns>
    /// <exception cref="TrainingException">A folder cannot be used, or changes more than linear layers.</exception>
    public static IReadOnlyDictionary<string, Tensor> ReadAll(CausalLm model, IReadOnlyList<LinearShape> layers, IReadOnlyList<string> folders)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var read = new Dictionary<string, Tensor>();
        var names = layers.Select(layer => layer.Name).ToHashSet();
        foreach (var (index, folder) in folders.Index())
        {
            var path = SpecPath.Item("adapter.task_vectors", index);
            try
            {
                if (File.Exists(Path.Combine(folder, PeftConfig.FileName)))
                {
                    OfAdapter(model, names, folder, index, read);
                }
                else
                {
                    OfModel(model, names, folder, index, read);
                }
            }
            catch (TrainingException error)
            {
                throw new TrainingException(
                    error.Code, $"{path} ('{Path.GetFileName(Path.TrimEndingDirectorySeparator(folder))}') cannot be used: {error.Message}", path, error);
            }
        }

        foreach (var tensor in read.Values)
        {
            tensor.MoveToOuterDisposeScope();
        }

        return read;
    }

    /// <summary>The rank that holds a task vector in every layer; 0 where a layer's change has no factors, or where they would be larger than it.</summary>
    public static int RankOf(IReadOnlyList<LinearShape> layers, IReadOnlyDictionary<string, Tensor> read, int vector)
    {
        if (layers.Any(layer => read.ContainsKey(Key(layer.Name, AtlasConfig.DeltaOf(vector)))))
        {
            return 0;
        }

        var rank = layers.Max(layer => read.TryGetValue(Key(layer.Name, AtlasConfig.LeftOf(vector)), out var left) ? left.shape[1] : 1);
        return layers.Sum(layer => rank * (layer.In + layer.Out)) < layers.Sum(layer => layer.In * layer.Out) ? (int)rank : 0;
    }

    private static void OfAdapter(CausalLm model, HashSet<string> names, string folder, int index, Dictionary<string, Tensor> read)
    {
        var saved = PeftFolder.Open(folder).Choice;
        if (saved.RefusesMerging is { } refusal)
        {
            throw TrainingException.InvalidSpec($"It changes no weights: {refusal}");
        }

        if (saved.Trained(model.Config).Any(tensor => !tensor.IsAdded))
        {
            // Attaching it would change the model itself.
            throw TrainingException.InvalidSpec(
                "It trained weights of the model in place (whole modules, biases, norms or single numbers); merge it and name the model folder, "
                + "of which the linear layers count.");
        }

        using var adapter = AdapterConfig.Saved(folder).Attach(model, seed: 0);
        foreach (var update in adapter.Updates.Where(update => names.Contains(update.Module)))
        {
            if (update.Factors is { } factors)
            {
                read.Add(Key(update.Module, AtlasConfig.LeftOf(index)), factors.Left * factors.Scale);
                read.Add(Key(update.Module, AtlasConfig.RightOf(index)), factors.Right.clone());
            }
            else
            {
                read.Add(Key(update.Module, AtlasConfig.DeltaOf(index)), update.Delta);
            }
        }
    }

    private static void OfModel(CausalLm model, HashSet<string> names, string folder, int index, Dictionary<string, Tensor> read)
    {
        if (model.Quantization is not null)
        {
            throw TrainingException.InvalidSpec(
                "It is a whole model, and its difference to quantised weights would hold their rounding; leave quantization out, or name an adapter.");
        }

        using var checkpoint = CheckpointFolder.Open(folder);
        var stored = CheckpointNames.Match(model.Config, checkpoint);
        foreach (var slot in model.Linears.Where(slot => names.Contains(slot.Name)))
        {
            using var scope = NewDisposeScope();

            // Both rounded to the format of this run: what was not trained has no difference.
            var tuned = checkpoint.Read(stored[slot.Name + ".weight"], model.DType, model.Device).to_type(ScalarType.Float32);
            var change = tuned - AdaptedLinear.WeightOf(slot.Base).to_type(ScalarType.Float32);
            if (!change.isfinite().all().item<bool>())
            {
                throw TrainingException.InvalidData($"'{slot.Name}.weight' holds numbers that are not finite; the model is damaged.");
            }

            if (change.count_nonzero().item<long>() > 0)
            {
                read.Add(Key(slot.Name, AtlasConfig.DeltaOf(index)), change.MoveToOuterDisposeScope());
            }
        }
    }
}
