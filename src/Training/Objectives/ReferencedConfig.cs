using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>An objective that compares the model that trains with a reference model, which is the base model without the adapter.</summary>
/// <remarks>
/// There is no second copy: the reference is the same model with the adapter switched off. Where the base model's own weights change, its
/// log-probabilities are computed once, before anything is attached; see <see cref="ReferencePass"/>.
/// </remarks>
public abstract record ReferencedConfig : ObjectiveConfig
{
    [Description("Strength β of the pull to the reference model; lower values let the model move further."), Range(1e-4, 100)]
    public double Beta { get; init; } = 0.1;

    [Description("Whether the reference model's log-probabilities are computed once, before training, instead of at each step with the adapter switched off. "
        + "It is done in any case where weights of the base model train.")]
    public bool PrecomputeReference { get; init; }

    /// <summary>Answers of an example whose log-probabilities under the reference model are asked for.</summary>
    internal abstract int AnswersPerExample { get; }

    /// <summary>Their log-probabilities under a model.</summary>
    /// <returns>[examples, <see cref="AnswersPerExample"/>], nats, in the caller's dispose scope.</returns>
    internal abstract Tensor Answers(CausalLm model, Batch batch, Device device);

    /// <summary>Examples with what the objective asks of other rows.</summary>
    /// <param name="maxLength">Tokens that a sequence may have.</param>
    internal virtual IExamples Arranged(IExamples examples, int maxLength) => examples;

    /// <summary>The same under the reference model: as computed before, or now.</summary>
    /// <returns>[examples, <see cref="AnswersPerExample"/>] without gradient; null: nothing is attached, so the model is its own reference.</returns>
    protected Tensor? References(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var noGrad = no_grad();
        if (batch.Examples is [{ References: not null }, ..])
        {
            return DeviceCopy.To(
                tensor(batch.Examples.SelectMany(example => example.References!).ToArray(), [batch.Examples.Count, AnswersPerExample]), device);
        }

        if (adapter is null)
        {
            return null;
        }

        using var off = adapter.SwitchOff()
            ?? throw new InvalidOperationException("The adapter cannot be switched off, and the reference model was not run before training.");
        return Answers(model, batch, device);
    }
}
