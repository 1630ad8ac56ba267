using TrainingService.Training.Adapters;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Labels of whole answers: losses of batches, figures of sets, and labels that are none.</summary>
public class ClassificationTests
{
    [Fact]
    public void Cross_entropy_is_summed_over_answers()
    {
        using var scope = NewDisposeScope();
        var objective = new ClassificationConfig { Classes = 3 };
        using var model = ScoredBatch.Model(objective);
        var batch = ScoredBatch.Of(ScoredBatch.Examples(2, 0, 1, 1));
        var outputs = ScoredBatch.Outputs(model, batch);

        var measured = objective.Measure(model, null, batch, CPU);

        int[] labels = [2, 0, 1, 1];
        var expected = outputs.Select((row, index) => Math.Log(row.Sum(logit => Math.Exp(logit))) - row[labels[index]]).Sum();
        Assert.Equal(expected, measured.Sum.item<float>(), 1e-4);
        Assert.Equal(outputs.Select((row, index) => Array.IndexOf(row, row.Max()) == labels[index]).Count(right => right), measured.Correct.item<long>());
    }

    // A new head of a figure's loss says ½ of everything: A(½) = ½, so 1 − accuracy is ½ for any labels.
    [Fact]
    public void A_figure_starts_where_its_slope_is()
    {
        using var scope = NewDisposeScope();
        foreach (var layers in Enum.GetValues<TrainingService.Training.Models.ScoreLayers>())
        {
            var objective = new ClassificationConfig { Loss = ClassificationLoss.Accuracy, ScoreLayers = layers };
            using var model = ScoredBatch.Model(objective);

            var measured = objective.Measure(model, null, ScoredBatch.Of(ScoredBatch.Examples(1, 0, 0, 0)), CPU);

            Assert.Equal(4 * 0.5f, measured.Sum.item<float>(), 1e-6f);
        }
    }

    // 1 − F1 at ½ everywhere: of [1, 0, 0] TP ½, P 1, S 3/2: 1 − 1/2.5 = 0.6; of [1] 1 − 1/1.5 = 1/3. The step weighs batches by answers.
    [Fact]
    public void A_step_averages_the_figures_of_its_batches()
    {
        using var scope = NewDisposeScope();
        var objective = new ClassificationConfig { Loss = ClassificationLoss.FBeta };
        using var model = ScoredBatch.Model(objective);
        using var adapter = new LoraConfig { Rank = 2 }.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        var examples = ScoredBatch.Examples(1, 0, 0, 1);

        var step = TrainingStep.Backward(
            model, adapter, objective, parameters, [ScoredBatch.Of([.. examples.Take(3)]), ScoredBatch.Of([examples[3]])], CPU);

        Assert.Equal(4, step.Items);
        Assert.Equal(((3 * 0.6) + (1.0 / 3)) / 4, step.Loss, 1e-6);
    }

    [Theory]
    [InlineData(ClassificationLoss.CrossEntropy)]
    [InlineData(ClassificationLoss.Accuracy)]
    [InlineData(ClassificationLoss.FBeta)]
    [InlineData(ClassificationLoss.GMean)]
    [InlineData(ClassificationLoss.BalancedAccuracy)]
    public void Every_loss_learns_the_labels_by_heart_and_leaks_nothing(ClassificationLoss loss)
    {
        using var scope = NewDisposeScope();
        var objective = new ClassificationConfig { Loss = loss };
        using var model = ScoredBatch.Model(objective);
        using var adapter = new LoraConfig { Rank = 4 }.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new AdamWConfig().Create(parameters);
        var batch = ScoredBatch.Of(ScoredBatch.Examples(0, 1, 0, 1));
        var live = new List<long>();
        StepResult? last = null;
        for (var step = 0; step < 30; step++)
        {
            last = TrainingStep.Backward(model, adapter, objective, parameters, [batch], CPU);
            optimizer.Step(0.01);
            live.Add(TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }

        Assert.Equal(1, last!.Accuracy);
        Assert.Equal(1, objective.Derive(last.Figures).ToDictionary()["f1"], 1e-6);
        Assert.Equal(live[5], live[^1]);
    }

    // Of 20 answers 3 right positives, 1 missed, 2 invented, 14 right negatives: precision 3/5, recall 3/4, F1 6/9, specificity 14/16.
    [Fact]
    public void Figures_of_a_set_follow_from_its_counts()
    {
        var figures = new ClassificationConfig().Derive([3 / 20.0, 1 / 20.0, 2 / 20.0]).ToDictionary();

        Assert.Equal(0.6, figures["precision"], 1e-12);
        Assert.Equal(0.75, figures["recall"], 1e-12);
        Assert.Equal(2 / 3.0, figures["f1"], 1e-12);
        Assert.Equal(Math.Sqrt(0.75 * 0.875), figures["g_mean"], 1e-12);
        Assert.Equal((0.75 + 0.875) / 2, figures["balanced_accuracy"], 1e-12);
        Assert.Equal(0, new ClassificationConfig().Derive([0, 0, 0]).ToDictionary()["f1"]);
    }

    // Class 0: 1 right, 1 missed; class 1: 2 right; class 2: none right, 1 missed, 2 invented. F1 2/3, 1, 0; recalls ½, 1, 0.
    [Fact]
    public void More_classes_have_means_over_classes()
    {
        var figures = new ClassificationConfig { Classes = 3 }.Derive([0.2, 0.2, 0, /**/ 0.4, 0, 0, /**/ 0, 0.2, 0.4]).ToDictionary();

        Assert.Equal(((2 / 3.0) + 1) / 3, figures["macro_f1"], 1e-12);
        Assert.Equal(0.5, figures["balanced_accuracy"], 1e-12);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(-1)]
    [InlineData(0.5f)]
    public void A_label_that_is_no_class_is_refused_with_its_row(float label)
    {
        var error = Assert.Throws<TrainingException>(() => new ClassificationConfig().Inspect("train", ScoredBatch.Examples(1, label)).ToList());

        Assert.Equal((FailureCode.InvalidData, "data.train:2"), (error.Code, error.Param));
        Assert.Contains("objective.classes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_class_without_rows_is_told() =>
        Assert.Equal("data.validation has no row of class 1.", Assert.Single(new ClassificationConfig().Inspect("validation", ScoredBatch.Examples(0, 0))));

    [Fact]
    public void The_reward_of_two_classes_is_the_chance_of_the_positive_one()
    {
        using var scope = NewDisposeScope();
        var outputs = tensor(new[] { 0f, MathF.Log(3), 2, 2 }, [2, 2]);

        var read = new ClassificationConfig().Read(outputs);

        Assert.Equal([0.75f, 0.5f], read.Rewards.data<float>(), (a, b) => Math.Abs(a - b) < 1e-6);
        Assert.Null(read.Disagreement);
    }

    [Fact]
    public void Figures_are_losses_of_two_classes()
    {
        var errors = SpecJson.Parse("""{ "model": "m", "data": { "train": "t" }, "objective": { "type": "classification", "classes": 3, "loss": "g_mean" } }""").Errors;

        Assert.Equal("objective.loss", Assert.Single(errors).Path);
    }
}
