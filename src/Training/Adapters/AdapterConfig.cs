using System.ComponentModel;
using System.Reflection;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Adapters;

/// <summary>Which weights of the base model move, and in which form.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(FullConfig), "full")]
[JsonDerivedType(typeof(LoraConfig), "lora")]
[JsonDerivedType(typeof(DoraConfig), "dora")]
[JsonDerivedType(typeof(PissaConfig), "pissa")]
[JsonDerivedType(typeof(LoftqConfig), "loftq")]
[JsonDerivedType(typeof(LqLoraConfig), "lq_lora")]
[JsonDerivedType(typeof(MissConfig), "miss")]
[JsonDerivedType(typeof(AdaLoraConfig), "adalora")]
[JsonDerivedType(typeof(Ia3Config), "ia3")]
[JsonDerivedType(typeof(LnTuningConfig), "ln_tuning")]
[JsonDerivedType(typeof(OftConfig), "oft")]
[JsonDerivedType(typeof(BoftConfig), "boft")]
[JsonDerivedType(typeof(HraConfig), "hra")]
[JsonDerivedType(typeof(IncreLoraConfig), "increlora")]
[JsonDerivedType(typeof(OloraConfig), "olora")]
[JsonDerivedType(typeof(SvfitConfig), "svfit")]
[JsonDerivedType(typeof(LoraXsConfig), "lora_xs")]
[JsonDerivedType(typeof(HiraConfig), "hira")]
[JsonDerivedType(typeof(LolduConfig), "loldu")]
[JsonDerivedType(typeof(CordaConfig), "corda")]
[JsonDerivedType(typeof(EvaConfig), "eva")]
[JsonDerivedType(typeof(LoraGaConfig), "lora_ga")]
[JsonDerivedType(typeof(LoraSbConfig), "lora_sb")]
[JsonDerivedType(typeof(VeraConfig), "vera")]
[JsonDerivedType(typeof(RandLoraConfig), "randlora")]
[JsonDerivedType(typeof(FourierFtConfig), "fourierft")]
[JsonDerivedType(typeof(VbLoraConfig), "vblora")]
[JsonDerivedType(typeof(NolaConfig), "nola")]
[JsonDerivedType(typeof(LoHaConfig), "loha")]
[JsonDerivedType(typeof(LoKrConfig), "lokr")]
[JsonDerivedType(typeof(SaraConfig), "sara")]
[JsonDerivedType(typeof(AtlasConfig), "atlas")]
[JsonDerivedType(typeof(DifforaConfig), "diffora")]
[JsonDerivedType(typeof(WatermarkConfig), "watermark")]
[JsonDerivedType(typeof(KindConfig), "kind")]
[JsonDerivedType(typeof(PromptConfig), "prompt")]
[JsonDerivedType(typeof(PrefixConfig), "prefix")]
public abstract record AdapterConfig
{
    [Description("Saved adapter to start from: an id of a fine-tuned model, or a local folder for the command line; null: start at the base model.")]
    public string? From { get; init; }

    /// <summary>The method's name in a spec, such as <c>lora</c>.</summary>
    internal string Name => (string)typeof(AdapterConfig).GetCustomAttributes<JsonDerivedTypeAttribute>()
        .Single(method => method.DerivedType == GetType()).TypeDiscriminator!;

    /// <summary>The method's name as people say it.</summary>
    internal string Title => GetType().GetCustomAttribute<MethodAttribute>()!.Title;

    /// <summary>Attaches the trainable counterpart of this choice to a model whose weights are all frozen.</summary>
    /// <param name="seed">Seed of the initial values; the same seed gives the same bytes on every device.</param>
    /// <param name="calibration">What the method may learn of the training rows first; null: nothing, and a method that has to is refused.</param>
    /// <param name="restoring">The folder of a checkpoint that <see cref="Adapter.Load"/> reads next: then nothing is measured and no first value is
    /// made; null: none.</param>
    /// <exception cref="TrainingException">The choice does not fit the model, or <see cref="From"/> cannot be used.</exception>
    public Adapter Attach(CausalLm model, int seed, Calibration? calibration = null, string? restoring = null)
    {
        if (model.Quantization is not null && RefusesQuantization is { } refusal)
        {
            throw TrainingException.InvalidSpec($"quantization cannot be used with adapter {Name}: {refusal}", "quantization");
        }

        if (model.Quantization is null && DefaultQuantization is not null)
        {
            throw TrainingException.InvalidSpec(
                $"Adapter {Name} starts from the error of a quantised base, and this base is in full precision; set quantization.", "quantization");
        }

        return Create(model, seed, calibration, restoring);
    }

    /// <inheritdoc cref="Attach"/>
    protected abstract Adapter Create(CausalLm model, int seed, Calibration? calibration, string? restoring);

    /// <summary>The choice that a saved adapter was made by, to attach it again.</summary>
    /// <param name="activeClass">The class whose parts are used, of a method that has parts by class; null: as the adapter was saved.</param>
    /// <exception cref="TrainingException">The folder holds no adapter that can be read, or one without parts by class.</exception>
    public static AdapterConfig Saved(string folder, string? activeClass = null)
    {
        var saved = (AdapterConfig)Activator.CreateInstance(PeftFolder.Open(folder).Choice.GetType())! with { From = folder };
        return activeClass is null ? saved : saved.WithClass(activeClass);
    }

    /// <summary>The saved adapters and models that this choice names; nothing is loaded.</summary>
    public virtual IReadOnlyList<string> Sources() => From is null ? [] : [From];

    /// <summary>This choice with its <see cref="Sources"/> named in another way, such as by the folders where they lie.</summary>
    public virtual AdapterConfig WithSources(Func<string, string> place) => From is null ? this : this with { From = place(From) };

    /// <summary>What of this choice may stand in files that are passed on: without what its owner keeps to himself.</summary>
    internal virtual AdapterConfig Disclosed => this;

    /// <summary>Why the frozen weights cannot be quantised under this choice, and what to do; null: they can.</summary>
    internal virtual string? RefusesQuantization => null;

    /// <summary>Why this choice cannot become weights of the model or a plain LoRA, and what to do; null: it can.</summary>
    internal virtual string? RefusesMerging => null;

    /// <summary>Positions that stand before each row.</summary>
    internal virtual int VirtualTokens => 0;

    /// <summary>Those of them that run through the layers with the row, and so take memory and time as its own tokens do.</summary>
    internal virtual int VirtualTokensInRow => 0;

    /// <summary>This choice with what it needs of the model's tokenizer.</summary>
    /// <param name="tokenizer">Null: the model has none.</param>
    /// <exception cref="TrainingException">It needs one, and there is none.</exception>
    internal virtual AdapterConfig Reading(Tokenizer? tokenizer) => this;

    /// <summary>Adds fields of PEFT's configuration that stand for no single member; see <see cref="PeftNameAttribute"/> for those that do.</summary>
    internal virtual void ToPeft(JsonObject fields)
    {
    }

    /// <summary>Reads such fields.</summary>
    /// <param name="fields">Of PEFT's configuration; what was read is taken out.</param>
    /// <param name="members">Of the spec; what was read is put in.</param>
    internal virtual void FromPeft(JsonObject fields, JsonObject members)
    {
    }

    /// <summary>
    /// Whether codes of this choice's own take the place of those of a quantised base, made from the weights in the file: what it trains is then no
    /// change of the base that others quantise.
    /// </summary>
    internal virtual bool MakesQuantizedBase => false;

    /// <summary>Whether <see cref="Adapter.SwitchOff"/> gives the base model back.</summary>
    /// <param name="held">How the base is held.</param>
    /// <exception cref="TrainingException"><see cref="From"/> cannot be read.</exception>
    internal virtual bool LeavesBase(ModelConfig model, QuantizationConfig? held) => false;

    /// <summary>How the base is quantised under a spec that says nothing of it; null: not at all.</summary>
    internal virtual QuantizationConfig? DefaultQuantization => null;

    /// <summary>Whether the method asks a <see cref="Calibration"/> before it starts.</summary>
    internal virtual bool LooksAtRows => false;

    /// <summary>The classes of which each row has to name one, for a method that has parts by class; null: rows need no class.</summary>
    internal virtual IReadOnlyList<string>? RowClasses => null;

    /// <summary>This choice with the parts of one class in use where no row says which.</summary>
    /// <exception cref="TrainingException">The method has none.</exception>
    internal virtual AdapterConfig WithClass(string name) =>
        throw TrainingException.InvalidSpec($"Adapter {Name} has no parts by class, as kind has; leave the class out.", "class");

    /// <summary>Bytes that codes of this choice's own take beyond those of the base that they replace.</summary>
    internal virtual long MoreFrozenBytes(ModelConfig model, QuantizationConfig held) => 0;

    /// <summary>What is wrong with this config for a model, all of it at once; nothing is loaded.</summary>
    public virtual IReadOnlyList<SpecError> Check(ModelConfig model) => [];

    /// <summary>The tensors that would train in a model that <see cref="Check"/> has nothing against; nothing is loaded.</summary>
    public abstract IReadOnlyList<TrainedShape> Trained(ModelConfig model);

    /// <summary>How many numbers would train.</summary>
    public TrainedCounts Count(ModelConfig model)
    {
        var added = Trained(model).ToLookup(tensor => tensor.IsAdded, tensor => tensor.Count);
        return new(Added: added[true].Sum(), InPlace: added[false].Sum());
    }
}
