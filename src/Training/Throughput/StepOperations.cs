using TrainingService.Training.Models;

namespace TrainingService.Training.Throughput;

/// <summary>Floating-point operations that the mathematics of a training step needs, whatever an implementation does besides.</summary>
/// <remarks>
/// <para>With P numbers in the linear layers, the output head included, and T tokens, a product costs 2·P·T. The forward pass is one, the
/// gradient of the inputs another. Frozen weights have no gradient, so the third product, of the weights' gradient, counts only for
/// those that train in place. What an adapter adds is multiplied three times, too: forward, gradient of its input, gradient of itself.</para>
/// <para>Attention: scores and their use cost 2·2·T·D per token and layer, of which causality needs half; the backward pass has four such
/// products for the forward pass's two. Together 6·T·D for width D = heads · width of a head.</para>
/// <para>Norms, rotations, softmax, the loss and the optimizer are linear in the activations and left out. Activations that are computed
/// again for the backward pass are an implementation's choice and left out. The gradients of the first layer's inputs, which nothing below
/// needs when the embedding is frozen, are counted, as everybody counts them: under 1 % of a step at the measured shapes.</para>
/// </remarks>
public static class StepOperations
{
    /// <summary>Operations per token of a forward and a backward pass over rows of <paramref name="length"/> tokens that all carry loss, and of the
    /// passes without gradients that the objective makes beside these.</summary>
    public static double PerToken(TrainingSpec spec, ModelConfig model, int length) =>
        WithGradients(spec, model, length) + (spec.Objective.PassesBeside * 2.0 * (LinearNumbers(model) + (length * AttentionWidths(model))));

    private static double WithGradients(TrainingSpec spec, ModelConfig model, int length)
    {
        var trained = spec.Adapter.Count(model);
        var linear = LinearNumbers(model);
        var inPlace = Math.Min(trained.InPlace, linear);
        if (spec.Adapter.VirtualTokens is var before and > 0)
        {
            // Added numbers are tokens here: they are not multiplied with each of the row, but may run beside them.
            var rows = 1 + (spec.Adapter.VirtualTokensInRow / (double)length);
            return rows * ((4.0 * linear) + (6.0 * (length + before) * AttentionWidths(model)));
        }

        return 4.0 * linear + 2.0 * inPlace + 6.0 * trained.Added + 6.0 * length * AttentionWidths(model);
    }

    /// <summary>Numbers that every token is multiplied with; a tied head is multiplied with, too.</summary>
    private static long LinearNumbers(ModelConfig model) =>
        model.Weights.Where(weight => weight.IsLinear).Sum(weight => weight.Count)
        + (model.TiesHead ? (long)model.VocabularySize * model.HiddenSize : 0);

    /// <summary>Width of the attention, summed over the layers.</summary>
    private static long AttentionWidths(ModelConfig model) =>
        model is LlamaConfig llama ? (long)llama.LayerCount * llama.HeadCount * llama.HeadWidth : 0;
}
