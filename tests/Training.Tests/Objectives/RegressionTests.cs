using TrainingService.Training.Adapters;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Grades: losses by hand from the head's outputs, figures, and grades that do not fit the support.</summary>
public class RegressionTests
{
    private static readonly float[] Grades = [1.5f, 4f, 2.25f, 9f];   // the last one is beyond v_max

    public static TheoryData<ValueHead> Heads => [.. Enum.GetValues<ValueHead>()];

    [Fact]
    public void Mse_is_the_squared_error_of_one_output_and_clamps_nothing()
    {
        using var scope = NewDisposeScope();
        var objective = new RegressionConfig();
        using var model = ScoredBatch.Model(objective);
        var batch = ScoredBatch.Of(ScoredBatch.Examples(Grades));
        var outputs = ScoredBatch.Outputs(model, batch).Select(row => (double)Assert.Single(row)).ToArray();

        var measured = objective.Measure(model, null, batch, CPU);

        var errors = outputs.Zip(Grades, (output, grade) => output - grade).ToArray();
        Assert.Equal(errors.Sum(error => error * error), measured.Sum.item<float>(), 1e-3);
        var figures = Named(objective, measured, Grades.Length);
        Assert.Equal(errors.Average(error => error * error), figures["mse"], 1e-4);
        Assert.Equal(errors.Average(Math.Abs), figures["mae"], 1e-5);
        Assert.Equal(Correlation(outputs, [.. Grades.Select(grade => (double)grade)]), figures["correlation"], 1e-4);
        Assert.DoesNotContain("clamped", figures.Keys);
    }

    [Fact]
    public void A_distribution_is_learnt_by_cross_entropy_and_read_by_its_mean()
    {
        using var scope = NewDisposeScope();
        var objective = Config(ValueHead.TwoHot) with { Bins = 5 };   // atoms 1, 2, 3, 4, 5
        using var model = ScoredBatch.Model(objective);
        var batch = ScoredBatch.Of(ScoredBatch.Examples(Grades));
        var chances = ScoredBatch.Outputs(model, batch).Select(Softmax).ToArray();

        var measured = objective.Measure(model, null, batch, CPU);

        // 1.5: halves of 1 and 2; 4: itself; 2.25: three quarters of 2, a quarter of 3; 9: counts as 5.
        var expected = -(0.5 * Math.Log(chances[0][0])) - (0.5 * Math.Log(chances[0][1])) - Math.Log(chances[1][3])
            - (0.75 * Math.Log(chances[2][1])) - (0.25 * Math.Log(chances[2][2])) - Math.Log(chances[3][4]);
        Assert.Equal(expected, measured.Sum.item<float>(), 1e-4);
        var figures = Named(objective, measured, Grades.Length);
        Assert.Equal(0.25, figures["clamped"]);
        var predicted = chances.Select(row => row.Select((chance, atom) => chance * (atom + 1)).Sum()).ToArray();
        Assert.Equal(predicted.Zip(Grades, (prediction, grade) => Math.Abs(prediction - grade)).Average(), figures["mae"], 1e-5);
        Assert.Equal(predicted, objective.Read(BatchInput.Scores(model, batch, CPU)).Rewards.data<float>().Select(reward => (double)reward), new Near(1e-5));
    }

    [Theory]
    [MemberData(nameof(Heads))]
    public void A_batch_is_the_sum_of_its_answers_whatever_padding_stands_behind_them(ValueHead head)
    {
        using var scope = NewDisposeScope();
        var objective = Config(head);
        using var model = ScoredBatch.Model(objective);
        var examples = ScoredBatch.Examples(Grades);
        using var off = no_grad();

        var together = objective.Measure(model, null, ScoredBatch.Of(examples), CPU);
        var apart = examples.Select(example => objective.Measure(model, null, ScoredBatch.Of([example]), CPU)).ToList();

        Assert.True(examples.Select(example => example.InputIds.Length).Distinct().Count() > 1);
        Assert.Equal(apart.Sum(one => one.Sum.item<float>()), together.Sum.item<float>(), 1e-3);
    }

    [Theory]
    [MemberData(nameof(Heads))]
    public void Every_head_learns_the_grades_by_heart_and_leaks_nothing(ValueHead head)
    {
        using var scope = NewDisposeScope();
        var objective = Config(head);
        using var model = ScoredBatch.Model(objective);
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new AdamWConfig().Create(parameters);
        var batch = ScoredBatch.Of(ScoredBatch.Examples(2f, 4.5f, 3f, 1.25f));
        var live = new List<long>();
        StepResult? last = null;
        for (var step = 0; step < 60; step++)
        {
            last = TrainingStep.Backward(model, adapter, objective, parameters, [batch], CPU);
            optimizer.Step(0.01);
            live.Add(TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }

        var figures = objective.Derive(last!.Figures).ToDictionary();
        Assert.True(figures["mae"] < 0.3, $"{figures["mae"]}");
        Assert.True(figures["correlation"] > 0.95, $"{figures["correlation"]}");
        Assert.Equal(live[5], live[^1]);
    }

    [Fact]
    public void Grades_outside_the_support_are_told_before_training()
    {
        var rows = ScoredBatch.Examples(Grades);

        Assert.Equal(
            "data.train: 1 of 4 grades lie outside v_min 1 to v_max 5 and count as the nearer end; the grades go from 1.5 to 9.",
            Assert.Single(Config(ValueHead.HlGauss).Inspect("train", rows)));
        Assert.Empty(new RegressionConfig().Inspect("train", rows));
        Assert.Empty((Config(ValueHead.HlGauss) with { VMax = 10 }).Inspect("train", rows));
    }

    [Theory]
    [InlineData("""{ "type": "regression", "value_head": "hl_gauss" }""", "objective.v_min")]
    [InlineData("""{ "type": "regression", "value_head": "c51", "v_min": 3, "v_max": 3 }""", "objective.v_min")]
    [InlineData("""{ "type": "regression", "value_head": "two_hot", "v_min": 0, "v_max": 1, "bins": 1 }""", "objective.bins")]
    public void A_support_is_asked_for(string objective, string path) => Assert.Equal(path, Refused(objective));

    private static string Refused(string objective) => Assert.Single(SpecJson.Parse(
        $$"""{ "model": "m", "data": { "train": "t" }, "objective": {{objective}} }""").Errors).Path;

    private static RegressionConfig Config(ValueHead head) => new() { ValueHead = head, VMin = 1, VMax = 5, Bins = 21 };

    private static Dictionary<string, double> Named(ObjectiveConfig objective, BatchLoss measured, int items) =>
        objective.Derive([.. measured.Figures!.data<float>().Select(sum => (double)sum / items)]).ToDictionary();

    private static double[] Softmax(float[] logits) => [.. logits.Select(logit => Math.Exp(logit) / logits.Sum(other => Math.Exp(other)))];

    private static double Correlation(double[] x, double[] y)
    {
        var (meanX, meanY) = (x.Average(), y.Average());
        return x.Zip(y, (a, b) => (a - meanX) * (b - meanY)).Sum()
            / Math.Sqrt(x.Sum(a => (a - meanX) * (a - meanX)) * y.Sum(b => (b - meanY) * (b - meanY)));
    }

    private sealed class Near(double tolerance) : IEqualityComparer<double>
    {
        public bool Equals(double x, double y) => Math.Abs(x - y) <= tolerance * Math.Max(1, Math.Abs(x));

        public int GetHashCode(double number) => 0;
    }
}
