using TorchSharp.Modules;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>One trained table, a row for each virtual token, that a running model sees before each row.</summary>
internal sealed class VirtualTokensAdapter : Adapter
{
    /// <summary>Key of the table in the file, as PEFT has it.</summary>
    internal const string Key = "prompt_embeddings";

    private readonly CausalLm _model;
    private readonly VirtualTokensConfig _config;
    private readonly Parameter _table;

    /// <param name="first">First values [P, width]; taken over.</param>
    public VirtualTokensAdapter(CausalLm model, VirtualTokensConfig config, Tensor first)
    {
        if (model.VirtualTokens is not null)
        {
            throw new InvalidOperationException("The model has virtual tokens of another adapter; dispose that first.");
        }

        _model = model;
        _config = config;
        _table = new Parameter(first, requires_grad: true);
        _table.DetachFromDisposeScope();
        Trainable = [new TrainableTensor(Key, _table) { Role = TensorRole.Embedding }];
        model.VirtualTokens = config.Seen(model.Config, _table);
    }

    public override IReadOnlyList<TrainableTensor> Trainable { get; }

    /// <summary>None: every matrix stays as it is.</summary>
    public override IReadOnlyList<LayerUpdate> Updates => [];

    public override QuantizationConfig? Quantization => _model.Quantization;

    public override IDisposable? SwitchOff() => new Hidden(_model);

    public override void Save(string folder, ModelCard card)
    {
        PeftFolder.Write(folder, _config, _model.Config, [SavedTensor.Of(Key, _table)], card);
        QuantizedBase.Write(folder, _model.Quantization);
    }

    public override void Load(string folder)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        PeftFolder.Open(folder).CopyInto([SavedTensor.Of(Key, _table)], _config);
    }

    public override void MergeIntoModel() =>
        throw TrainingException.InvalidSpec($"The adapter ({_config.Title}) cannot be merged: {_config.RefusesMerging}", "format");

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _model.VirtualTokens = null;
            _table.Dispose();
        }
    }

    /// <summary>Takes a model's virtual tokens away until it is disposed.</summary>
    private sealed class Hidden : IDisposable
    {
        private readonly CausalLm _model;
        private readonly VirtualTokens? _tokens;

        public Hidden(CausalLm model)
        {
            _model = model;
            _tokens = model.VirtualTokens;
            model.VirtualTokens = null;
        }

        public void Dispose() => _model.VirtualTokens = _tokens;
    }
}
