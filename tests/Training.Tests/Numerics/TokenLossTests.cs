using TorchSharp;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Numerics;

public sealed class TokenLossTests
{
    [Fact]
    public void The_sum_over_two_tokens_is_what_a_hand_computes()
    {
        using var scope = NewDisposeScope();

        // softmax of (ln 1, ln 2, ln 5) is (1, 2, 5)/8, of (ln 3, ln 1, ln 1) is (3, 1, 1)/5.
        // -ln(5/8) - ln(1/5) = 0.4700036292 + 1.6094379124 = 2.0794415417 (= ln 8)
        var logits = tensor(new[] { 0f, MathF.Log(2), MathF.Log(5), MathF.Log(3), 0f, 0f, 9f, 9f, 9f }, 1, 3, 3);
        var targets = tensor(new long[] { 2, 1, -100 }, 1, 3);

        Assert.Equal(2.0794415417, TokenLoss.Sum(logits, targets).item<float>(), 1e-6);
        Assert.Equal(1, TokenLoss.Correct(logits, targets).item<long>());
    }

    [Fact]
    public void A_label_is_predicted_from_the_position_before_it()
    {
        Assert.Equal([6, -100, 8, -100], TokenLoss.Targets([5, 6, -100, 8], 4));
        Assert.Equal([2, 3, -100, 5, 6, -100], TokenLoss.Targets([1, 2, 3, 4, 5, 6], 3));
    }

    [Fact]
    public void Padding_changes_neither_loss_nor_accuracy()
    {
        using var scope = NewDisposeScope();
        var logits = (arange(24, ScalarType.Float32) * 0.7).sin().view(1, 4, 6);
        var padded = cat([logits, full(1, 3, 6, 50f)], 1);

        Assert.Equal(
            TokenLoss.Sum(logits, tensor(new long[] { 1, 2, 3, 4 }, 1, 4)).item<float>(),
            TokenLoss.Sum(padded, tensor(new long[] { 1, 2, 3, 4, -100, -100, -100 }, 1, 7)).item<float>(), 1e-6);
        Assert.Equal(
            TokenLoss.Correct(logits, tensor(new long[] { 1, 2, 3, 4 }, 1, 4)).item<long>(),
            TokenLoss.Correct(padded, tensor(new long[] { 1, 2, 3, 4, -100, -100, -100 }, 1, 7)).item<long>());
    }

    [Fact]
    public void The_loss_of_bfloat16_logits_is_computed_in_float32()
    {
        using var scope = NewDisposeScope();
        var logits = (arange(512, ScalarType.Float32) * 0.3).sin().view(1, 1, 512).to_type(ScalarType.BFloat16);
        var loss = TokenLoss.Sum(logits, tensor(new long[] { 3 }, 1, 1));

        Assert.Equal(ScalarType.Float32, loss.dtype);
        Assert.Equal(TokenLoss.Sum(logits.to_type(ScalarType.Float32), tensor(new long[] { 3 }, 1, 1)).item<float>(), loss.item<float>());
    }

    [Fact]
    public void A_loss_leaves_one_tensor_behind()
    {
        using var scope = NewDisposeScope();
        var logits = rand(2, 3, 5);
        var targets = zeros(2, 3, dtype: ScalarType.Int64);
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        TokenLoss.Sum(logits, targets);
        TokenLoss.Correct(logits, targets);

        Assert.Equal(before + 2, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }
}
