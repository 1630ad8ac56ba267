using System.Text;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Every weight of a running model, trained in place.</summary>
internal sealed class FullAdapter : Adapter
{
    private readonly CausalLm _model;
    private readonly List<TrainableTensor> _trainable;

    public FullAdapter(CausalLm model)
    {
        _model = model;
        var roles = model.Config.Weights.ToDictionary(weight => weight.Name, TrainedShape.RoleOf);
        _trainable = model.NamedWeights().Select(weight => new TrainableTensor(weight.Name, weight.Parameter) { Role = roles[weight.Name] }).ToList();
        _trainable.ForEach(tensor => tensor.Parameter.requires_grad = true);
    }

    public override IReadOnlyList<TrainableTensor> Trainable => _trainable;

    public override IReadOnlyList<LayerUpdate> Updates
    {
        get
        {
            var weights = _trainable.ToDictionary(tensor => tensor.Name, tensor => tensor.Parameter);
            return _model.Linears.Select(slot => new LayerUpdate(slot.Name, () => weights[slot.Name + ".weight"])).ToList();
        }
    }

    /// <summary>Writes <c>config.json</c>, <c>model.safetensors</c> and <c>README.md</c>; the tokenizer's files are the caller's.</summary>
    public override void Save(string folder, ModelCard card)
    {
        using var off = no_grad();
        FiniteTensors.Check(_trainable.Select(tensor => (tensor.Name, (Tensor)tensor.Parameter)));
        HuggingFaceFolder.Save(_model, folder, copyTokenizerFrom: null);
        File.WriteAllText(Path.Combine(folder, "README.md"), ModelCardText.ForModel(card), new UTF8Encoding(false));
        SavedObjective.Write(folder, card);
    }

    public override void Load(string folder)
    {
        if (!Directory.Exists(folder))
        {
            throw TrainingException.InvalidSpec("The model folder does not exist; give the folder that holds model.safetensors.", "adapter.from");
        }

        using var off = no_grad();
        using var saved = CheckpointFolder.Open(folder);
        var names = NamesIn(saved);
        foreach (var (name, parameter) in _trainable)
        {
            using var scope = NewDisposeScope();
            parameter.copy_(saved.Read(names[name], parameter.dtype, parameter.device));
        }
    }

    /// <summary>Nothing to fold: the weights of the model are the trained ones.</summary>
    public override void MergeIntoModel()
    {
    }

    private IReadOnlyDictionary<string, string> NamesIn(CheckpointFolder saved)
    {
        try
        {
            return CheckpointNames.Match(_model.Config, saved);
        }
        catch (TrainingException error)
        {
            throw TrainingException.InvalidData(
                $"The model in 'from' does not fit the base model, so it was made from another one: {error.Message}", "adapter.from", error);
        }
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            foreach (var trained in _trainable.Where(tensor => !tensor.Parameter.IsInvalid))
            {
                trained.Parameter.requires_grad = false;
            }

            _trainable.Clear();
        }
    }
}
