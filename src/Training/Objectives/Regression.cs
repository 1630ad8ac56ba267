using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>How a grade is learnt.</summary>
public enum ValueHead
{
    /// <summary>One output, by its squared error.</summary>
    Mse,

    /// <summary>A normal distribution around the grade as masses of bins, by cross-entropy.</summary>
    HlGauss,

    /// <summary>The grade divided between two neighbouring atoms, by cross-entropy.</summary>
    TwoHot,

    /// <summary>The projection of a distribution onto atoms; of a certain grade it is <see cref="TwoHot"/>.</summary>
    C51,
}

/// <summary>A reward model from grades: a number for each answer.</summary>
[Method(
    "Graded answers",
    "A score for whole answers, trained on a grade of each answer: by squared error, or as classification over bins (HL-Gauss, two-hot, C51).",
    "Where people or rules graded answers one by one (1 to 5 stars, a share of passed tests); the bins withstand noisy and heavy-tailed grades.",
    Paper = "Farebrother et al. 2024, Stop Regressing: Training Value Functions via Classification for Scalable Deep RL",
    Arxiv = "2403.03950")]
public sealed record RegressionConfig : ObjectiveConfig, IValidatableObject
{
    private static readonly string[] Means = ["mse", "mae", "clamped", "grade", "predicted", "grade_squared", "predicted_squared", "product"];

    [Description("How a grade is learnt: mse (one output, squared error), or as a distribution over bins: hl_gauss, two_hot, c51.")]
    public ValueHead ValueHead { get; init; } = ValueHead.Mse;

    [Description("Layers of the score head: linear, or mlp (two layers with SiLU).")]
    public ScoreLayers ScoreLayers { get; init; } = ScoreLayers.Linear;

    [Description("Bins, or atoms, of a distribution; not used by mse."), Range(2, 4096)]
    public int Bins { get; init; } = 51;

    [Description("Lower end of the bins; a lower grade counts as this one. Needed but for mse; hl_gauss wants two or three deviations of room."), Range(-1e6, 1e6)]
    public double? VMin { get; init; }

    [Description("Upper end of the bins; a higher grade counts as this one. Needed but for mse."), Range(-1e6, 1e6)]
    public double? VMax { get; init; }

    [Description("Deviation of hl_gauss, in widths of a bin."), Range(0.05, 100)]
    public double SigmaRatio { get; init; } = 0.75;

    internal override RowUse Use => RowUse.Scores;

    internal override ScoreHead Score => new(ScoreLayers, ValueHead == ValueHead.Mse ? 1 : Bins);

    internal override string? Accuracy => null;

    internal override IReadOnlyList<string> Figures => Means;

    private (double Min, double Max) Support => (VMin ?? 0, VMax ?? 1);   // Validate has seen to both

    /// <summary>Moments are taken around this, where float32 is exact.</summary>
    private double Middle => VMin is { } min && VMax is { } max ? (min + max) / 2 : 0;

    /// <summary>Answers.</summary>
    public override long Weight(Batch batch) => batch.Examples.Count;

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (ValueHead != ValueHead.Mse && (VMin is null || VMax is null))
        {
            yield return new("is needed, as are v_max and bins, by heads of a distribution; give the lowest and the highest grade.", [nameof(VMin), nameof(VMax)]);
        }

        if (VMin >= VMax)
        {
            yield return new($"is {VMin}, which is not below v_max, {VMax}.", [nameof(VMin), nameof(VMax)]);
        }
    }

    internal override IEnumerable<string> Inspect(string split, IEnumerable<Example> rows)
    {
        if (ValueHead == ValueHead.Mse)
        {
            yield break;
        }

        var (min, max) = Support;
        var (all, outside, lowest, highest) = (0L, 0L, double.PositiveInfinity, double.NegativeInfinity);
        foreach (var grade in rows.Select(GradeOf))
        {
            all++;
            outside += grade < min || grade > max ? 1 : 0;
            (lowest, highest) = (Math.Min(lowest, grade), Math.Max(highest, grade));
        }

        if (outside > 0)
        {
            yield return FormattableString.Invariant(
                $"data.{split}: {outside} of {all} grades lie outside v_min {min} to v_max {max} and count as the nearer end; the grades go from {lowest} to {highest}.");
        }
    }

    public override BatchLoss Measure(CausalLm model, Adapter? adapter, Batch batch, Device device)
    {
        using var scope = NewDisposeScope();
        var outputs = BatchInput.Scores(model, batch, device);   // [N, outputs]
        var grades = DeviceCopy.To(tensor(batch.Examples.Select(GradeOf).ToArray()), device);
        var sum = Losses(outputs, grades).sum();
        using var noGrad = no_grad();
        return new(sum.MoveToOuterDisposeScope(), zeros(1, dtype: ScalarType.Int64, device: device).squeeze().MoveToOuterDisposeScope(),
            Sums(Predict(outputs), grades).MoveToOuterDisposeScope());
    }

    /// <summary>Loss of each answer: squared error, or cross-entropy in nats.</summary>
    /// <param name="outputs">[N, outputs] of the score head.</param>
    /// <param name="grades">[N].</param>
    /// <returns>[N], in the caller's dispose scope.</returns>
    public Tensor Losses(Tensor outputs, Tensor grades)
    {
        using var scope = NewDisposeScope();
        var (min, max) = Support;
        var losses = ValueHead switch
        {
            ValueHead.Mse => (outputs.squeeze(1) - grades).square(),
            ValueHead.HlGauss => ValueTargets.CrossEntropy(outputs, ValueTargets.HlGauss(grades, Bins, min, max, SigmaRatio)),
            ValueHead.TwoHot => ValueTargets.CrossEntropy(outputs, ValueTargets.TwoHot(grades, Bins, min, max)),
            ValueHead.C51 => ValueTargets.CrossEntropy(
                outputs, ValueTargets.Project(grades.unsqueeze(1), ones_like(grades).unsqueeze(1), Bins, min, max)),
        };
        return losses.MoveToOuterDisposeScope();
    }

    /// <summary>The grade that the outputs of the score head stand for.</summary>
    /// <param name="outputs">[.., outputs].</param>
    /// <returns>[..], in the caller's dispose scope.</returns>
    public Tensor Predict(Tensor outputs)
    {
        using var scope = NewDisposeScope();
        var (min, max) = Support;
        var predicted = ValueHead switch
        {
            ValueHead.Mse => outputs.squeeze(-1),
            ValueHead.HlGauss => ValueTargets.Expectation(outputs, ValueTargets.Centres(Bins, min, max).to(outputs.device)),
            ValueHead.TwoHot or ValueHead.C51 => ValueTargets.Expectation(outputs, ValueTargets.Atoms(Bins, min, max).to(outputs.device)),
        };
        return predicted.MoveToOuterDisposeScope();
    }

    public override ScoredAnswers Read(Tensor outputs) => new(Predict(outputs));

    /// <summary>Errors as means; the correlation (Pearson's) of grades and predictions where both vary.</summary>
    internal override IEnumerable<KeyValuePair<string, double>> Derive(IReadOnlyList<double> means)
    {
        yield return new("mse", means[0]);
        yield return new("mae", means[1]);
        if (ValueHead != ValueHead.Mse)
        {
            yield return new("clamped", means[2]);
        }

        var (grade, predicted) = (means[3], means[4]);
        var (ofGrade, ofPredicted) = (means[5] - (grade * grade), means[6] - (predicted * predicted));
        if (ofGrade > 1e-12 && ofPredicted > 1e-12)
        {
            yield return new("correlation", Math.Clamp((means[7] - (grade * predicted)) / Math.Sqrt(ofGrade * ofPredicted), -1, 1));
        }
    }

    private Tensor Sums(Tensor predicted, Tensor grades)
    {
        var (min, max) = ValueHead == ValueHead.Mse ? (double.NegativeInfinity, double.PositiveInfinity) : Support;
        var error = predicted - grades;
        var (x, y) = (grades - Middle, predicted - Middle);
        return stack(
        [
            error.square().sum(), error.abs().sum(), grades.lt(min).logical_or(grades.gt(max)).sum().to_type(ScalarType.Float32),
            x.sum(), y.sum(), x.square().sum(), y.square().sum(), (x * y).sum(),
        ]).detach();
    }

    private static float GradeOf(Example example) =>
        example.Value ?? throw new InvalidOperationException($"Row {example.Row} has no grade; rows of grades always have one.");
}
