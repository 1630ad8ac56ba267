using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Exports;

/// <summary>Logits on fixed prompts, by which two forms of one model are compared.</summary>
internal sealed class ProbeLogits : IDisposable
{
    public const int Prompts = 4;

    private const int LongestPrompt = 32;
    private const ulong Step = 0x9E3779B97F4A7C15;   // odd, so that the ids spread over the whole vocabulary

    private readonly Tensor _values;

    private ProbeLogits(Tensor values) => _values = values;

    /// <summary>Tokens in each prompt.</summary>
    public static int Length(ModelConfig config) => Math.Min(LongestPrompt, config.MaxPositions);

    /// <summary>Runs the model as it stands.</summary>
    public static ProbeLogits Of(CausalLm model)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var length = Length(model.Config);
        var ids = Enumerable.Range(0, Prompts * length)
            .Select(i => (long)(((ulong)(i + 1) * Step >> 16) % (ulong)model.Config.VocabularySize)).ToArray();
        var input = tensor(ids, device: model.Device).reshape(Prompts, length);
        var positions = arange(length, ScalarType.Int64, model.Device).unsqueeze(0).expand(Prompts, length);
        return new ProbeLogits(model.Forward(input, positions).to_type(ScalarType.Float32).DetachFromDisposeScope());
    }

    /// <summary>‖this − other‖ / ‖other‖, in float64; infinite when a logit is not finite.</summary>
    public double RelativeError(ProbeLogits other)
    {
        using var scope = NewDisposeScope();
        var (mine, theirs) = (_values.to_type(ScalarType.Float64), other._values.to_type(ScalarType.Float64));
        var error = ((mine - theirs).norm() / theirs.norm()).item<double>();
        return double.IsFinite(error) ? error : double.PositiveInfinity;
    }

    /// <summary>Largest |this − other|.</summary>
    public double MaxAbsoluteError(ProbeLogits other)
    {
        using var scope = NewDisposeScope();
        return (_values - other._values).abs().max().item<float>();
    }

    public void Dispose() => _values.Dispose();
}
