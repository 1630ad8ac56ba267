using TrainingService.Training.Numerics;

namespace TrainingService.Training.Tests.Numerics;

public sealed class TokenLossTests
{
    [Fact]
    public void A_label_is_predicted_from_the_position_before_it()
    {
        Assert.Equal([6, -100, 8, -100], TokenLoss.Targets([5, 6, -100, 8], 4));
        Assert.Equal([2, 3, -100, 5, 6, -100], TokenLoss.Targets([1, 2, 3, 4, 5, 6], 3));
    }
}
