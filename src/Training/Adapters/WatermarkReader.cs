using System.Numerics;
using TrainingService.Training.Numerics;
using TrainingService.Training.Spectra;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>What was read from a model or an adapter.</summary>
/// <param name="Bits">The bits, as a text of 0 and 1.</param>
/// <param name="Matches">How many are those of the expected message.</param>
/// <param name="BitAccuracy">Share of them.</param>
/// <param name="TailProbability">Probability of as many matches or more in weights that know nothing of the key.</param>
public sealed record WatermarkReading(string Bits, int Matches, double BitAccuracy, double TailProbability);

/// <summary>Reads the message of <see cref="WatermarkConfig"/>.</summary>
/// <remarks>
/// Bit b is the sign of Σ u_bᵀ·ΔW·v_b over the layers, where u_b and v_b of each layer hold ±1/√n and follow from key, layer and bit. A ΔW that does not
/// know the key has either sign equally often, so the matches are binomial.
/// </remarks>
public static class WatermarkReader
{
    /// <summary>Longest message.</summary>
    public const int MostBits = 1024;

    private const int DefaultBits = 48;

    /// <summary>The message of a key where none was chosen: 48 bits, half of them 1.</summary>
    public static string MessageOf(int key)
    {
        using var scope = NewDisposeScope();
        var numbers = CounterRandom.Uniform(CounterRandom.Key($"watermark|{key}|message"), 0, DefaultBits, CPU).data<float>().ToArray();
        var middle = numbers.Order().ElementAt(DefaultBits / 2);
        return string.Concat(numbers.Select(number => number >= middle ? '1' : '0'));
    }

    /// <summary>Reads an attached adapter of any method on linear layers.</summary>
    public static WatermarkReading Read(Adapter adapter, int key, string message) =>
        Read(adapter.Updates.Select(update => (update.Module, (Func<Tensor>)(() => update.Delta))), key, message);

    /// <summary>Reads a model from its difference to the base model's file.</summary>
    /// <param name="baseFolder">Model folder of the base.</param>
    /// <param name="modelFolder">Model folder into which an adapter may have been merged.</param>
    /// <exception cref="TrainingException">A folder cannot be used, or the models have other layers.</exception>
    public static WatermarkReading Read(string baseFolder, string modelFolder, int key, string message)
    {
        using var before = LinearWeights.Open(baseFolder);
        using var after = LinearWeights.Open(modelFolder);
        before.CheckSameShapes(after);
        return Read(
            before.Modules.Where(module => module != LayerPlan.OutputHead).Select(module => (module, (Func<Tensor>)(() => after.Read(module) - before.Read(module)))),
            key, message);
    }

    /// <summary>P(X ≥ <paramref name="matches"/>) for X ~ Binomial(<paramref name="bits"/>, ½).</summary>
    public static double TailProbability(int matches, int bits)
    {
        var (ways, sum) = (BigInteger.One, BigInteger.Zero);   // ways to choose as many of the bits: exact at any length
        for (var chosen = bits; chosen >= matches; chosen--)
        {
            sum += ways;
            ways = ways * chosen / (bits - chosen + 1);
        }

        return sum.IsZero ? 0 : Math.Exp(BigInteger.Log(sum) - bits * Math.Log(2));
    }

    /// <summary>u_bᵀ·ΔW·v_b for every bit of one layer, with its graph.</summary>
    /// <returns>[bits], float32, in the caller's dispose scope.</returns>
    internal static Tensor Project(LowRankFactors delta, string layer, int key, int bits)
    {
        using var scope = NewDisposeScope();
        var left = Directions(key, layer, "out", bits, delta.Left.shape[0], delta.Left.device).mm(delta.Left);                 // [bits, R]
        var right = Directions(key, layer, "in", bits, delta.Right.shape[1], delta.Right.device).mm(delta.Right.transpose(0, 1));
        return (left * right).sum(dim: 1).mul(delta.Scale).MoveToOuterDisposeScope();
    }

    private static WatermarkReading Read(IEnumerable<(string Layer, Func<Tensor> Delta)> layers, int key, string message)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var sum = zeros(message.Length, dtype: ScalarType.Float64, device: CPU);
        foreach (var (layer, read) in layers)
        {
            using var inner = NewDisposeScope();
            var delta = read();
            var left = Directions(key, layer, "out", message.Length, delta.shape[0], delta.device).mm(delta);
            var right = Directions(key, layer, "in", message.Length, delta.shape[1], delta.device);
            sum.add_((left * right).sum(dim: 1).cpu().to_type(ScalarType.Float64));
        }

        var bits = string.Concat(sum.data<double>().Select(projection => projection > 0 ? '1' : '0'));
        var matches = bits.Zip(message).Count(pair => pair.First == pair.Second);
        return new(bits, matches, (double)matches / message.Length, TailProbability(matches, message.Length));
    }

    /// <summary>Rows of ±1/√n, [bits, n]: a row is the same however many there are.</summary>
    private static Tensor Directions(int key, string layer, string side, int bits, long n, Device device)
    {
        using var scope = NewDisposeScope();
        var random = CounterRandom.Uniform(CounterRandom.Key($"watermark|{key}|{layer}|{side}"), 0, bits * n, device);
        return random.ge(0).to_type(ScalarType.Float32).mul_(2).sub_(1).div_(Math.Sqrt(n)).view(bits, n).MoveToOuterDisposeScope();
    }
}
