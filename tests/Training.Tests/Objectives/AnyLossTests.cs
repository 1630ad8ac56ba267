using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>The soft confusion matrix and the four losses, against numbers worked from the paper's formulas.</summary>
public class AnyLossTests
{
    private static readonly float[] Labels = [1, 1, 0, 0, 0];
    private static readonly float[] Probabilities = [0.9f, 0.45f, 0.52f, 0.1f, 0.48f];

    [Fact]
    public void Predictions_are_pushed_to_the_ends()
    {
        using var scope = NewDisposeScope();

        var pushed = AnyLoss.Approximate(tensor(Probabilities), 73).data<float>().ToArray();

        Assert.Equal([1.0f, 0.025333f, 0.811533f, 0f, 0.188467f], pushed, (a, b) => Math.Abs(a - b) < 2e-6);
    }

    [Fact]
    public void The_soft_confusion_matrix()
    {
        using var scope = NewDisposeScope();
        var (tp, fn, fp, tn) = AnyLoss.Confusion(AnyLoss.Approximate(tensor(Probabilities), 73), tensor(Labels));

        Assert.Equal([1.025333f, 0.974667f, 1f, 2f], new[] { tp, fn, fp, tn }.Select(count => count.item<float>()), (a, b) => Math.Abs(a - b) < 2e-6);
    }

    [Theory]
    [InlineData(ClassificationLoss.Accuracy, 1, 0.394933)]
    [InlineData(ClassificationLoss.FBeta, 1, 0.490560)]
    [InlineData(ClassificationLoss.FBeta, 2, 1 - (5 * 1.025333 / ((4 * 2) + 2.025333)))]   // 1 − (1+β²)TP / (β²P + S)
    [InlineData(ClassificationLoss.GMean, 1, 0.415383)]
    [InlineData(ClassificationLoss.BalancedAccuracy, 1, 0.410333)]
    public void One_less_the_figure(ClassificationLoss loss, double beta, double expected)
    {
        using var scope = NewDisposeScope();
        var value = AnyLoss.Loss(loss, AnyLoss.Approximate(tensor(Probabilities), 73), tensor(Labels), beta);

        Assert.Equal(expected, value.item<float>(), 2e-6);
    }

    [Theory]
    [InlineData(ClassificationLoss.Accuracy)]
    [InlineData(ClassificationLoss.FBeta)]
    [InlineData(ClassificationLoss.GMean)]
    [InlineData(ClassificationLoss.BalancedAccuracy)]
    public void A_batch_of_one_class_has_a_loss_and_a_gradient(ClassificationLoss loss)
    {
        using var scope = NewDisposeScope();
        foreach (var label in (float[])[0, 1])
        {
            var probabilities = tensor(new[] { 0.4f, 0.5f, 0.6f }).requires_grad_(true);

            var value = AnyLoss.Loss(loss, AnyLoss.Approximate(probabilities, 73), full([3], label));
            value.backward();

            Assert.InRange(value.item<float>(), 0, 1);
            Assert.All(probabilities.grad!.data<float>(), slope => Assert.True(float.IsFinite(slope)));
        }
    }

    [Theory]
    [InlineData(ClassificationLoss.Accuracy)]
    [InlineData(ClassificationLoss.FBeta)]
    [InlineData(ClassificationLoss.GMean)]
    [InlineData(ClassificationLoss.BalancedAccuracy)]
    public void The_gradient_raises_positives_and_lowers_negatives(ClassificationLoss loss)
    {
        using var scope = NewDisposeScope();
        var probabilities = full([5], 0.5f).requires_grad_(true);

        AnyLoss.Loss(loss, AnyLoss.Approximate(probabilities, 73), tensor(Labels)).backward();

        Assert.Equal(Labels.Select(label => label == 1), probabilities.grad!.data<float>().Select(slope => slope < 0));
        Assert.All(probabilities.grad!.data<float>(), slope => Assert.True(Math.Abs(slope) > 0.1));
    }
}
