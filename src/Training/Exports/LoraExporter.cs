using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Exports;

/// <summary>One layer of an export as LoRA.</summary>
/// <param name="Rank">Rank of the written factors.</param>
/// <param name="RelativeError">‖ΔW − B·A‖ / ‖ΔW‖, Frobenius; 0 where ΔW is zero.</param>
public sealed record LoraLayerReport(string Module, int Rank, double RelativeError);

/// <summary>Any adapter on linear layers as a plain LoRA for the same base, which every tool loads.</summary>
/// <remarks>
/// Where a change of a matrix is a product of factors within the rank, these are written as they are; else its largest singular values, which
/// is the nearest matrix of that rank (Eckart and Young 1936). The factors share the values: B = U·√S, A = √S·Vᵀ, with a scale of one.
/// </remarks>
public static class LoraExporter
{
    /// <summary>Float32 sums in another order differ by this much.</summary>
    private const double Float32Bound = 1e-5;

    /// <summary>Writes the adapter, reads it again, and compares its logits with those of the factors folded into the weights.</summary>
    /// <param name="rank">Largest rank of a layer.</param>
    /// <param name="activeClass">See <see cref="AdapterConfig.Saved"/>.</param>
    /// <exception cref="TrainingException">
    /// The adapter does not fit, changes more than linear layers, or a comparison failed; nothing is left behind.
    /// </exception>
    public static ExportReport Write(string modelFolder, string adapterFolder, string outFolder, int rank, string? activeClass = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(rank, 1);
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var source = PeftFolder.Open(adapterFolder);
        Exporter.RefuseUnmergeable(source.Choice, "lora");
        using var folder = new ExportFolder(outFolder);

        // An adapter with codes of its own changes no base that others quantise: what it is to the weights in the file is written.
        var ownBase = source.Config.MakesQuantizedBase;
        var held = QuantizedBase.Of(adapterFolder);
        var quantization = ownBase ? null : held;
        using var model = CausalLm.Load(modelFolder, ScalarType.Float32, CPU, held, score: ScoreHead.Of(adapterFolder));
        using var plain = ProbeLogits.Of(model);
        Dictionary<string, (Tensor B, Tensor A)> factors;
        List<LoraLayerReport> layers;
        ProbeLogits adapted;
        using (var adapter = AdapterConfig.Saved(adapterFolder, activeClass).Attach(model, seed: 0))
        {
            adapter.SetTraining(false);
            adapted = ProbeLogits.Of(model);
            (factors, layers) = FactorsOf(adapter, rank, held is not null && ownBase ? model : null);
            RefuseOthers(adapter, source.Config);
        }

        using (adapted)
        {
            var baseModel = source.BaseModel ?? Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(modelFolder)));
            using (var fresh = CausalLm.Load(modelFolder, ScalarType.Float32, CPU, quantization))
            using (var lora = ConfigOf(layers, rank).Attach(fresh, seed: 0))
            {
                Fill(lora, factors);
                lora.Save(folder.Path, new ModelCard(baseModel));
                lora.MergeIntoModel();
                using var folded = ProbeLogits.Of(fresh);
                using var again = CausalLm.Load(modelFolder, ScalarType.Float32, CPU, quantization);
                using var read = AdapterConfig.Saved(folder.Path).Attach(again, seed: 0);
                read.SetTraining(false);
                using var after = ProbeLogits.Of(again);
                var report = new ExportReport(
                    "lora", ProbeLogits.Prompts, ProbeLogits.Length(model.Config), AlgebraError: null, after.RelativeError(folded), Float32Bound,
                    after.MaxAbsoluteError(folded), plain.RelativeError(adapted), SafeTensorType.F32.WireName())
                {
                    ApproximationError = after.RelativeError(adapted),
                    Layers = layers,
                };
                return Exporter.Finish(report, folder);
            }
        }
    }

    private static (Dictionary<string, (Tensor B, Tensor A)> Factors, List<LoraLayerReport> Layers) FactorsOf(
        Adapter adapter, int rank, CausalLm? ownBase)
    {
        var originals = ownBase?.Linears.ToDictionary(slot => slot.Name);
        var factors = new Dictionary<string, (Tensor B, Tensor A)>();
        var layers = new List<LoraLayerReport>();
        foreach (var update in adapter.Updates)
        {
            using var scope = NewDisposeScope();
            var delta = originals is null ? update.Delta : Adapter.Merge(update) - AdaptedLinear.OriginalWeight(originals[update.Module]);
            var (b, a) = originals is null && update.Factors is { } thin && thin.Right.shape[0] <= rank
                ? (thin.Left * thin.Scale, thin.Right.clone())
                : Nearest(delta, Math.Min(rank, delta.shape.Min()));
            var norm = delta.norm().item<float>();
            layers.Add(new(update.Module, (int)a.shape[0], norm == 0 ? 0 : ((delta - b.mm(a)).norm().item<float>() / norm)));
            factors.Add(update.Module, (b.contiguous().MoveToOuterDisposeScope(), a.MoveToOuterDisposeScope()));
        }

        return (factors, layers);
    }

    private static (Tensor B, Tensor A) Nearest(Tensor delta, long rank)
    {
        var (left, values, right) = SingularVectors.Largest(delta, rank);
        var root = values.sqrt();
        return (left * root, root.unsqueeze(1) * right);
    }

    // A LoRA holds factors of linear layers alone here: what else trained has no place in them.
    private static void RefuseOthers(Adapter adapter, LayerAdapterConfig config)
    {
        if (adapter.Updates.Count == 0 || config.ModulesToSave.Count > 0 || config.TrainedBiases != BiasTraining.None)
        {
            throw TrainingException.InvalidSpec(
                $"The adapter ({config.Title}) trained more than changes of linear layers (norms, biases or whole modules), which factors cannot hold; "
                + "export it as merged.", "format");
        }
    }

    private static LoraConfig ConfigOf(IReadOnlyList<LoraLayerReport> layers, int rank)
    {
        var other = layers.Where(layer => layer.Rank != rank).ToDictionary(layer => "^" + layer.Module.Replace(".", "\\.", StringComparison.Ordinal) + "$", layer => layer.Rank);
        return new()
        {
            Rank = rank,
            Alpha = rank,
            RankPattern = other,
            AlphaPattern = other.ToDictionary(entry => entry.Key, entry => (double)entry.Value),
            TargetModules = ModuleSelector.OfNames([.. layers.Select(layer => layer.Module)]),
        };
    }

    private static void Fill(Adapter lora, Dictionary<string, (Tensor B, Tensor A)> factors)
    {
        foreach (var (name, parameter) in lora.Trainable)
        {
            var isA = name.EndsWith("." + LowRankConfig.A, StringComparison.Ordinal);
            var module = name[PeftFolder.KeyPrefix.Length..^((isA ? LowRankConfig.A : LowRankConfig.B).Length + 1)];
            parameter.copy_(isA ? factors[module].A : factors[module].B);
        }
    }
}
