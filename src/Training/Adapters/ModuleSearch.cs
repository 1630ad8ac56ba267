using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Gated LoRAs beside layers of a running model, to learn which of them matter. Gone when it is disposed.</summary>
/// <remarks>
/// Two levels, first order: the factors step on training rows, the gates on held-out ones, neither looking ahead through a step of the other
/// (Liu et al. 2018, arXiv:1806.09055, §2.3, with ξ = 0).
/// </remarks>
internal sealed class ModuleSearch : IDisposable
{
    /// <summary>Rows of the Gram matrices: all their gradients are held at a time.</summary>
    private const int GramRows = 32;

    private readonly DifforaConfig _config;
    private readonly CausalLm _model;
    private readonly Calibration _calibration;
    private readonly List<(LinearSlot Slot, GatedLora Layer)> _layers = [];

    public ModuleSearch(DifforaConfig config, CausalLm model, IReadOnlyList<LinearShape> layers, Calibration calibration)
    {
        (_config, _model, _calibration) = (config, model, calibration);
        using var scope = NewDisposeScope();
        using var generator = new Generator(0, CPU);   // of factors that are thrown away
        var slots = model.Linears.ToDictionary(slot => slot.Name);
        foreach (var shape in layers)
        {
            var slot = slots[shape.Name];
            var selected = config.Select(shape);
            var layer = new GatedLora(
                slot.Module, LowRankConfig.Kaiming([selected.Rank, shape.In], generator).to(model.Device),
                zeros(shape.Out, selected.Rank, dtype: ScalarType.Float32, device: model.Device), selected.Scale);
            slot.Module = layer;
            _layers.Add((slot, layer));
        }
    }

    /// <summary>
    /// For each module the smallest eigenvalue of J·Jᵀ, where a row of J is the gradient of one training row by B, at B = 0; there A has none.
    /// </summary>
    public double[] GramScores()
    {
        using var scope = NewDisposeScope();
        var gradients = _layers.ConvertAll(_ => new List<Tensor>());
        _calibration.Losses(_model, Math.Min(GramRows, _config.CalibrationRows), loss =>
        {
            BackwardPass.OfThisThread.Run(loss);
            foreach (var (index, (_, layer)) in _layers.Index())
            {
                gradients[index].Add(layer.B.grad!.flatten().clone().DetachFromDisposeScope());
                layer.ZeroGradients();
            }
        });
        var scores = gradients.ConvertAll(rows => SmallestEigenvalue(stack(rows)));
        gradients.ForEach(rows => rows.ForEach(row => row.Dispose()));
        return [.. scores];
    }

    /// <summary>Trains factors and gates in turn.</summary>
    /// <returns>σ(g) of each module, in (0, 1).</returns>
    public double[] TrainGates()
    {
        using var scope = NewDisposeScope();
        using var factors = new AdamSteps([.. _layers.SelectMany(pair => new[] { pair.Layer.A, pair.Layer.B })], _config.SearchRate, 0.9);
        using var gates = new AdamSteps([.. _layers.Select(pair => pair.Layer.Gate)], _config.GateRate, 0.5);
        for (var epoch = 0; epoch < _config.SearchEpochs; epoch++)
        {
            var row = 0;
            _calibration.Losses(_model, _config.CalibrationRows, loss =>
            {
                BackwardPass.OfThisThread.Run(loss);
                (IsHeldOut(row, _config.HeldOut) ? gates : factors).Step();
                row++;
                _layers.ForEach(pair => pair.Layer.ZeroGradients());
            });
        }

        return gates.Steps > 0 ? [.. _layers.Select(pair => pair.Layer.Gate.sigmoid().item<double>())] : throw TrainingException.InvalidData(
            $"There are too few rows for adapter.held_out {_config.HeldOut} to leave one for the gates; raise it, or give more training rows.", "adapter.held_out");
    }

    /// <summary>Whether the gates learn from a row: so many of the first n as n times the share has whole ones.</summary>
    internal static bool IsHeldOut(int row, double share) => Math.Floor((row + 1) * share) > Math.Floor(row * share);

    /// <summary>The smallest eigenvalue of J·Jᵀ.</summary>
    /// <param name="rows">J, [N, P].</param>
    internal static double SmallestEigenvalue(Tensor rows)
    {
        using var scope = NewDisposeScope();
        var wide = rows.cpu().to_type(ScalarType.Float64);
        return linalg.eigvalsh(wide.mm(wide.t())).min().item<double>();
    }

    public void Dispose()
    {
        foreach (var (slot, layer) in _layers)
        {
            slot.Module = layer.Base;
            layer.Dispose();
        }
    }

    /// <summary>y = base(x) + σ(g)·s·B·A·x.</summary>
    private sealed class GatedLora : nn.Module<Tensor, Tensor>
    {
        // Fields of a module's or a tensor's type would be found by reflection and registered as this one's.
        private readonly Func<nn.Module<Tensor, Tensor>> _base;
        private readonly Tensor[] _tensors;
        private readonly double _scale;

        public GatedLora(nn.Module<Tensor, Tensor> layer, Tensor a, Tensor b, double scale)
            : base(nameof(GatedLora))
        {
            _base = () => layer;
            _scale = scale;
            _tensors = [a, b, zeros(1, dtype: ScalarType.Float64, device: a.device)];
            foreach (var tensor in _tensors)
            {
                tensor.requires_grad_().DetachFromDisposeScope();
            }
        }

        public nn.Module<Tensor, Tensor> Base => _base();

        public Tensor A => _tensors[0];

        public Tensor B => _tensors[1];

        public Tensor Gate => _tensors[2];

        public override Tensor forward(Tensor x)
        {
            using var scope = NewDisposeScope();
            var left = (B * (Gate.sigmoid() * _scale).to(B.dtype)).to(x.dtype);
            return (Base.forward(x) + nn.functional.linear(nn.functional.linear(x, A.to(x.dtype)), left)).MoveToOuterDisposeScope();
        }

        public void ZeroGradients()
        {
            foreach (var tensor in _tensors)
            {
                tensor.grad?.zero_();
            }
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                foreach (var tensor in _tensors)
                {
                    tensor.grad?.Dispose();
                    tensor.Dispose();
                }
            }

            base.Dispose(disposing);
        }
    }

    /// <summary>Adam without decay (Kingma and Ba 2014, arXiv:1412.6980, algorithm 1), β₂ = 0.999, ε = 1e-8.</summary>
    private sealed class AdamSteps(IReadOnlyList<Tensor> tensors, double rate, double beta1) : IDisposable
    {
        private const double Beta2 = 0.999;

        private readonly List<(Tensor Mean, Tensor Square)> _moments =
            [.. tensors.Select(tensor => (zeros_like(tensor).DetachFromDisposeScope(), zeros_like(tensor).DetachFromDisposeScope()))];

        public int Steps { get; private set; }

        public void Step()
        {
            using var off = no_grad();
            using var scope = NewDisposeScope();
            Steps++;
            foreach (var (tensor, (mean, square)) in tensors.Zip(_moments))
            {
                var gradient = tensor.grad!;
                mean.mul_(beta1).add_(gradient, alpha: 1 - beta1);
                square.mul_(Beta2).addcmul_(gradient, gradient, value: 1 - Beta2);
                var root = square.div(1 - Math.Pow(Beta2, Steps)).sqrt_().add_(1e-8);
                tensor.addcdiv_(mean, root, value: -rate / (1 - Math.Pow(beta1, Steps)));
            }
        }

        public void Dispose() => _moments.ForEach(pair =>
        {
            pair.Mean.Dispose();
            pair.Square.Dispose();
        });
    }
}
