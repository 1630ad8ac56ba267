using System.Text.Json;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Gives ranks to the layers whose ΔW matters most to the loss, until the budget is spent.</summary>
/// <remarks>
/// Zhang et al. 2023, arXiv:2308.12043, §3; the authors' <c>loralib/increlora.py</c>. Unlike there, the budget is met exactly: the last ranks
/// are fewer where a full increment would overshoot, of equal scores the earlier layer is served, and where the number of layers that grow at a
/// time is too small for the run, more grow. The reserve is emptied at the end of the growth in every case.
/// </remarks>
internal sealed class IncreLoraAdapter : LayerAdapter
{
    private readonly IncreLoraConfig _config;
    private readonly List<(double Importance, double Uncertainty)> _scores = [];
    private int _interval;
    private int _lastGrowth;

    public IncreLoraAdapter(CausalLm model, IncreLoraConfig config, LayerPlan plan)
        : base(model, config, plan) => _config = config;

    private List<IncreLoraLinear> Grown => [.. Layers.Cast<IncreLoraLinear>()];

    private int Budget => _config.TargetRank * Layers.Count();

    /// <summary>Ranks in use, by layer.</summary>
    public IReadOnlyDictionary<string, int> Ranks => Grown.ToDictionary(layer => layer.Shape.Name, layer => layer.Rank);

    public override AdapterState State => _scores.Count == 0
        ? AdapterState.None
        : new([], JsonSerializer.SerializeToElement(_scores.Select(score => (double[])[score.Importance, score.Uncertainty])));

    public override void Begin(int totalSteps)
    {
        // Ranks that come in the last steps could learn nothing.
        var end = Math.Max(1, (int)(totalSteps * 2L / 3));
        var left = Budget - Grown.Sum(layer => Math.Max(layer.Rank, _config.InitialRank));   // before a checkpoint is loaded, ranks are zero
        var events = (left + _config.TopLayers * _config.Added - 1) / (_config.TopLayers * _config.Added);
        _interval = _config.Interval ?? Math.Max(1, (end - _config.WarmupSteps) / Math.Max(1, events));
        _lastGrowth = end / _interval * _interval;
        if (_lastGrowth <= _config.WarmupSteps)
        {
            throw TrainingException.InvalidSpec(
                $"adapter.warmup_steps is {_config.WarmupSteps} and adapter.interval {_interval}, which leaves no step for growth in the first {end} of the "
                + $"{totalSteps} steps; lower one of them.", "adapter.warmup_steps");
        }

        if (_scores.Count == 0)
        {
            _scores.AddRange(Grown.Select(_ => (0.0, 0.0)));
        }

        Watch();
    }

    /// <summary>γ times the mean distance of the squared lengths of the rows of A and the columns of B from one.</summary>
    public override Tensor? Regulariser()
    {
        if (_config.Orthogonality == 0)
        {
            return null;
        }

        using var scope = NewDisposeScope();
        var lengths = Grown.ConvertAll(layer => layer.Lengths());
        return stack(lengths.Select(length => length.Sum)).sum().mul(_config.Orthogonality / lengths.Sum(length => length.Count)).MoveToOuterDisposeScope();
    }

    public override void AfterStep(int step)
    {
        var layers = Grown;
        if (layers.TrueForAll(layer => layer.Gradient is null))
        {
            return;
        }

        using var off = no_grad();
        using var scope = NewDisposeScope();
        var left = Left;
        if (left > 0)
        {
            Observe(layers);
            if (step > _config.WarmupSteps && step <= _lastGrowth && step % _interval == 0)
            {
                left -= Grow(layers, left, (_lastGrowth - step) / _interval + 1);
            }
        }

        if (left == 0)
        {
            layers.ForEach(layer =>
            {
                layer.Watch(false);
                layer.Set(layer.Rank, grows: false);
            });
        }
    }

    public override void Restore(AdapterState state)
    {
        var scores = state.Record!.Value.EnumerateArray().Select(score => (score[0].GetDouble(), score[1].GetDouble())).ToList();
        _scores.Clear();
        _scores.AddRange(scores);
        Watch();
    }

    private int Left => Budget - Grown.Sum(layer => layer.Rank);

    private void Watch()
    {
        using var off = no_grad();
        var grows = Left > 0;
        Grown.ForEach(layer => layer.Watch(grows));
    }

    /// <summary>I = Σ|ΔW∘G|/√(numbers of ΔW); Ī ← β₁·Ī + (1−β₁)·I; U ← β₂·U + (1−β₂)·|I − Ī|.</summary>
    private void Observe(List<IncreLoraLinear> layers)
    {
        var now = stack(layers.Select(layer =>
        {
            using var scope = NewDisposeScope();
            var sum = layer.Delta().mul_(layer.Gradient!).abs_().sum().div_(Math.Sqrt(layer.Gradient!.numel()));
            layer.Gradient!.zero_();
            return sum.MoveToOuterDisposeScope();
        })).cpu().data<float>().ToArray();
        for (var index = 0; index < now.Length; index++)
        {
            var importance = _config.Beta1 * _scores[index].Importance + (1 - _config.Beta1) * now[index];
            _scores[index] = (importance, _config.Beta2 * _scores[index].Uncertainty + (1 - _config.Beta2) * Math.Abs(now[index] - importance));
        }
    }

    /// <returns>Ranks that were given.</returns>
    private int Grow(List<IncreLoraLinear> layers, int left, int events)
    {
        var given = Share(
            [.. layers.Select(layer => layer.Rank)], [.. _scores.Select(score => score.Importance * score.Uncertainty)], left,
            Math.Max(_config.TopLayers * _config.Added, (left + events - 1) / events), _config.Added, _config.MaxRank);
        for (var index = 0; index < layers.Count; index++)
        {
            if (given[index] > 0)
            {
                layers[index].Set(layers[index].Rank + given[index], grows: true);
            }
        }

        return given.Sum();
    }

    /// <summary>Ranks for each layer: an increment for each in the order of the scores, and again from the first, until so many are given.</summary>
    /// <param name="left">What the budget still has.</param>
    /// <param name="wanted">How many to give at this time.</param>
    internal static int[] Share(IReadOnlyList<int> ranks, IReadOnlyList<double> scores, int left, int wanted, int increment, int maximum)
    {
        var given = new int[ranks.Count];
        var order = Enumerable.Range(0, ranks.Count).OrderByDescending(index => scores[index]).ToList();
        var open = Math.Min(left, wanted);
        while (open > 0 && order.Exists(index => ranks[index] + given[index] < maximum))
        {
            foreach (var index in order)
            {
                var more = Math.Min(Math.Min(increment, open), maximum - ranks[index] - given[index]);
                given[index] += more;
                open -= more;
            }
        }

        return given;
    }

    protected override void Dispose(bool disposing)
    {
        _scores.Clear();
        base.Dispose(disposing);
    }
}
