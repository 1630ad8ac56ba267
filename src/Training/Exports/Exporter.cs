using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Quantization;
using TrainingService.Training.Scoring;
using static TorchSharp.torch;

namespace TrainingService.Training.Exports;

/// <summary>Verified exports: files appear only after their logits were found equal to the adapted model's.</summary>
public static class Exporter
{
    /// <summary>Float32 sums in another order differ by this much; ten times what the reference implementations show.</summary>
    private const double Float32Bound = 1e-5;

    /// <summary>
    /// A model folder with W + ΔW in place of W: the update is added in float32 and rounded once to the base model's format, biases and
    /// whole modules that the adapter trained take the place of the base model's, and every other file of the folder is kept. Where the
    /// adapter was trained on a quantised base, W is the dequantised weight, in all layers that were quantised.
    /// </summary>
    /// <remarks>
    /// Two comparisons, both against the adapted model in float32 arithmetic. Folding the update into float32 weights must not change the
    /// logits by more than 1e-5: this finds a wrong merge however small the adapter is. The written files may differ by the rounding of their
    /// format: each rounding is off by at most u (2⁻⁸ for bfloat16, 2⁻¹¹ for float16) and by 0.4·u on average, roundings are independent, so
    /// over the layers in sequence they add up to about u·√layers; twice that is allowed.
    /// </remarks>
    /// <param name="activeClass">See <see cref="AdapterConfig.Saved"/>.</param>
    /// <exception cref="TrainingException">The adapter does not fit, or a comparison failed; nothing is left behind.</exception>
    public static ExportReport Merged(string modelFolder, string adapterFolder, string outFolder, string? activeClass = null)
    {
        using var off = no_grad();
        RefuseUnmergeable(PeftFolder.Open(adapterFolder).Choice, "merged");
        if ((ScoreHead.Of(adapterFolder) ?? HuggingFaceFolder.ReadConfig(modelFolder).Score) is { Layers: ScoreLayers.Mlp, KeepsTokens: false })
        {
            throw TrainingException.InvalidSpec(
                "The adapter's score head has two layers, and the sequence classification of Hugging Face has one: it would load the model with a head of random numbers. "
                + "Export it as peft, or train with score_layers linear.", "format");
        }

        using var folder = new ExportFolder(outFolder);
        var format = FormatOf(modelFolder);
        using var probe = Fold(modelFolder, adapterFolder, folder.Path, activeClass);
        using var written = CausalLm.Load(folder.Path, ScalarType.Float32, CPU);
        using var after = ProbeLogits.Of(written);
        var report = new ExportReport(
            "merged", ProbeLogits.Prompts, ProbeLogits.Length(written.Config), probe.AlgebraError, after.RelativeError(probe.Adapted),
            Bound(format, written.Config.LayerCount), after.MaxAbsoluteError(probe.Adapted), probe.AdapterEffect, format.WireName());
        return Finish(report, folder);
    }

    /// <summary>A clean PEFT folder: read, attached, written anew, and read again by a second attachment, which must give equal logits.</summary>
    /// <param name="activeClass">See <see cref="AdapterConfig.Saved"/>.</param>
    /// <exception cref="TrainingException">The adapter does not fit, or the logits differ; nothing is left behind.</exception>
    public static ExportReport Peft(string modelFolder, string adapterFolder, string outFolder, string? activeClass = null)
    {
        using var off = no_grad();
        using var folder = new ExportFolder(outFolder);
        var quantization = QuantizedBase.Of(adapterFolder);
        using var model = CausalLm.Load(modelFolder, ScalarType.Float32, CPU, quantization, score: ScoreHead.Of(adapterFolder));
        using var plain = ProbeLogits.Of(model);
        var baseModel = PeftFolder.Open(adapterFolder).BaseModel ?? NameOf(modelFolder);
        ProbeLogits adapted;
        using (var adapter = AdapterConfig.Saved(adapterFolder, activeClass).Attach(model, seed: 0))
        {
            adapter.SetTraining(false);
            adapted = ProbeLogits.Of(model);
            adapter.Save(folder.Path, new ModelCard(baseModel));
        }

        using (adapted)
        {
            using var fresh = CausalLm.Load(modelFolder, ScalarType.Float32, CPU, quantization, score: ScoreHead.Of(adapterFolder));
            using var again = AdapterConfig.Saved(folder.Path).Attach(fresh, seed: 0);
            again.SetTraining(false);
            using var after = ProbeLogits.Of(fresh);
            var report = new ExportReport(
                "peft", ProbeLogits.Prompts, ProbeLogits.Length(model.Config), AlgebraError: null, after.RelativeError(adapted), Float32Bound,
                after.MaxAbsoluteError(adapted), plain.RelativeError(adapted), SafeTensorType.F32.WireName());
            return Finish(report, folder);
        }
    }

    /// <summary>Refuses an adapter that is no change of weights, before anything is loaded.</summary>
    internal static void RefuseUnmergeable(AdapterConfig adapter, string format)
    {
        if (adapter.RefusesMerging is { } refusal)
        {
            throw TrainingException.InvalidSpec($"The adapter ({adapter.Title}) cannot be exported as {format}: {refusal}", "format");
        }
    }

    // The adapted model and its merged form exist one after the other, so one copy of the weights is in memory at a time.
    private static Probe Fold(string modelFolder, string adapterFolder, string outFolder, string? activeClass)
    {
        using var model = CausalLm.Load(modelFolder, ScalarType.Float32, CPU, QuantizedBase.Of(adapterFolder), score: ScoreHead.Of(adapterFolder));
        using var plain = ProbeLogits.Of(model);
        using var adapter = AdapterConfig.Saved(adapterFolder, activeClass).Attach(model, seed: 0);
        adapter.SetTraining(false);
        var adapted = ProbeLogits.Of(model);
        adapter.MergeIntoModel();
        using var folded = ProbeLogits.Of(model);
        var probe = new Probe(adapted, folded.RelativeError(adapted), plain.RelativeError(adapted));
        if (!(probe.AlgebraError <= Float32Bound))
        {
            probe.Dispose();
            throw Refused(probe.AlgebraError, Float32Bound);
        }

        model.Dequantize();   // what no factors were merged into
        MergedShards.Write(model, modelFolder, outFolder);
        foreach (var name in model.Config.Score is null ? [] : (string[])[SavedObjective.FileName, RewardDistribution.FileName])
        {
            if (File.Exists(Path.Combine(adapterFolder, name)))
            {
                File.Copy(Path.Combine(adapterFolder, name), Path.Combine(outFolder, name), overwrite: true);   // how its rewards are read
            }
        }

        return probe;
    }

    internal static ExportReport Finish(ExportReport report, ExportFolder folder)
    {
        if (!report.Holds)
        {
            throw Refused(report.RelativeError, report.Bound);
        }

        report.Write(folder.Path);
        folder.Publish();
        return report;
    }

    /// <summary>Largest relative distance of logits that the rounding of <paramref name="format"/> explains.</summary>
    internal static double Bound(SafeTensorType format, int layers)
    {
        var roundoff = format switch
        {
            SafeTensorType.BF16 => Math.Pow(2, -8),
            SafeTensorType.F16 => Math.Pow(2, -11),
            _ => 0,
        };
        return Math.Max(Float32Bound, 2 * roundoff * Math.Sqrt(layers));
    }

    private static SafeTensorType FormatOf(string modelFolder)
    {
        using var checkpoint = CheckpointFolder.Open(modelFolder);

        // Mixed formats are compared by the coarsest of them.
        return checkpoint.Entries.Values.Select(entry => entry.DType)
            .OrderByDescending(type => type switch { SafeTensorType.BF16 => 2, SafeTensorType.F16 => 1, _ => 0 }).First();
    }

    private static string NameOf(string folder) => Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)));

    private static TrainingException Refused(double error, double bound) => new(
        FailureCode.Internal,
        FormattableString.Invariant(
            $"The export is refused: its logits differ from the adapted model's by {error:G3} (relative), and {bound:G3} is allowed; nothing was written."));

    private sealed record Probe(ProbeLogits Adapted, double AlgebraError, double AdapterEffect) : IDisposable
    {
        public void Dispose() => Adapted.Dispose();
    }
}
