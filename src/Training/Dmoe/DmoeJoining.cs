using System.Diagnostics;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Dmoe;

/// <summary>Trains a <see cref="DmoeAggregation"/> on the cached hidden states of pairs.</summary>
/// <param name="states">[2·pairs, nD], float32: the chosen answer of a pair, then the rejected one; the pairs that are measured after those that are trained on.</param>
/// <param name="margins">Of all pairs.</param>
/// <param name="trained">Pairs that are trained on.</param>
internal sealed class DmoeJoining(TrainingSpec spec, DmoeAggregation aggregation, Tensor states, float[] margins, int trained)
{
    /// <summary>Loss of the last step, nats.</summary>
    public double LastLoss { get; private set; }

    public void Run(StepPlan plan, Action<StepReport> report, CancellationToken ct)
    {
        using var parameters = new FlatParameters(aggregation.Tensors);
        using var optimizer = spec.Optimizer.Create(parameters);
        for (var step = 1; step <= plan.TotalSteps; step++)
        {
            ct.ThrowIfCancellationRequested();
            var started = Stopwatch.GetTimestamp();
            var rate = spec.Optimizer.LearningRate * LearningRate.Factor(
                spec.Schedule.LrScheduler, step - 1, LearningRate.WarmupSteps(spec.Schedule, plan.TotalSteps), plan.TotalSteps);
            int[] pairs = [.. plan.BatchesOf(step - 1).Planned.SelectMany(batch => batch.Sequences).SelectMany(examples => examples)];
            var (right, norm) = Backward(parameters, pairs, step);
            if (spec.Schedule.MaxGradNorm is { } maximum)
            {
                parameters.Clip(norm, maximum);
            }

            optimizer.Step(rate);
            report(new(
                step, plan.TotalSteps, step / (double)plan.StepsPerEpoch, LastLoss, rate, norm, pairs.Length / Stopwatch.GetElapsedTime(started).TotalSeconds,
                TokensSeen: 0, TrainedTokens: 0, Environment.WorkingSet, TokenAccuracy: null,
                new Dictionary<string, double> { ["train/accuracy"] = right / (double)pairs.Length }));
        }
    }

    /// <summary>Loss, nats, and share of right pairs of those that are measured.</summary>
    public (double Loss, double Accuracy) Measure()
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var (losses, right) = Of([.. Enumerable.Range(trained, margins.Length - trained)]);
        return (losses.mean().item<float>(), right / (double)(margins.Length - trained));
    }

    private (long Right, double Norm) Backward(FlatParameters parameters, int[] pairs, int step)
    {
        using var scope = NewDisposeScope();
        parameters.ZeroGradients();
        var (losses, right) = Of(pairs);
        var loss = losses.mean();
        BackwardPass.OfThisThread.Run(loss);
        LastLoss = loss.item<float>();
        var norm = parameters.GradientNorm();
        return double.IsFinite(LastLoss) && double.IsFinite(norm) ? (right, norm) : throw new TrainingException(
            FailureCode.Diverged, $"The loss became {LastLoss} at step {step} of what joins the experts: lower objective.aggregation_learning_rate.",
            "objective.aggregation_learning_rate");
    }

    /// <returns>Losses [N], in the caller's dispose scope, and how many chosen answers lead.</returns>
    private (Tensor Losses, long Right) Of(int[] pairs)
    {
        using var scope = NewDisposeScope();
        Tensor Rewards(int part) => aggregation.Rewards(states.index_select(0, tensor(Array.ConvertAll(pairs, pair => (2L * pair) + part), device: states.device)));
        var (chosen, rejected) = (Rewards(0), Rewards(1));
        var losses = BradleyTerry.Losses(chosen, rejected, tensor(Array.ConvertAll(pairs, pair => margins[pair]), device: states.device));
        return (losses.MoveToOuterDisposeScope(), chosen.gt(rejected).sum().item<long>());
    }
}
