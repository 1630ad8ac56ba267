using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Spectra;

/// <summary>Computes the spectra of a model's matrices and writes <c>spectra.json</c> and its drawings.</summary>
public static class SpectraWriter
{
    /// <summary>Spectra of every matrix that an adapter changes: of W, of ΔW and of W + ΔW.</summary>
    /// <param name="folder">Where the files go; created when it does not exist.</param>
    /// <param name="baseModel">
    /// Folder of the base model. Full fine-tuning keeps no copy of W, so its ΔW is taken against this folder; without it only the trained
    /// matrices are described.
    /// </param>
    /// <param name="ct">Asked before each matrix; nothing is written then.</param>
    public static SpectraReport Write(
        Adapter adapter, string folder, string? baseModel = null, SpectraLimits? limits = null, CancellationToken ct = default)
    {
        limits ??= SpectraLimits.Default;
        using var off = no_grad();
        using var original = baseModel is not null && adapter.Updates.Any(update => update.TrainsInPlace)
            ? LinearWeights.Open(baseModel) : null;
        var layers = adapter.Updates.Select(update =>
        {
            ct.ThrowIfCancellationRequested();
            return Describe(update, original, limits);
        }).ToList();
        return Write(layers, folder, limits, adapter.Quantization);
    }

    /// <summary>Spectra of a model on disk, alone, with an adapter, or against another model of the same shapes.</summary>
    /// <param name="modelFolder">Gives W.</param>
    /// <param name="adapterFolder">A PEFT folder that gives ΔW; null: none.</param>
    /// <param name="againstFolder">A model folder that gives W + ΔW, so that ΔW = W' − W; null: none.</param>
    /// <exception cref="TrainingException">A folder cannot be used, or both ways to a ΔW are asked for at once.</exception>
    public static SpectraReport Analyze(
        string modelFolder, string? adapterFolder, string? againstFolder, string outFolder, SpectraLimits? limits = null)
    {
        limits ??= SpectraLimits.Default;
        if (adapterFolder is not null && againstFolder is not null)
        {
            throw TrainingException.InvalidSpec("Give either an adapter or a model to compare against, not both.", "against");
        }

        using var off = no_grad();
        using var weights = LinearWeights.Open(modelFolder);
        if (adapterFolder is not null)
        {
            using var model = CausalLm.Load(modelFolder, weights.DType, CPU, QuantizedBase.Of(adapterFolder), score: ScoreHead.Of(adapterFolder));
            using var adapter = AdapterConfig.Saved(adapterFolder).Attach(model, seed: 0);
            return Write(adapter, outFolder, limits: limits);
        }

        using var against = againstFolder is null ? null : LinearWeights.Open(againstFolder);
        against?.CheckSameShapes(weights);
        var layers = weights.Modules.Select(module => Describe(module, weights, against, limits)).ToList();
        return Write(layers, outFolder, limits);
    }

    private static LayerSpectra Describe(LayerUpdate update, LinearWeights? original, SpectraLimits limits)
    {
        using var scope = NewDisposeScope();
        if (update.Factors is { } factors)
        {
            var weight = update.Weight;
            return LayerSpectra.Create(
                update.Module, weight.shape, Spectrum.Of(weight, limits),
                Spectrum.OfProduct(factors.Left, factors.Right, factors.Scale), Spectrum.Of(Adapter.Merge(update), limits),
                (int)factors.Right.shape[0], factors.Scale);
        }

        if (!update.TrainsInPlace)
        {
            var weight = update.Weight;
            return LayerSpectra.Create(
                update.Module, weight.shape, Spectrum.Of(weight, limits), Spectrum.Of(update.Delta, limits), Spectrum.Of(Adapter.Merge(update), limits));
        }

        var trained = update.Weight.to_type(ScalarType.Float32).cpu();
        return original is null
            ? LayerSpectra.Create(update.Module, trained.shape, Spectrum.Of(trained, limits))
            : Difference(update.Module, original.Read(update.Module), trained, limits);
    }

    private static LayerSpectra Describe(string module, LinearWeights weights, LinearWeights? against, SpectraLimits limits)
    {
        using var scope = NewDisposeScope();
        var weight = weights.Read(module);
        return against is null
            ? LayerSpectra.Create(module, weight.shape, Spectrum.Of(weight, limits))
            : Difference(module, weight, against.Read(module), limits);
    }

    private static LayerSpectra Difference(string module, Tensor before, Tensor after, SpectraLimits limits) => LayerSpectra.Create(
        module, before.shape, Spectrum.Of(before, limits), Spectrum.Of(after - before, limits), Spectrum.Of(after, limits));

    private static SpectraReport Write(
        List<LayerSpectra> layers, string folder, SpectraLimits limits, QuantizationConfig? quantization = null)
    {
        var report = new SpectraReport(SpectraReport.CurrentFormat, limits.ExactSize, quantization?.Name, layers);
        Directory.CreateDirectory(folder);
        File.WriteAllBytes(Path.Combine(folder, SpectraReport.FileName), JsonSerializer.SerializeToUtf8Bytes(report, SpectraReport.Json));
        foreach (var (name, svg) in layers.Count == 0 ? [] : SpectraDrawings.Draw(report))   // a method may change no matrix
        {
            File.WriteAllText(Path.Combine(folder, name), svg);
        }

        return report;
    }
}
