using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Runs;

public sealed class TrainingStepTests
{
    private static readonly IReadOnlyList<Example> Examples = [.. new[] { 9, 4, 12, 6, 3 }.Select((length, row) =>
    {
        var ids = Enumerable.Range(0, length).Select(t => 3 + (row * 31 + t * 17) % 240).ToArray();
        return new Example(ids, [.. ids.Select((id, t) => t % 3 == 0 ? Example.Ignored : id)], row + 1);
    })];

    public static TheoryData<int, int?> Layouts => new() { { 1, null }, { 2, null }, { 3, null }, { 2, 16 }, { 1, 40 } };

    [Theory, MemberData(nameof(Layouts))]
    public void Loss_and_gradient_do_not_depend_on_batches_accumulation_or_packing(int batchSize, int? packTo)
    {
        using var step = new Step();
        var (loss, gradient) = step.Run(batchSize: 5, packTo: null);
        var (otherLoss, otherGradient) = step.Run(batchSize, packTo);

        Assert.Equal(loss, otherLoss, 1e-5);
        Assert.True(RunFolder.RelativeError(otherGradient, gradient) <= 1e-5, $"{RunFolder.RelativeError(otherGradient, gradient):E2}");
    }

    [Fact]
    public void The_loss_is_the_mean_over_tokens_and_not_over_rows()
    {
        using var step = new Step();
        var (loss, _) = step.Run(batchSize: 5, packTo: null);

        // Each row alone gives its own mean; weighted by its tokens they make the mean over all tokens.
        var parts = Examples.Select(example => (step.Run(1, null, [example]).Loss, example.TrainableTokens)).ToArray();
        var weighted = parts.Sum(part => part.Loss * part.TrainableTokens) / parts.Sum(part => part.TrainableTokens);
        Assert.Equal(weighted, loss, 1e-5);
        Assert.NotEqual(parts.Average(part => part.Loss), loss, 1e-3);
    }

    [Fact]
    public void Steps_leak_no_tensor()
    {
        using var step = new Step();
        step.Run(2, 16);
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (var count = 0; count < 5; count++)
        {
            step.Run(2, 16);
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private sealed class Step : IDisposable
    {
        private readonly CausalLm _model;
        private readonly Adapter _adapter;
        private readonly FlatParameters _parameters;
        private readonly Optimizer _optimizer;

        public Step()
        {
            set_num_threads(1);
            _model = CausalLm.Load(SharedData.Path("golden", "models", "llama_untied"), ScalarType.Float32, CPU);
            _adapter = new FullConfig().Attach(_model, 1);
            _parameters = new FlatParameters(_adapter.Trainable);
            _optimizer = new AdamWConfig().Create(_parameters);
        }

        /// <summary>One step over the examples, and an update of rate zero, which changes nothing but touches all that training touches.</summary>
        public (double Loss, float[] Gradient) Run(int batchSize, int? packTo, IReadOnlyList<Example>? examples = null)
        {
            var plan = new BatchPlan(examples ?? Examples, batchSize, padId: 0, packTo, shuffleSeed: null);
            var batches = plan.ForEpoch(0).Select(plan.Collate).ToArray();
            var result = TrainingStep.Backward(_model, _adapter, new SftConfig(), _parameters, batches, CPU);
            _parameters.Clip(result.GradNorm, 1e6);
            _optimizer.Step(0);
            using var scope = NewDisposeScope();
            return (result.Loss, [.. _adapter.Trainable.SelectMany(tensor => tensor.Parameter.grad!.data<float>().ToArray())]);
        }

        public void Dispose()
        {
            _optimizer.Dispose();
            _parameters.Dispose();
            _adapter.Dispose();
            _model.Dispose();
        }
    }
}
