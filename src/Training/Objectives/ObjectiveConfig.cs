using System.Text.Json.Serialization;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>What is optimised.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(SftConfig), "sft")]
[JsonDerivedType(typeof(PretrainingConfig), "pretraining")]
[JsonDerivedType(typeof(RewardConfig), "reward")]
[JsonDerivedType(typeof(CritiqueRewardConfig), "critique_reward")]
[JsonDerivedType(typeof(RegressionConfig), "regression")]
[JsonDerivedType(typeof(ClassificationConfig), "classification")]
[JsonDerivedType(typeof(DpoConfig), "dpo")]
[JsonDerivedType(typeof(KtoConfig), "kto")]
[JsonDerivedType(typeof(OrpoConfig), "orpo")]
[JsonDerivedType(typeof(SimpoConfig), "simpo")]
[JsonDerivedType(typeof(DmoeRewardConfig), "dmoe_reward")]
public abstract record ObjectiveConfig
{
    /// <summary>What is made of a row.</summary>
    internal virtual RowUse Use => RowUse.Answers;

    /// <summary>What the output head of the model has to be; null: the scores of the next token.</summary>
    internal virtual ScoreHead? Score => null;

    /// <summary>Whether its models have a score head and so give rewards.</summary>
    public bool GivesScores() => Score is not null;

    /// <summary>A model as this objective needs it: with its score head.</summary>
    public ModelConfig On(ModelConfig model) => Score is null ? model : model with { Score = Score };

    /// <summary>Name of the share of items that are right; null: items are not right or wrong.</summary>
    internal virtual string? Accuracy => "token_accuracy";

    /// <summary>Whether the items are tokens.</summary>
    internal static bool IsOfTokens(ObjectiveConfig objective) => objective.Accuracy == "token_accuracy";

    /// <summary>Names of the means over the items in <see cref="BatchLoss.Figures"/>.</summary>
    internal virtual IReadOnlyList<string> Figures => [];

    /// <summary>What is told of the means of <see cref="Figures"/>: they themselves, unless something follows from them that is no mean over items.</summary>
    internal virtual IEnumerable<KeyValuePair<string, double>> Derive(IReadOnlyList<double> means) =>
        Figures.Zip(means, (name, mean) => KeyValuePair.Create(name, mean));

    /// <summary>All that was measured besides the loss, by public names.</summary>
    /// <param name="prefix">Of each name, such as <c>eval/</c>.</param>
    /// <param name="accuracy">Share of items that are right.</param>
    /// <param name="means">Of <see cref="Figures"/>.</param>
    internal IEnumerable<KeyValuePair<string, double>> Named(string prefix, double accuracy, IReadOnlyList<double> means)
    {
        var named = Derive(means);
        return (Accuracy is { } right ? named.Prepend(KeyValuePair.Create(right, accuracy)) : named)
            .Select(figure => KeyValuePair.Create(prefix + figure.Key, figure.Value));
    }

    /// <summary>Looks at rows before a run trains on them.</summary>
    /// <param name="split">Member of <c>data</c> that names them.</param>
    /// <returns>What their owner should know.</returns>
    /// <exception cref="TrainingException">A row is of no use to this objective.</exception>
    internal virtual IEnumerable<string> Inspect(string split, IEnumerable<Example> rows) => [];

    /// <summary>Reads the outputs of the score head as rewards.</summary>
    /// <param name="outputs">[B, outputs], as <see cref="CausalLm.Score"/> gives them.</param>
    /// <returns>Tensors in the caller's dispose scope.</returns>
    public virtual ScoredAnswers Read(Tensor outputs) => RewardEnsemble.Read(outputs);

    /// <summary>The rows that this objective trains on and measures; it need not take them all.</summary>
    internal virtual PreparedData Choose(PreparedData data) => data;

    /// <summary>How many items the loss of a batch is summed over; the loss of a step is divided by the total over its batches.</summary>
    public virtual long Weight(Batch batch) => batch.TrainableTokens;

    /// <summary>Passes over a batch without gradients, beside the one with them.</summary>
    internal virtual int PassesBeside => 0;

    /// <summary>Runs the model on a batch.</summary>
    /// <param name="adapter">What trains; null: nothing yet.</param>
    /// <returns>Tensors in the caller's dispose scope.</returns>
    public abstract BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device);
}

/// <summary>What an objective says of one batch.</summary>
/// <param name="Sum">Loss summed over the batch's items, float32 scalar with gradient, nats.</param>
/// <param name="Correct">Items predicted right, int64 scalar without gradient.</param>
/// <param name="Figures">Sums over the items of what <see cref="ObjectiveConfig.Figures"/> names, [figures], float32 without gradient; null: none.</param>
public readonly record struct BatchLoss(Tensor Sum, Tensor Correct, Tensor? Figures = null);
