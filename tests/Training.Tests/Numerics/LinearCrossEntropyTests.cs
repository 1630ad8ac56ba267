using TorchSharp;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Numerics;

public sealed class LinearCrossEntropyTests
{
    /// <summary>Chunks of 12, 12 and 6 rows.</summary>
    private const int Rows = 30, Width = 6, Vocabulary = 80, Chunk = 1000;

    private readonly BackwardPass _pass = new();

    [Fact]
    public void The_sum_over_two_rows_is_what_a_hand_computes()
    {
        using var scope = NewDisposeScope();

        // softmax of (ln 1, ln 2, ln 5) is (1, 2, 5)/8, of (ln 3, ln 1, ln 1) is (3, 1, 1)/5.
        // -ln(5/8) - ln(1/5) = 0.4700036292 + 1.6094379124 = 2.0794415417 (= ln 8)
        var logits = tensor(new[] { 0f, MathF.Log(2), MathF.Log(5), MathF.Log(3), 0f, 0f }, 2, 3);
        var targets = tensor(new long[] { 2, 1 });
        var (sum, correct) = LinearCrossEntropy.Sum(logits, eye(3), targets, _pass);

        Assert.Equal(2.0794415417, sum.item<float>(), 1e-6);
        Assert.Equal(1, correct.item<long>());
        Assert.Equal([0.4700036292f, 1.6094379124f], LinearCrossEntropy.PerRow(logits, eye(3), targets, _pass).data<float>(), (a, b) => Math.Abs(a - b) < 1e-6);
    }

    /// <summary>The gradient of -ln softmax(x)[t] is softmax(x) minus one at t: (1, 2, 5 - 8)/8 and (3, 1 - 5, 1)/5.</summary>
    [Fact]
    public void The_gradient_of_two_rows_is_what_a_hand_computes()
    {
        using var scope = NewDisposeScope();
        var logits = tensor(new[] { 0f, MathF.Log(2), MathF.Log(5), MathF.Log(3), 0f, 0f }, [2, 3], requires_grad: true);
        _pass.Run(LinearCrossEntropy.Sum(logits, eye(3), tensor(new long[] { 2, 1 }), _pass).Sum);

        Assert.Equal([0.125f, 0.25f, -0.375f, 0.6f, -0.8f, 0.2f], logits.grad!.data<float>(), (a, b) => Math.Abs(a - b) < 1e-6);
    }

    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    public void Sum_count_and_gradients_are_those_of_the_plain_way(bool hiddenTrains, bool weightTrains)
    {
        using var scope = NewDisposeScope();
        var plain = Inputs.Make(hiddenTrains, weightTrains);
        var logits = nn.functional.linear(plain.Hidden, plain.Weight);
        var wanted = nn.functional.cross_entropy(logits, plain.Targets, reduction: nn.Reduction.Sum);
        (wanted / 700.0).backward();

        var chunked = Inputs.Make(hiddenTrains, weightTrains);
        var (sum, correct) = LinearCrossEntropy.Sum(chunked.Hidden, chunked.Weight, chunked.Targets, _pass, Chunk);
        _pass.Run(sum / 700.0);

        Assert.Equal(wanted.item<float>(), sum.item<float>(), 1e-6 * wanted.item<float>());
        Assert.Equal(logits.argmax(1).eq(plain.Targets).sum().item<long>(), correct.item<long>());
        AssertClose(plain, chunked, 1e-6);
    }

    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    public void Rows_may_count_differently(bool hiddenTrains, bool weightTrains)
    {
        using var scope = NewDisposeScope();
        var factors = (arange(Rows, ScalarType.Float32) * 0.37).cos();
        var plain = Inputs.Make(hiddenTrains, weightTrains);
        var wanted = nn.functional.cross_entropy(nn.functional.linear(plain.Hidden, plain.Weight), plain.Targets, reduction: nn.Reduction.None);
        (wanted * factors).sum().backward();

        var chunked = Inputs.Make(hiddenTrains, weightTrains);
        var losses = LinearCrossEntropy.PerRow(chunked.Hidden, chunked.Weight, chunked.Targets, _pass, Chunk);
        _pass.Run((losses * factors).sum());

        Assert.True(Error(losses, wanted) <= 1e-6, $"{Error(losses, wanted):E2}");
        AssertClose(plain, chunked, 1e-6);
    }

    [Fact]
    public void The_loss_of_bfloat16_rows_is_computed_in_float32()
    {
        using var scope = NewDisposeScope();
        var (hidden, weight, targets) = Inputs.Make(true, true, ScalarType.BFloat16);
        var (exactHidden, exactWeight) = (Wide(hidden), Wide(weight));
        _pass.Run(LinearCrossEntropy.Sum(exactHidden, exactWeight, targets, _pass, Chunk).Sum);
        var (sum, _) = LinearCrossEntropy.Sum(hidden, weight, targets, _pass, Chunk);
        _pass.Run(sum);

        Assert.Equal(ScalarType.Float32, sum.dtype);
        Assert.Equal(ScalarType.BFloat16, hidden.grad!.dtype);
        Assert.True(Error(hidden.grad, exactHidden.grad!) <= 1e-2, $"{Error(hidden.grad, exactHidden.grad!):E2}");
        Assert.True(Error(weight.grad!, exactWeight.grad!) <= 1e-2, $"{Error(weight.grad!, exactWeight.grad!):E2}");

        static Tensor Wide(Tensor narrow) => narrow.detach().to_type(ScalarType.Float32).requires_grad_();
    }

    /// <summary>A target of probability 1 - ε has a gradient of order ε, which rounding softmax to bfloat16 would drown in 2⁻⁹.</summary>
    [Fact]
    public void A_bfloat16_target_that_is_almost_certain_keeps_its_small_gradient()
    {
        using var scope = NewDisposeScope();
        var hidden = tensor(new[] { 8f, 0f }, [1, 2]).to_type(ScalarType.BFloat16).requires_grad_();
        _pass.Run(LinearCrossEntropy.Sum(hidden, eye(2).to_type(ScalarType.BFloat16), zeros(1, dtype: ScalarType.Int64), _pass).Sum);

        // softmax(8, 0) = (1 - ε, ε) with ε = 1/(1 + e⁸) = 3.3535e-4
        Assert.Equal([-3.3535e-4f, 3.3535e-4f], hidden.grad!.to_type(ScalarType.Float32).data<float>(), (a, b) => Math.Abs(a - b) < 2e-6);
    }

    [Fact]
    public void Without_gradients_the_numbers_are_the_same()
    {
        using var scope = NewDisposeScope();
        var inputs = Inputs.Make(true, true);
        var with = LinearCrossEntropy.Sum(inputs.Hidden, inputs.Weight, inputs.Targets, _pass, Chunk).Sum;
        using var noGrad = no_grad();
        var without = LinearCrossEntropy.Sum(inputs.Hidden, inputs.Weight, inputs.Targets, _pass, Chunk).Sum;

        Assert.True(with.requires_grad);
        Assert.False(without.requires_grad);
        Assert.Equal(with.item<float>(), without.item<float>());
    }

    [Fact]
    public void A_second_backward_pass_is_refused_and_not_wrong()
    {
        using var scope = NewDisposeScope();
        var hidden = ones(1, 2).requires_grad_();
        var sum = LinearCrossEntropy.Sum(hidden, eye(2), zeros(1, dtype: ScalarType.Int64), _pass).Sum;
        _pass.Run(sum);

        Assert.Throws<InvalidOperationException>(() => _pass.Run(sum));
    }

    [Fact]
    public void Losses_and_backward_passes_leave_nothing_behind()
    {
        using var scope = NewDisposeScope();
        var inputs = Inputs.Make(true, true);
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (var count = 0; count < 3; count++)
        {
            using var step = NewDisposeScope();
            _pass.Run(LinearCrossEntropy.Sum(inputs.Hidden, inputs.Weight, inputs.Targets, _pass, Chunk).Sum);
            _pass.Run(LinearCrossEntropy.PerRow(inputs.Hidden, inputs.Weight, inputs.Targets, _pass, Chunk).sum());
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private static void AssertClose(Inputs expected, Inputs actual, double tolerance)
    {
        foreach (var (wanted, given) in new[] { (expected.Hidden, actual.Hidden), (expected.Weight, actual.Weight) })
        {
            Assert.Equal(wanted.requires_grad, given.requires_grad);
            if (wanted.requires_grad)
            {
                Assert.True(Error(given.grad!, wanted.grad!) <= tolerance, $"{Error(given.grad!, wanted.grad!):E2}");
            }
        }
    }

    private static double Error(Tensor actual, Tensor expected)
    {
        using var noGrad = no_grad();
        var (a, b) = (actual.to_type(ScalarType.Float64), expected.to_type(ScalarType.Float64));
        return ((a - b).norm() / b.norm()).item<double>();
    }

    private sealed record Inputs(Tensor Hidden, Tensor Weight, Tensor Targets)
    {
        public static Inputs Make(bool hiddenTrains, bool weightTrains, ScalarType dtype = ScalarType.Float32) => new(
            (arange(Rows * Width, ScalarType.Float32) * 0.7).sin().view(Rows, Width).to_type(dtype).requires_grad_(hiddenTrains),
            (arange(Vocabulary * Width, ScalarType.Float32) * 1.3).cos().view(Vocabulary, Width).to_type(dtype).requires_grad_(weightTrains),
            (arange(Rows, ScalarType.Int64) * 7919).remainder(Vocabulary));
    }
}
