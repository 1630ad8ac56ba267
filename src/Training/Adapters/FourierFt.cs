using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>A few trained entries of the spectrum of ΔW: ΔW = s·Re(F⁻¹(S)), with S zero but at n places that a seed draws.</summary>
/// <remarks>
/// Gao et al. 2024, arXiv:2405.03003, eq. 2 to 4; PEFT 0.20.0, <c>tuners/fourierft/layer.py</c>. The places are those that torch draws for the
/// seed, so that adapters of PEFT, which save the seed and not the places, mean the same here. The paper starts the spectrum at random
/// numbers; here it starts at zero unless asked otherwise, so that training starts at the base model.
/// </remarks>
[Method(
    "FourierFT",
    "A few trained coefficients of each layer's update in the frequency domain.",
    "The smallest adapters: the count of trained numbers is chosen freely for each layer, whatever its size.",
    Paper = "Gao et al. 2024, Parameter-Efficient Fine-Tuning with Discrete Fourier Transform",
    Arxiv = "2405.03003",
    Parameters = "n per layer, n = frequencies")]
[PeftType("FOURIERFT")]
[PeftConstant("bias", "\"none\"")]
[PeftConstant("fan_in_fan_out", "false")]
[PeftConstant("n_frequency_pattern", "{}")]
public sealed record FourierFtConfig : LayerAdapterConfig
{
    /// <summary>Key of the coefficients, [n].</summary>
    internal const string Spectrum = "fourierft_spectrum";

    [Description("Trained coefficients n of each layer."), Range(1, 100_000_000), PeftName("n_frequency")]
    public int Frequencies { get; init; } = 1000;

    [Description("Scale s of the update; 300 for instruction tuning of Llama models, 100 to 150 for classification with RoBERTa."), Range(1e-3, 1e6)]
    public double Scaling { get; init; } = 150;

    [Description("Seed of the places of the coefficients."), Range(0, int.MaxValue), PeftName("random_loc_seed")]
    public int LocationSeed { get; init; } = 777;

    [Description("Start the coefficients at zero, which is the base model; false: at standard normal numbers, as in the paper."), PeftName("init_weights"), TrainingOnly]
    public bool ZeroStart { get; init; } = true;

    internal override IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer) => [new(Spectrum, [Frequencies])];

    internal override AdaptedLinear Wrap(LayerParts parts) => new FourierFtLinear(
        parts, RandomPermutation.First(Frequencies, parts.Shape.Out * parts.Shape.In, (uint)LocationSeed), Scaling, ZeroStart);

    internal override IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers)
    {
        var small = layers.MinBy(layer => layer.In * layer.Out);
        if (small is not null && Frequencies > small.In * small.Out)
        {
            yield return LayerChecks.Error(
                "frequencies",
                $"is {Frequencies}, more than the spectrum of layer '{small.Name}' has, whose weight is {small.Out} x {small.In}; use at most {small.In * small.Out}.",
                SpecErrorCodes.RankTooLarge);
        }

        if (layers.FirstOrDefault(layer => layer.In * layer.Out >= RandomPermutation.TooMany) is { } large)
        {
            yield return LayerChecks.Error(
                "target_modules",
                $"selects layer '{large.Name}', whose weight of {large.Out} x {large.In} is too large for fourierft: the places of its coefficients "
                + $"can be drawn for less than {RandomPermutation.TooMany} numbers; leave it out by adapter.exclude_modules.",
                SpecErrorCodes.Conflict);
        }
    }
}

/// <summary>ΔW[p, q] = s/(out·in)·Σ c·cos(2π·(j·p/out + k·q/in)) over the coefficients c at the places (j, k).</summary>
/// <remarks>The inverse transform costs out·in·log(out·in), far less than the product with a batch.</remarks>
internal sealed class FourierFtLinear(LayerParts parts, long[] places, double scaling, bool zeroStart) : AdaptedLinear(parts)
{
    private Parameter Spectrum => Own(FourierFtConfig.Spectrum);

    public override void Initialise(AdapterStart start)
    {
        if (!zeroStart)
        {
            Spectrum.copy_(randn(Spectrum.shape, dtype: ScalarType.Float32, device: CPU, generator: start.Random));
        }
    }

    public override Tensor Delta()
    {
        using var scope = NewDisposeScope();
        var index = tensor(places, device: Spectrum.device);
        var spectrum = zeros(Shape.Out * Shape.In, dtype: ScalarType.Float32, device: Spectrum.device).scatter(0, index, Spectrum);
        return fft.ifft2(spectrum.view(Shape.Out, Shape.In)).real.mul(scaling).MoveToOuterDisposeScope();
    }
}
