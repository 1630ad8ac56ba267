using TorchSharp.Modules;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;
using Linear = TrainingService.Training.Models.Linear;

namespace TrainingService.Training.Adapters;

/// <summary>What a method may learn of the training rows before it starts: the inputs of layers, and the gradients of their weights.</summary>
/// <remarks>The same rows in the same order at each call, so that a run that is started anew starts at the same values.</remarks>
/// <param name="rows">Gives at most so many training rows, one to a batch, without padding.</param>
/// <param name="progress">Gets the rows that are done, of how many.</param>
public sealed class Calibration(
    ObjectiveConfig objective, Device device, Func<int, IEnumerable<Batch>> rows, Action<int, int>? progress = null, CancellationToken ct = default)
{
    /// <summary>Hands the inputs of layers to a function, row by row, while the model runs without gradients.</summary>
    /// <param name="layers">Names of linear layers whose inputs are wanted.</param>
    /// <param name="limit">Rows at most.</param>
    /// <param name="take">Gets a layer's name and its input [N, in], in the model's format; the tensor is gone after the call.</param>
    /// <returns>Rows that there were.</returns>
    public int Inputs(CausalLm model, IReadOnlySet<string> layers, int limit, Action<string, Tensor> take)
    {
        var slots = model.Linears.Where(slot => layers.Contains(slot.Name)).ToList();
        var listening = slots.ConvertAll(slot => new Listening(slot.Name, slot.Module, take));
        try
        {
            foreach (var (slot, listener) in slots.Zip(listening))
            {
                slot.Module = listener;
            }

            return EachRow(limit, batch =>
            {
                using var off = no_grad();
                objective.Measure(model, adapter: null, batch, device);
            });
        }
        finally
        {
            foreach (var (slot, listener) in slots.Zip(listening))
            {
                slot.Module = listener.Layer;
                listener.Dispose();
            }
        }
    }

    /// <summary>What a method was given to look at rows with, for one that cannot start without.</summary>
    /// <exception cref="TrainingException">It was given nothing.</exception>
    internal static Calibration Of(Calibration? given, AdapterConfig method) => given ?? throw TrainingException.InvalidSpec(
        $"Adapter {method.Name} looks at training rows before it starts, and there are none here; train with data, or start from a saved adapter.",
        "adapter.type");

    /// <summary>As <see cref="Inputs"/>, once for layers that read one tensor after another, such as q, k and v, or gate and up.</summary>
    /// <returns>Rows that there were, and for each layer the name under which its input was handed on.</returns>
    public (int Rows, IReadOnlyDictionary<string, string> Sources) DistinctInputs(
        CausalLm model, IReadOnlySet<string> layers, int limit, Action<string, Tensor> take)
    {
        var sources = new Dictionary<string, string>();
        (string Name, Tensor Input)? last = null;
        try
        {
            var rows = Inputs(model, layers, limit, (name, input) =>
            {
                if (!sources.TryGetValue(name, out var source))
                {
                    source = last is { } before && before.Input.shape.SequenceEqual(input.shape) && before.Input.equal(input).all().item<bool>()
                        ? before.Name
                        : name;
                    sources.Add(name, source);
                    last?.Input.Dispose();
                    last = (source, input.detach().clone().DetachFromDisposeScope());
                }

                if (source == name)
                {
                    take(name, input);
                }
            });
            return (rows, sources);
        }
        finally
        {
            last?.Input.Dispose();
        }
    }

    /// <summary>The mean over rows of the gradients of frozen weights.</summary>
    /// <returns>By layer, [out, in], float32, in the caller's dispose scope.</returns>
    /// <inheritdoc cref="Gradients"/>
    public IReadOnlyDictionary<string, Tensor> MeanGradients(CausalLm model, IReadOnlyList<LinearShape> layers, int limit)
    {
        var sums = layers.ToDictionary(layer => layer.Name, layer => zeros(layer.Out, layer.In, dtype: ScalarType.Float32, device: model.Device));
        var rows = Gradients(model, sums.Keys.ToHashSet(), limit, (name, gradient) => sums[name].add_(gradient));
        foreach (var sum in sums.Values)
        {
            sum.div_(rows);
        }

        return sums;
    }

    /// <summary>Hands the gradients of frozen weights to a function, row by row: those of the row's mean loss.</summary>
    /// <param name="layers">Names of linear layers. Those with a quantised weight get it in full for the time of the call: hand on a few at a time.</param>
    /// <param name="take">Gets a layer's name and the gradient [out, in] of its weight, in the model's format; the tensor is gone after the call.</param>
    /// <inheritdoc cref="Inputs"/>
    public int Gradients(CausalLm model, IReadOnlySet<string> layers, int limit, Action<string, Tensor> take)
    {
        var slots = model.Linears.Where(slot => layers.Contains(slot.Name)).ToList();
        var held = slots.Where(slot => slot.Base is QuantizedLinear).Select(slot => (Slot: slot, slot.Module)).ToList();
        foreach (var (slot, _) in held)
        {
            slot.Module = InFull(slot, model.DType);
        }

        var weights = slots.ConvertAll(slot => (slot.Name, Weight: ((Linear)(slot.Base is QuantizedLinear ? slot.Module : slot.Base)).weight));
        try
        {
            weights.ForEach(layer => layer.Weight.requires_grad = true);
            return EachRow(limit, batch =>
            {
                using var on = enable_grad();
                var measured = objective.Measure(model, adapter: null, batch, device);
                BackwardPass.OfThisThread.Run(measured.Sum / (double)objective.Weight(batch));
                using var off = no_grad();
                foreach (var (name, weight) in weights)
                {
                    if (weight.grad is { } gradient)
                    {
                        take(name, gradient);
                        gradient.zero_();
                    }
                }
            });
        }
        finally
        {
            foreach (var (_, weight) in weights)
            {
                weight.requires_grad = false;
                weight.grad?.Dispose();
                weight.grad = null;
            }

            foreach (var (slot, module) in held)
            {
                var lent = slot.Module;
                slot.Module = module;
                lent.Dispose();
            }
        }
    }

    /// <summary>Hands the mean loss of each row to a function, with its graph.</summary>
    /// <param name="take">Gets the loss, a scalar that is gone after the call.</param>
    /// <inheritdoc cref="Inputs"/>
    public int Losses(CausalLm model, int limit, Action<Tensor> take) => EachRow(limit, batch =>
    {
        using var on = enable_grad();
        take(objective.Measure(model, adapter: null, batch, device).Sum / (double)objective.Weight(batch));
    });

    private static Linear InFull(LinearSlot slot, ScalarType dtype)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        return new(Frozen(AdaptedLinear.OriginalWeight(slot).to_type(dtype)), ((QuantizedLinear)slot.Base).Bias is { } bias ? Frozen(bias.alias()) : null);

        static Parameter Frozen(Tensor value)
        {
            var parameter = new Parameter(value, requires_grad: false);
            parameter.DetachFromDisposeScope();
            return parameter;
        }
    }

    private int EachRow(int limit, Action<Batch> measure)
    {
        var done = 0;
        foreach (var batch in rows(limit))
        {
            ct.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            measure(batch);
            done++;
            progress?.Invoke(done, limit);
        }

        return done > 0 ? done : throw TrainingException.InvalidData("There is no training row to calibrate the adapter with.", "data.train");
    }

    /// <summary>Runs a layer and tells its input.</summary>
    private sealed class Listening(string layerName, nn.Module<Tensor, Tensor> layer, Action<string, Tensor> take)
        : nn.Module<Tensor, Tensor>(nameof(Listening))
    {
        // A field of a module type would be found by reflection, registered as a child and disposed with this one.
        private readonly Func<nn.Module<Tensor, Tensor>> _layer = () => layer;

        public nn.Module<Tensor, Tensor> Layer => _layer();

        public override Tensor forward(Tensor input)
        {
            using (NewDisposeScope())
            {
                take(layerName, input.reshape(-1, input.shape[^1]));
            }

            return Layer.forward(input);
        }
    }
}
