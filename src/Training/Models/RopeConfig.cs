using System.Text.Json;

namespace TrainingService.Training.Models;

/// <summary>How positions turn into angles.</summary>
/// <param name="Theta">Base θ of the geometric series of frequencies.</param>
/// <param name="Scaling">Change of the frequencies for longer texts; null for none.</param>
public sealed record RopeConfig(double Theta, RopeScaling? Scaling)
{
    /// <summary>Angle per position of each of the <paramref name="headWidth"/> / 2 pairs, radians.</summary>
    /// <remarks>Su et al. 2021, arXiv:2104.09864, §3.2.2: θ^(-2i/K) for the pair i of K/2; then scaled.</remarks>
    public float[] Frequencies(int headWidth)
    {
        var frequencies = new float[headWidth / 2];
        for (var i = 0; i < frequencies.Length; i++)
        {
            var plain = Math.Pow(Theta, -2.0 * i / headWidth);
            frequencies[i] = (float)(Scaling?.Scale(plain) ?? plain);
        }

        return frequencies;
    }

    /// <summary>Reads <c>rope_theta</c> and <c>rope_scaling</c>, or the newer <c>rope_parameters</c> that holds both.</summary>
    internal static RopeConfig Read(ConfigReader config)
    {
        const double DefaultTheta = 10_000;
        var theta = config.Member("rope_theta") is null ? (double?)null : config.Number("rope_theta", 1, 1e15);
        var (innerTheta, scaling) = ReadScaling(config, "rope_scaling");
        var (parametersTheta, parametersScaling) = ReadScaling(config, "rope_parameters");
        var thetas = new[] { theta, innerTheta, parametersTheta }.OfType<double>().Distinct().ToArray();
        if (thetas.Length > 1 || (scaling is not null && parametersScaling is not null && scaling != parametersScaling))
        {
            throw config.Invalid("rope_parameters", "contradicts rope_theta or rope_scaling", "leave only one of them");
        }

        return new(thetas.Length == 1 ? thetas[0] : DefaultTheta, parametersScaling ?? scaling);
    }

    private static (double? Theta, RopeScaling? Scaling) ReadScaling(ConfigReader config, string name)
    {
        if (config.Member(name) is not { } value)
        {
            return (null, null);
        }

        if (value.ValueKind != JsonValueKind.Object)
        {
            throw config.Invalid(name, "is not an object", "it must be null or an object with rope_type");
        }

        var members = new ConfigReader(value, $"config.json:{name}");
        var newer = members.Text("rope_type");
        var older = members.Text("type");
        if (newer is not null && older is not null && newer != older)
        {
            throw config.Invalid(name, $"names two types, \"{newer}\" and \"{older}\"", "leave only rope_type");
        }

        members.Only("partial_rotary_factor", "1", "only whole heads are rotated");
        var theta = members.Member("rope_theta") is null ? (double?)null : members.Number("rope_theta", 1, 1e15);
        RopeScaling? scaling = (newer ?? older ?? "default") switch
        {
            "default" => null,
            "linear" => new LinearRopeScaling(members.Number("factor", 1, 1e6)),
            "llama3" => Llama3RopeScaling.Read(members),
            var other => throw ConfigReader.Refuse(
                $"{name}.rope_type", $"\"{other}\"", "use a model with the type default, linear or llama3"),
        };
        members.RefuseUnread(name);
        return (theta, scaling);
    }
}

/// <summary>Change of the rotary frequencies.</summary>
public abstract record RopeScaling
{
    /// <summary>The frequency that takes the place of <paramref name="frequency"/>, radians per position.</summary>
    public abstract double Scale(double frequency);
}

/// <summary>Every position counts for 1/factor: positional interpolation.</summary>
/// <remarks>Chen et al. 2023, arXiv:2306.15595, eq. 4.</remarks>
public sealed record LinearRopeScaling(double Factor) : RopeScaling
{
    public override double Scale(double frequency) => frequency / Factor;
}

/// <summary>Long waves are stretched by the factor, short waves stay, and those between are blended.</summary>
/// <remarks>
/// As released with Llama 3.1. With wavelength λ = 2π/f and the length L that the model was first trained on: λ &gt; L/low gives
/// f/factor, λ &lt; L/high gives f, else (1-s)·f/factor + s·f with s = (L/λ - low)/(high - low).
/// </remarks>
public sealed record Llama3RopeScaling(double Factor, double LowFrequencyFactor, double HighFrequencyFactor, int OriginalPositions)
    : RopeScaling
{
    public override double Scale(double frequency)
    {
        var wavesInOriginal = OriginalPositions * frequency / (2 * Math.PI);
        var smooth = Math.Clamp((wavesInOriginal - LowFrequencyFactor) / (HighFrequencyFactor - LowFrequencyFactor), 0, 1);
        return (1 - smooth) * frequency / Factor + smooth * frequency;
    }

    internal static Llama3RopeScaling Read(ConfigReader members)
    {
        var low = members.Number("low_freq_factor", 1e-6, 1e6);
        var high = members.Number("high_freq_factor", 1e-6, 1e6);
        if (high <= low)
        {
            throw members.Invalid("high_freq_factor", "is not above low_freq_factor", "take the values of the model's own config.json");
        }

        return new(members.Number("factor", 1, 1e6), low, high, members.Count("original_max_position_embeddings", 1 << 30));
    }
}
