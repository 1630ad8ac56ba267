using System.ComponentModel;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>A tensor that a method keeps beside a layer, or once for all layers.</summary>
/// <param name="Name">Its key in the saved file: after the layer's name and a dot, or the whole key of a tensor that layers share.</param>
/// <param name="Trains">Otherwise it stays as it starts, and is saved so that nobody has to make it again.</param>
public sealed record LayerTensor(string Name, IReadOnlyList<long> Shape, TensorRole Role = TensorRole.Weight, bool Trains = true);

/// <summary>A method that changes chosen linear layers by tensors beside each.</summary>
/// <remarks>
/// A method of its own says which tensors stand beside a layer (<see cref="TensorsOf"/>) and which module runs in its place
/// (<see cref="Wrap"/>). Selection, checks, counts, saving, loading, merging and detaching follow from these for all methods alike.
/// </remarks>
public abstract record LayerAdapterConfig : AdapterConfig
{
    [Description("Layers to adapt: a list of module name endings, a regular expression over whole module names, or all-linear (every linear layer but the output head).")]
    public ModuleSelector TargetModules { get; init; } = ModuleSelector.AllLinear;

    [Description("Layers to leave alone, selected in the same way; null: none.")]
    public ModuleSelector? ExcludeModules { get; init; }

    [Description("Modules that train in full and are saved with the adapter, such as embed_tokens or lm_head.")]
    public IReadOnlyList<string> ModulesToSave { get; init; } = [];

    protected override Adapter Create(CausalLm model, int seed, Calibration? calibration, string? restoring)
    {
        if (From is null)
        {
            if (restoring is not null)
            {
                var kept = Restored(restoring);
                return kept.Build(model, LayerPlan.Create(kept, model.Config));
            }

            using var scope = NewDisposeScope();
            var plan = LayerPlan.Create(this, model.Config);
            var measured = Measure(model, plan.Layers, calibration);
            var complete = Completed(plan.Layers, measured);
            var fresh = complete.Build(model, LayerPlan.Create(complete, model.Config));
            fresh.Initialise(seed, measured);
            return fresh;
        }

        var config = PeftFolder.Open(From).Reconcile(this, model.Config);
        if (config.MakesQuantizedBase && QuantizedBase.Of(From) != model.Quantization)
        {
            throw TrainingException.InvalidSpec(
                $"The adapter in 'from' has codes of its own, and this base is held in another way; set quantization as {QuantizedBase.FileName} beside the "
                + "adapter has it, or leave it out where there is none.", "quantization");
        }

        var adapter = config.Build(model, LayerPlan.Create(config, model.Config));
        try
        {
            adapter.Load(From);
            return adapter;
        }
        catch (TrainingException)
        {
            adapter.Dispose();
            throw;
        }
    }

    public sealed override IReadOnlyList<SpecError> Check(ModelConfig model) => LayerChecks.Of(this, model);

    public override IReadOnlyList<TrainedShape> Trained(ModelConfig model) => Trained(model, LayerPlan.Create(this, model));

    /// <summary>The tensors that train under a plan.</summary>
    protected IReadOnlyList<TrainedShape> Trained(ModelConfig model, LayerPlan plan)
    {
        var inPlace = plan.Biases.Concat(plan.FullWeights).ToHashSet();
        return
        [
            .. SharedBy(plan.Layers).Concat(plan.Layers.SelectMany(TensorsOf))
                .Where(tensor => tensor.Trains)
                .Select(tensor => new TrainedShape(tensor.Shape, tensor.Role, IsAdded: true)),
            .. model.Weights.Where(weight => inPlace.Contains(weight.Name)).Select(TrainedShape.InPlace),
        ];
    }

    internal override bool LeavesBase(ModelConfig model, QuantizationConfig? held)
    {
        var config = From is null ? this : PeftFolder.Open(From).Reconcile(this, model);
        return (held is null || !config.MakesQuantizedBase) && config.Trained(model).All(tensor => tensor.IsAdded);
    }

    /// <summary>The modules among which the selectors choose, in the model's order: linear layers, for all methods but those on other modules.</summary>
    internal virtual IReadOnlyList<LinearShape> Candidates(ModelConfig model) => LayerPlan.LinearsOf(model);

    /// <summary>The tensors beside one layer, in the order in which they are drawn.</summary>
    internal abstract IReadOnlyList<LayerTensor> TensorsOf(LinearShape layer);

    /// <summary>The tensors that all layers use.</summary>
    internal virtual IReadOnlyList<LayerTensor> SharedBy(IReadOnlyList<LinearShape> layers) => [];

    /// <summary>The module that runs in place of a layer; its tensors are there and hold zeros.</summary>
    internal abstract AdaptedLinear Wrap(LayerParts parts);

    /// <summary>Gives the tensors that layers share their first values, before the layers' own.</summary>
    internal virtual void InitialiseShared(IReadOnlyDictionary<string, Tensor> shared, AdapterStart start)
    {
    }

    /// <summary>What the layers' first values need to know of the training rows; nothing, for most methods.</summary>
    /// <returns>Tensors in the caller's dispose scope, by names that <see cref="AdaptedLinear.Initialise"/> asks for.</returns>
    internal virtual IReadOnlyDictionary<string, Tensor> Measure(CausalLm model, IReadOnlyList<LinearShape> layers, Calibration? calibration) =>
        new Dictionary<string, Tensor>();

    /// <summary>This choice with what follows from the training rows, such as how many ranks each layer gets.</summary>
    internal virtual LayerAdapterConfig Completed(IReadOnlyList<LinearShape> layers, IReadOnlyDictionary<string, Tensor> measured) => this;

    /// <summary>The completed choice of a run that goes on from a checkpoint.</summary>
    /// <param name="folder">Where its adapter is saved.</param>
    internal virtual LayerAdapterConfig Restored(string folder) => this;

    /// <summary>The adapter of this choice, its tensors zero. A method that acts after steps or adds to the loss has an adapter of its own.</summary>
    internal virtual LayerAdapter Build(CausalLm model, LayerPlan plan) => new(model, this, plan);

    /// <summary>Which biases of the model train beside the method's tensors.</summary>
    internal virtual BiasTraining TrainedBiases => BiasTraining.None;

    /// <summary>The choice as others can load it from a saved folder; itself, where the saved tensors are those that train.</summary>
    internal virtual LayerAdapterConfig Published => this;

    /// <summary>Whether PEFT's configuration of the method has <c>exclude_modules</c>. Without it, the layers are named one by one where some are left out.</summary>
    internal virtual bool PeftExcludes => true;

    /// <summary>Whether PEFT's configuration of the method has fields that choose layers by their number.</summary>
    internal virtual bool PeftNumbersLayers => true;

    /// <summary>Whether a tensor of a saved file follows from the choice, so that it is passed over.</summary>
    internal virtual bool Derives(string key) => false;

    /// <summary>Regular expressions besides the selectors, with the member that holds each.</summary>
    internal virtual IEnumerable<(string Member, string Pattern)> Patterns => [];

    /// <summary>What no model could be asked with, besides the patterns: a spec was checked for it when it was read, a saved config was not.</summary>
    internal virtual IEnumerable<SpecError> Faults => [];

    /// <summary>What is wrong with this choice for the layers that it selects.</summary>
    internal virtual IEnumerable<SpecError> CheckLayers(IReadOnlyList<LinearShape> layers) => [];
}
