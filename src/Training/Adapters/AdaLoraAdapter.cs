using TorchSharp.Modules;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Spends a falling budget of ranks on the triplets (a row of A, its number in E, a column of B) that matter most to the loss.</summary>
/// <remarks>
/// Zhang et al. 2023, arXiv:2303.10512, §3 and algorithm 1; in the details as PEFT 0.20.0. Importance is looked at after the optimizer's step,
/// with the gradients from before it. A pruned triplet keeps its rows of A and B, and its E goes on training until the next pruning, so
/// that it can come back; in the final steps it cannot. Of equal triplets the earlier are pruned first, so the budget is met exactly.
/// </remarks>
internal sealed class AdaLoraAdapter : LayerAdapter
{
    private readonly AdaLoraConfig _config;
    private readonly List<Triplets> _triplets = [];
    private int _last;   // the step of the last pruning

    public AdaLoraAdapter(CausalLm model, AdaLoraConfig config, LayerPlan plan)
        : base(model, config, plan) => _config = config;

    private int StartBudget => _triplets.Sum(triplets => (int)triplets.Layer.E.shape[0]);

    /// <summary>Ranks in use, by layer.</summary>
    public IReadOnlyDictionary<string, int> Ranks
    {
        get
        {
            using var scope = NewDisposeScope();
            return Layers.Cast<AdaLoraLinear>().ToDictionary(layer => layer.Shape.Name, layer => (int)layer.E.count_nonzero().item<long>());
        }
    }

    public override AdapterState State => _triplets.Count == 0
        ? AdapterState.None
        : new([.. _triplets.SelectMany(triplets => triplets.Remembered)], null);

    public override void Begin(int totalSteps)
    {
        var steps = _config.TotalSteps ?? totalSteps;
        if (steps > totalSteps)
        {
            throw TrainingException.InvalidSpec(
                $"adapter.total_steps is {steps}, and the run has {totalSteps} steps, so its ranks would not fall to target_rank; leave it out.", "adapter.total_steps");
        }

        if ((long)_config.WarmupSteps + _config.FinalSteps >= steps)
        {
            throw TrainingException.InvalidSpec(
                $"adapter.warmup_steps is {_config.WarmupSteps} and adapter.final_steps {_config.FinalSteps}, which leaves none of the {steps} steps for "
                + "pruning; lower one of them.", "adapter.warmup_steps");
        }

        Config = _config with { TotalSteps = steps };
        _last = steps - _config.FinalSteps;
        if (_triplets.Count == 0)
        {
            using var off = no_grad();
            _triplets.AddRange(Layers.Cast<AdaLoraLinear>().Select(layer => new Triplets(layer)));
        }
    }

    /// <summary>γ times the mean of ‖A·Aᵀ − I‖ and ‖Bᵀ·B − I‖ (Frobenius) over all layers.</summary>
    public override Tensor? Regulariser()
    {
        if (_config.Orthogonality == 0)
        {
            return null;
        }

        using var scope = NewDisposeScope();
        List<Tensor> distances = [];
        foreach (var layer in Layers.Cast<AdaLoraLinear>())
        {
            var one = eye(layer.A.shape[0], device: layer.A.device);
            distances.Add((layer.A.mm(layer.A.t()) - one).norm());
            distances.Add((layer.B.t().mm(layer.B) - one).norm());
        }

        return stack(distances).mean().mul(_config.Orthogonality).MoveToOuterDisposeScope();
    }

    public override void AfterStep(int step)
    {
        if (_triplets.Count == 0)
        {
            return;
        }

        using var off = no_grad();
        using var scope = NewDisposeScope();
        if (step < _last)
        {
            _triplets.ForEach(triplets => triplets.Observe(_config.Beta1, _config.Beta2));
        }

        if (step == _last || (step > _config.WarmupSteps && step < _last && step % _config.Interval == 0))
        {
            Prune(BudgetAt(step, StartBudget, _config.TargetRank * _triplets.Count, _config.WarmupSteps, _last));
        }
        else if (step > _last)
        {
            _triplets.ForEach(triplets => triplets.Mask());
        }
    }

    public override void Restore(AdapterState state)
    {
        using var off = no_grad();
        var saved = state.Tensors.ToDictionary(tensor => tensor.Name, tensor => tensor.Tensor);
        foreach (var (name, tensor) in _triplets.SelectMany(triplets => triplets.Remembered))
        {
            tensor.copy_(saved[name]);
        }
    }

    /// <summary>Triplets that stay at a step of the pruning: from <paramref name="start"/> to <paramref name="target"/> by a cubic curve.</summary>
    /// <remarks>Zhang et al. 2023, eq. 12.</remarks>
    internal static int BudgetAt(int step, int start, int target, int warmup, int last)
    {
        var left = 1 - (step - warmup) / (double)(last - warmup);
        return (int)(target + (start - target) * (left * left * left));
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _triplets.ForEach(triplets => triplets.Dispose());
            _triplets.Clear();
        }

        base.Dispose(disposing);
    }

    private void Prune(int budget)
    {
        var scores = _triplets.ConvertAll(triplets => triplets.Scores());
        var kept = scores.SelectMany((layer, index) => layer.Select((score, place) => (Layer: index, Place: place, Score: score)))
            .OrderBy(triplet => triplet.Score)
            .Skip(StartBudget - budget)
            .ToLookup(triplet => triplet.Layer, triplet => triplet.Place);
        for (var index = 0; index < _triplets.Count; index++)
        {
            _triplets[index].Keep(kept[index]);
        }
    }

    /// <summary>The triplets of one layer, and what is remembered of them.</summary>
    private sealed class Triplets : IDisposable
    {
        private readonly List<(Parameter Parameter, Tensor Importance, Tensor Uncertainty)> _factors;
        private readonly Tensor _kept;   // [R, 1]: one or zero

        public Triplets(AdaLoraLinear layer)
        {
            Layer = layer;
            _factors = ((Parameter[])[layer.A, layer.E, layer.B]).Select(factor => (factor, Fresh(zeros_like(factor)), Fresh(zeros_like(factor)))).ToList();
            _kept = Fresh(ones_like(layer.E));
        }

        public AdaLoraLinear Layer { get; }

        public IEnumerable<(string Name, Tensor Tensor)> Remembered =>
        [
            .. _factors.Zip((string[])[AdaLoraConfig.A, AdaLoraConfig.E, AdaLoraConfig.B]).SelectMany(pair => ((string, Tensor)[])
            [
                ($"{Layer.Shape.Name}.{pair.Second}.importance", pair.First.Importance),
                ($"{Layer.Shape.Name}.{pair.Second}.uncertainty", pair.First.Uncertainty),
            ]),
            ($"{Layer.Shape.Name}.kept", _kept),
        ];

        /// <summary>I = |w·g|; Ī ← β₁·Ī + (1−β₁)·I; U ← β₂·U + (1−β₂)·|I − Ī| (eq. 8 to 10).</summary>
        public void Observe(double beta1, double beta2)
        {
            foreach (var (parameter, importance, uncertainty) in _factors)
            {
                if (parameter.grad is { } gradient)
                {
                    var now = (parameter * gradient).abs_();
                    importance.mul_(beta1).add_(now, alpha: 1 - beta1);
                    uncertainty.mul_(beta2).add_(now.sub_(importance).abs_(), alpha: 1 - beta2);
                }
            }
        }

        /// <summary>The score of E and the means of the scores of the row of A and the column of B, each Ī·U (eq. 7 and 11).</summary>
        public float[] Scores()
        {
            var each = _factors.ConvertAll(factor => factor.Importance * factor.Uncertainty);
            return each[0].mean([1L]).add_(each[1].squeeze(1)).add_(each[2].mean([0L])).cpu().data<float>().ToArray();
        }

        public void Keep(IEnumerable<int> places)
        {
            var kept = new float[_kept.shape[0]];
            foreach (var place in places)
            {
                kept[place] = 1;
            }

            _kept.copy_(tensor(kept).unsqueeze(1));
            Mask();
        }

        public void Mask() => Layer.E.masked_fill_(_kept.eq(0), 0);

        public void Dispose()
        {
            _factors.ForEach(factor =>
            {
                factor.Importance.Dispose();
                factor.Uncertainty.Dispose();
            });
            _kept.Dispose();
        }

        private static Tensor Fresh(Tensor tensor) => tensor.DetachFromDisposeScope();
    }
}
