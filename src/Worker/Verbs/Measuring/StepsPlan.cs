using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;

namespace TrainingService.Worker.Verbs.Measuring;

/// <summary>Sizes of a Llama.</summary>
internal sealed record ModelShape(int Hidden, int Layers, int Heads, int Mlp, int Vocabulary)
{
    public ModelConfig Config(int positions) => ModelConfig.Parse(JsonSerializer.Serialize(new Dictionary<string, object>
    {
        ["architectures"] = new[] { "LlamaForCausalLM" },
        ["model_type"] = "llama",
        ["hidden_size"] = Hidden,
        ["num_hidden_layers"] = Layers,
        ["num_attention_heads"] = Heads,
        ["num_key_value_heads"] = Heads,
        ["intermediate_size"] = Mlp,
        ["vocab_size"] = Vocabulary,
        ["max_position_embeddings"] = Math.Max(2048, positions),
        ["tie_word_embeddings"] = false,
    }));
}

/// <summary>What <c>measure steps</c> runs.</summary>
internal sealed record StepsPlan(ModelShape Shape, Precision Precision, int Batch, int Length, int Rank, int WarmUp, int Steps)
{
    public int Rows => (WarmUp + Steps) * Batch;

    /// <summary>An ordinary job, but for what would come between its steps and after them.</summary>
    public TrainingSpec Spec(string model, string rows) => new()
    {
        Model = model,
        Data = new() { Train = rows, MaxLength = Length, Packing = false },
        Adapter = new LoraConfig { Rank = Rank },
        Schedule = new() { MaxSteps = WarmUp + Steps, BatchSize = Batch },
        Precision = Precision,
        Spectra = new() { Enabled = false },
    };
}
