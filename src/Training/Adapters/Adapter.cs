using TorchSharp.Modules;
using TrainingService.Training.Data;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>A tensor that moves in training.</summary>
/// <param name="Name">Its key in the file that <see cref="Adapter.Save"/> writes.</param>
public sealed record TrainableTensor(string Name, Parameter Parameter)
{
    /// <summary>For optimizers that treat tensors differently.</summary>
    public TensorRole Role { get; init; }
}

/// <summary>What an adapter does to one matrix of the model.</summary>
/// <param name="Module">Name of the layer, such as <c>model.layers.0.self_attn.q_proj</c>; its weight in a checkpoint is <c>Module.weight</c>.</param>
/// <param name="ReadWeight">Gives <see cref="Weight"/>.</param>
/// <param name="ReadFactors">Gives <see cref="Factors"/>; null: none.</param>
/// <param name="ReadDelta">Gives <see cref="Delta"/>; null: the matrix itself trains.</param>
public sealed record LayerUpdate(
    string Module, Func<Tensor> ReadWeight, Func<LowRankFactors?>? ReadFactors = null, Func<Tensor>? ReadDelta = null)
{
    /// <summary>
    /// The matrix of the model, [out, in]: the trained matrix itself when it <see cref="TrainsInPlace"/>, else frozen and without the update.
    /// A quantised one is dequantised at each call, into a new tensor in the caller's dispose scope.
    /// </summary>
    public Tensor Weight => ReadWeight();

    /// <summary>Whether the matrix itself trains: its update is then the difference to the base model's file.</summary>
    public bool TrainsInPlace => ReadDelta is null;

    /// <summary>ΔW in thin factors; null where it has none. They belong to the adapter, or are new in the caller's dispose scope.</summary>
    public LowRankFactors? Factors => ReadFactors?.Invoke();

    /// <summary>ΔW, [out, in], float32, a new tensor in the caller's dispose scope.</summary>
    /// <exception cref="InvalidOperationException">The matrix trains in place.</exception>
    public Tensor Delta => ReadDelta?.Invoke() ?? throw new InvalidOperationException($"{Module} trains in place; compare it with the base model's file.");
}

/// <summary>ΔW = scale·left·right.</summary>
/// <param name="Left">[out, R], float32.</param>
/// <param name="Right">[R, in], float32.</param>
public sealed record LowRankFactors(Tensor Left, Tensor Right, double Scale);

/// <summary>An <see cref="AdapterConfig"/> attached to a model: the tensors that train, and how they are saved and merged.</summary>
/// <remarks>
/// Attaching replaces linear layers of the running model from outside; <see cref="Dispose()"/> puts the original layers back and frees the
/// adapter's own tensors. Weights that train in place (biases, modules in full) keep their trained values in the model.
/// </remarks>
public abstract class Adapter : IDisposable
{
    /// <summary>Every tensor that trains, in a fixed order.</summary>
    public abstract IReadOnlyList<TrainableTensor> Trainable { get; }

    /// <summary>The matrices that the adapter changes, in the model's order.</summary>
    public abstract IReadOnlyList<LayerUpdate> Updates { get; }

    /// <summary>How the frozen matrices are held; null: as plain numbers.</summary>
    public virtual QuantizationConfig? Quantization => null;

    /// <summary>A scalar that is added to the loss, in the caller's dispose scope; null: none.</summary>
    public virtual Tensor? Regulariser() => null;

    /// <summary>Called before the first step of a run, and before those that follow on a resume: how many optimizer steps the whole run has.</summary>
    /// <exception cref="TrainingException">What the adapter does between steps does not fit into so many.</exception>
    public virtual void Begin(int totalSteps)
    {
    }

    /// <summary>Called before the model runs on a batch, in training and in evaluation.</summary>
    /// <returns>Disposed when the batch's gradients are there; null: nothing has to end. Tensors are the caller's dispose scope's.</returns>
    public virtual IDisposable? BeginBatch(Batch batch) => null;

    /// <summary>Lets the model run as if nothing were attached to it, until the result is disposed; gradients are off meanwhile.</summary>
    /// <returns>Null: the base model is not there any more, because weights of its own train or others have taken their place.</returns>
    public virtual IDisposable? SwitchOff() => null;

    /// <summary>Called after each optimizer step, one-based; the gradients of the step are still there.</summary>
    public virtual void AfterStep(int step)
    {
    }

    /// <summary>Switches dropout on or off. A fresh adapter is in training mode.</summary>
    public virtual void SetTraining(bool training)
    {
    }

    /// <summary>Writes the trained tensors in the layout that Hugging Face libraries load: a PEFT folder, or a model folder.</summary>
    /// <param name="folder">Created when it does not exist; files of the same names are replaced.</param>
    /// <param name="card">What the model card tells; its base model is the name that the user knows, not a path of a work folder.</param>
    /// <exception cref="TrainingException">A tensor holds a number that is not finite.</exception>
    public abstract void Save(string folder, ModelCard card);

    /// <summary>Copies the tensors of a folder that <see cref="Save"/> wrote into the attached parameters; keys and shapes must be equal.</summary>
    public abstract void Load(string folder);

    /// <summary>What a checkpoint keeps besides the trained tensors, so that a run goes on exactly.</summary>
    public virtual AdapterState State => AdapterState.None;

    /// <summary>Takes over a <see cref="State"/>, after <see cref="Load"/>. Its tensors are the caller's: copy them.</summary>
    public virtual void Restore(AdapterState state)
    {
    }

    /// <summary>The merged matrix W + ΔW of one update, in float32, in the caller's dispose scope.</summary>
    public static Tensor Merge(LayerUpdate update)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var weight = update.Weight.to_type(ScalarType.Float32);
        var merged = update.TrainsInPlace ? weight.clone()
            : update.Factors is { } factors ? addmm(weight, factors.Left, factors.Right, beta: 1, alpha: (float)factors.Scale)
            : weight + update.Delta;
        return merged.MoveToOuterDisposeScope();
    }

    /// <summary>Folds every update into the running model, in the model's number format, and detaches the adapter's layers.</summary>
    /// <remarks>The sum is formed in float32 and rounded once. Afterwards the adapter can only be disposed.</remarks>
    public abstract void MergeIntoModel();

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    protected abstract void Dispose(bool disposing);
}
