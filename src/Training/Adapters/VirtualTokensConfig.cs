using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>What virtual tokens start as.</summary>
public enum VirtualTokenStart
{
    /// <summary>Tokens of the vocabulary, drawn at random.</summary>
    SampleVocab,

    /// <summary>The tokens of <see cref="VirtualTokensConfig.InitText"/>, cut or repeated to the number that there are.</summary>
    Text,

    /// <summary>Standard normal numbers.</summary>
    Random,
}

/// <summary>A method that leaves every weight as it is and trains tokens that stand before each row.</summary>
/// <remarks>Nothing is there to merge: the attention of every later token reads them. See <see cref="Models.VirtualTokens"/> for what a model does with them.</remarks>
public abstract record VirtualTokensConfig : AdapterConfig, IValidatableObject
{
    [Description("Trained tokens that stand before each row; with data.max_length they must fit into the positions of the model."), Range(1, 8192)]
    public int NumVirtualTokens { get; init; } = 20;

    [Description("What they start as: sample_vocab (tokens of the vocabulary, drawn at random), text (the tokens of init_text) or random (standard normal numbers)."),
        TrainingOnly, PeftName(null)]
    public VirtualTokenStart Init { get; init; } = VirtualTokenStart.SampleVocab;

    [Description("The text of init text, such as a description of the task; cut or repeated to num_virtual_tokens tokens."), TrainingOnly, PeftName(null)]
    public string? InitText { get; init; }

    /// <summary>Tokens of <see cref="InitText"/>; null until the tokenizer has read it.</summary>
    internal IReadOnlyList<int>? InitTokens { get; init; }

    internal override bool LeavesBase(ModelConfig model, QuantizationConfig? held) => true;

    internal override int VirtualTokens => NumVirtualTokens;

    internal override string RefusesMerging =>
        "its virtual tokens are read by the attention and are no change of a weight; use it as it is (format peft), or train a lora where weights are needed.";

    /// <summary>How many numbers one virtual token has.</summary>
    internal abstract long WidthOf(ModelConfig model);

    /// <summary>First values of the table from tokens.</summary>
    /// <param name="ids">[P], int64, on the model's device.</param>
    /// <returns>[P, width], in the caller's dispose scope.</returns>
    internal abstract Tensor TableOf(CausalLm model, Tensor ids);

    /// <summary>What the model sees of a table.</summary>
    /// <param name="table">[P, width], float32, read at every pass.</param>
    internal abstract VirtualTokens Seen(ModelConfig model, Tensor table);

    /// <summary>Fields of PEFT's configuration that follow from the model, and those without a member.</summary>
    internal abstract JsonObject PeftShape(ModelConfig model, string baseModel);

    public override IReadOnlyList<SpecError> Check(ModelConfig model) => NumVirtualTokens <= model.MaxPositions - 2
        ? []
        : [LayerChecks.Error(
            "num_virtual_tokens", $"is {NumVirtualTokens}, and the model has {model.MaxPositions} positions for them and the row; use at most {model.MaxPositions - 2}.",
            SpecErrorCodes.TooLong)];

    /// <inheritdoc/>
    /// <remarks>The role is that of a table of tokens: no optimizer should take it for the matrix of a layer.</remarks>
    public override IReadOnlyList<TrainedShape> Trained(ModelConfig model) => [new([NumVirtualTokens, WidthOf(model)], TensorRole.Embedding, IsAdded: true)];

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (Init == VirtualTokenStart.Text && string.IsNullOrWhiteSpace(InitText))
        {
            yield return new("is what init text starts from, and is missing; give a text, or set init to sample_vocab.", [nameof(InitText)]);
        }
        else if (Init != VirtualTokenStart.Text && InitText is not null)
        {
            yield return new("is read by init text alone; set init to text, or leave it out.", [nameof(InitText), nameof(Init)]);
        }
    }

    internal override AdapterConfig Reading(Tokenizer? tokenizer)
    {
        if (Init != VirtualTokenStart.Text || From is not null)
        {
            return this;
        }

        var tokens = (tokenizer ?? throw NeedsTokenizer()).Encode(InitText!);
        return tokens.Count > 0
            ? this with { InitTokens = tokens }
            : throw TrainingException.InvalidSpec("adapter.init_text has no tokens; give a longer text, or set init to sample_vocab.", "adapter.init_text");
    }

    protected override Adapter Create(CausalLm model, int seed, Calibration? calibration, string? restoring)
    {
        var config = From is null ? this : PeftFolder.Open(From).Reconcile(this, model.Config);
        if (config.Check(model.Config) is [var error, ..])
        {
            throw TrainingException.InvalidSpec(error.Message, error.Path);
        }

        using var off = no_grad();
        using var scope = NewDisposeScope();
        var table = From is null && restoring is null ? config.First(model, seed) : zeros(config.NumVirtualTokens, config.WidthOf(model.Config), device: model.Device);
        var adapter = new VirtualTokensAdapter(model, config, table);
        if (From is null)
        {
            return adapter;
        }

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

    /// <summary>One stream of numbers on the CPU: the same start on every device.</summary>
    private Tensor First(CausalLm model, int seed)
    {
        using var random = new Generator((ulong)seed, CPU);
        if (Init == VirtualTokenStart.Random)
        {
            return randn([NumVirtualTokens, WidthOf(model.Config)], ScalarType.Float32, generator: random).to(model.Device);
        }

        var ids = Init == VirtualTokenStart.Text
            ? Repeated(InitTokens ?? throw NeedsTokenizer())
            : randint(0, model.Config.VocabularySize, NumVirtualTokens, dtype: ScalarType.Int64, generator: random);
        return TableOf(model, ids.to(model.Device)).to_type(ScalarType.Float32);

        Tensor Repeated(IReadOnlyList<int> tokens) =>
            tensor(Enumerable.Range(0, NumVirtualTokens).Select(index => (long)tokens[index % tokens.Count]).ToArray());
    }

    private static TrainingException NeedsTokenizer() => TrainingException.InvalidSpec(
        "adapter.init text needs the model's tokenizer, and the model's folder has none; add it, or set init to sample_vocab.", "adapter.init");
}
