using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>LoRA whose A starts at the principal components of the layer's inputs; layers whose inputs have more of them get more ranks.</summary>
/// <remarks>Paischer et al. 2024, arXiv:2410.07170, §3.2 and §3.3; PEFT 0.20.0, <c>tuners/lora/eva.py</c>. B starts at zero, so training starts at the base model.</remarks>
[Method(
    "EVA",
    "LoRA whose input factors start at the principal components of what each layer reads, with ranks given to layers by the variance they explain.",
    "LoRA's tasks when it should learn faster and spend its ranks where the data has directions.",
    Paper = "Paischer et al. 2024, One Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation",
    Arxiv = "2410.07170",
    Parameters = "r·(in + out) per layer, r by layer and equal on average")]
public sealed record EvaConfig : LowRankConfig
{
    // Joins the components of a layer to the shares of variance that they explain.
    private const string SharesOf = "shares of ";

    [Description("ρ: a layer gets at most ρ·r ranks, and all layers together as many as with r each; 1: each keeps r."), Range(1.0, 64)]
    public double Rho { get; init; } = 2;

    [Description("Training rows whose inputs are looked at, at most."), Range(1, 100_000), TrainingOnly]
    public int CalibrationRows { get; init; } = 64;

    [Description("Multiply α by the same factor as a layer's rank, so that α/r stays.")]
    public bool AdjustScale { get; init; } = true;

    internal override LayerAdapterConfig Published => Plain(times: 1);

    internal override bool LooksAtRows => true;

    internal override AdaptedLinear Wrap(LayerParts parts) => new EvaLinear(parts, Select(parts.Shape).Scale, Dropout);

    /// <inheritdoc/>
    /// <returns>For each layer its components [ρ·r, in] and, under another name, the share of the variance that each explains, float64.</returns>
    internal override IReadOnlyDictionary<string, Tensor> Measure(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration? calibration)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(0, CPU);   // of the decompositions' starts, which hardly show in what they find
        var shapes = layers.ToDictionary(layer => layer.Name, Select);
        var analyses = layers.ToDictionary(
            layer => layer.Name,
            layer => new IncrementalPca(
                layer.In, shapes.Values.Where(other => other.In == layer.In).Max(MostOf), model.Device, generator));   // enough for layers with the same input
        var (_, sources) = Calibration.Of(calibration, this).DistinctInputs(
            model, shapes.Keys.ToHashSet(), CalibrationRows, (name, input) => analyses[name].Add(input));
        var measured = new Dictionary<string, Tensor>();
        foreach (var (name, source) in sources)
        {
            var most = MostOf(shapes[name]);
            if (analyses[source].Rows <= most)
            {
                throw TrainingException.InvalidData(
                    $"The rows that adapter eva looks at have {analyses[source].Rows} tokens, too few for {most} principal components; raise "
                    + "adapter.calibration_rows, or lower adapter.rank or adapter.rho.", "adapter.calibration_rows");
            }

            measured.Add(name, analyses[source].Components().narrow(0, 0, most).MoveToOuterDisposeScope());
            measured.Add(SharesOf + name, tensor(analyses[source].Shares()[..(int)most]).MoveToOuterDisposeScope());
        }

        return measured;
    }

    /// <inheritdoc/>
    /// <remarks>The components that explain most of their layers' variance, as many as the layers would have with r each. A layer without one is left alone.</remarks>
    internal override LayerAdapterConfig Completed(IReadOnlyList<LinearShape> layers, IReadOnlyDictionary<string, Tensor> measured)
    {
        var shapes = layers.Select(Select).ToList();
        var ranks = shapes
            .SelectMany(layer => measured[SharesOf + layer.Name].data<double>().Select(share => (layer.Name, Share: share)))
            .OrderByDescending(component => component.Share)
            .Take(shapes.Sum(layer => layer.Rank))
            .CountBy(component => component.Name)
            .ToDictionary();
        if (shapes.TrueForAll(layer => ranks.GetValueOrDefault(layer.Name) == layer.Rank))
        {
            return this;
        }

        var kept = shapes.Where(layer => ranks.ContainsKey(layer.Name)).ToList();
        return this with
        {
            TargetModules = kept.Count == shapes.Count ? TargetModules : ModuleSelector.OfNames(kept.ConvertAll(layer => layer.Name)),
            ExcludeModules = kept.Count == shapes.Count ? ExcludeModules : null,
            RankPattern = kept.Where(layer => ranks[layer.Name] != Rank).ToDictionary(KeyOf, layer => ranks[layer.Name]),
            AlphaPattern = kept.Select(layer => (Layer: layer, Alpha: AdjustScale ? layer.Alpha * ranks[layer.Name] / layer.Rank : layer.Alpha))
                .Where(scaled => scaled.Alpha != Alpha)
                .ToDictionary(scaled => KeyOf(scaled.Layer), scaled => scaled.Alpha),
        };
    }

    /// <inheritdoc/>
    internal override LayerAdapterConfig Restored(string folder) => PeftFolder.Open(folder).Config;

    private static string KeyOf(SelectedLinear layer) => layer.Name.Replace(".", "\\.", StringComparison.Ordinal);

    private long MostOf(SelectedLinear layer) => Math.Min((long)Math.Round(layer.Rank * Rho), Math.Min(layer.In, layer.Out));
}

internal sealed class EvaLinear(LayerParts parts, double scale, double dropout) : LoraLinear(parts, scale, dropout)
{
    public override void Initialise(AdapterStart start) => A.copy_(start.Measured[Shape.Name].narrow(0, 0, A.shape[0]));
}
