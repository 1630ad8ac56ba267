using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>What classification minimises.</summary>
public enum ClassificationLoss
{
    CrossEntropy,
    Accuracy,
    FBeta,
    GMean,
    BalancedAccuracy,
}

/// <summary>A classifier of whole answers.</summary>
[Method(
    "Classified answers",
    "A class for whole answers, trained on labels by cross-entropy or by the figure that counts itself: accuracy, F-beta, G-mean, balanced accuracy (AnyLoss).",
    "Answers that are right or wrong, safe or unsafe, or of several kinds; AnyLoss where one of two classes is rare and F1 or recall matters.",
    Paper = "Han, Moniz and Chawla 2024, AnyLoss: Transforming Classification Metrics into Loss Functions",
    Arxiv = "2405.14745")]
public sealed record ClassificationConfig : ObjectiveConfig, IValidatableObject
{
    [Description("What is minimised: cross_entropy, or 1 less a figure of two classes: accuracy, f_beta, g_mean, balanced_accuracy.")]
    public ClassificationLoss Loss { get; init; } = ClassificationLoss.CrossEntropy;

    [Description("Number of classes; labels are 0 to classes - 1. In two classes, 1 is the positive one."), Range(2, 1000)]
    public int Classes { get; init; } = 2;

    [Description("How much more recall counts than precision in f_beta."), Range(0.01, 100)]
    public double Beta { get; init; } = 1;

    [Description("How steeply the losses of figures turn a probability into a decision, L."), Range(1, 1000)]
    public double Amplification { get; init; } = 73;

    [Description("Layers of the score head: linear, or mlp (two layers with SiLU).")]
    public ScoreLayers ScoreLayers { get; init; } = ScoreLayers.Linear;

    internal override RowUse Use => RowUse.Scores;

    /// <summary>Far from ½ the losses of figures have no slope: a new head starts there.</summary>
    internal override ScoreHead Score => new(ScoreLayers, Classes) { StartsAtZero = Loss != ClassificationLoss.CrossEntropy };

    internal override string Accuracy => "accuracy";

    /// <summary>Of each class that is told of: right, missed, and invented items.</summary>
    internal override IReadOnlyList<string> Figures =>
        [.. Counted.SelectMany(label => new[] { $"true_positives_{label}", $"false_negatives_{label}", $"false_positives_{label}" })];

    private IEnumerable<int> Counted => Classes == 2 ? [1] : Enumerable.Range(0, Classes);

    /// <summary>Answers.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (Loss != ClassificationLoss.CrossEntropy && Classes != 2)
        {
            yield return new("is a loss of two classes; use cross_entropy, or 2 for classes.", [nameof(Loss), nameof(Classes)]);
        }
    }

    internal override IEnumerable<string> Inspect(string split, IEnumerable<Example> rows)
    {
        var counts = new long[Classes];
        foreach (var row in rows)
        {
            var label = row.Value;
            if (label is null || label < 0 || label >= Classes || label != MathF.Floor(label.Value))
            {
                throw TrainingException.InvalidData(
                    FormattableString.Invariant($"data.{split} row {row.Row} has the label {label}; labels of {Classes} classes are 0 to {Classes - 1}. ")
                    + "Correct the row, or set objective.classes.", $"data.{split}:{row.Row}");
            }

            counts[(int)label]++;
        }

        var absent = counts.Index().Where(count => count.Item == 0).Select(count => count.Index).ToList();
        if (absent.Count > 0 && absent.Count < Classes)
        {
            yield return $"data.{split} has no row of class {string.Join(", ", absent.Take(12))}{(absent.Count > 12 ? ", …" : "")}.";
        }
    }

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var outputs = BatchInput.Scores(model, batch, device);   // [N, classes]
        var labels = DeviceCopy.To(tensor(batch.Examples.Select(example => (long)(example.Value ?? 0)).ToArray()), device);
        var sum = SumOfLosses(outputs, labels);
        using var noGrad = no_grad();
        var predicted = outputs.argmax(1);
        return new(sum.MoveToOuterDisposeScope(), predicted.eq(labels).sum().MoveToOuterDisposeScope(), Counts(predicted, labels).MoveToOuterDisposeScope());
    }

    /// <summary>Loss summed over the answers of a batch; a figure of the batch is its loss times the number of answers.</summary>
    /// <param name="outputs">[N, classes].</param>
    /// <param name="labels">[N], int64.</param>
    /// <returns>Scalar in the caller's dispose scope.</returns>
    public Tensor SumOfLosses(Tensor outputs, Tensor labels)
    {
        using var scope = NewDisposeScope();
        if (Loss == ClassificationLoss.CrossEntropy)
        {
            return nn.functional.cross_entropy(outputs, labels, reduction: nn.Reduction.Sum).MoveToOuterDisposeScope();
        }

        var predictions = AnyLoss.Approximate(Positive(outputs), Amplification);
        return (AnyLoss.Loss(Loss, predictions, labels.to_type(ScalarType.Float32), Beta) * labels.shape[0]).MoveToOuterDisposeScope();
    }

    /// <summary>In two classes the probability of the positive one; in more the most probable class.</summary>
    public override ScoredAnswers Read(Tensor outputs)
    {
        using var scope = NewDisposeScope();
        var read = Classes == 2 ? Positive(outputs) : outputs.argmax(-1).to_type(ScalarType.Float32);
        return new(read.MoveToOuterDisposeScope());
    }

    /// <summary>
    /// Precision, recall, F1, G-mean and balanced accuracy of the positive class; of more classes F1 and recall as means over the classes. A ratio
    /// without items is 0.
    /// </summary>
    internal override IEnumerable<KeyValuePair<string, double>> Derive(IReadOnlyList<double> means)
    {
        var classes = means.Chunk(3).Select(rates => (Right: rates[0], Missed: rates[1], Invented: rates[2])).ToList();
        if (Classes > 2)
        {
            yield return new("macro_f1", classes.Average(F1Of));
            yield return new("balanced_accuracy", classes.Average(RecallOf));
            yield break;
        }

        var positive = classes[0];
        var specificity = Ratio(1 - positive.Right - positive.Missed - positive.Invented, 1 - positive.Right - positive.Missed);
        yield return new("precision", Ratio(positive.Right, positive.Right + positive.Invented));
        yield return new("recall", RecallOf(positive));
        yield return new("f1", F1Of(positive));
        yield return new("g_mean", Math.Sqrt(Math.Max(0, RecallOf(positive) * specificity)));
        yield return new("balanced_accuracy", (RecallOf(positive) + specificity) / 2);

        static double Ratio(double part, double all) => all <= 1e-9 ? 0 : part / all;   // rates are means over items: the smallest is 1 over their number
        static double RecallOf((double Right, double Missed, double Invented) rates) => Ratio(rates.Right, rates.Right + rates.Missed);
        static double F1Of((double Right, double Missed, double Invented) rates) => Ratio(2 * rates.Right, (2 * rates.Right) + rates.Missed + rates.Invented);
    }

    private static Tensor Positive(Tensor outputs) => nn.functional.softmax(outputs, dim: -1).select(-1, 1);

    private Tensor Counts(Tensor predicted, Tensor labels) => cat([.. Counted.Select(label =>
    {
        var (said, so) = (predicted.eq(label), labels.eq(label));
        return stack([said.logical_and(so).sum(), so.logical_and(said.logical_not()).sum(), said.logical_and(so.logical_not()).sum()]);
    })]).to_type(ScalarType.Float32);
}
