using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Adapters;

/// <summary>Prompt tuning: trained embeddings stand in front of those of each row.</summary>
/// <remarks>Lester et al. 2021, arXiv:2104.08691, §2; PEFT 0.20.0, <c>tuners/prompt_tuning</c>. Does not start at the base model, whose rows begin otherwise.</remarks>
[Method(
    "Prompt tuning",
    "Some trained embeddings stand in front of every row; no weight changes.",
    "Many small tasks on one large model that is served unchanged; the larger the model, the closer it comes to fine-tuning.",
    Paper = "Lester et al. 2021, The Power of Scale for Parameter-Efficient Prompt Tuning",
    Arxiv = "2104.08691",
    Parameters = "num_virtual_tokens·width of the model")]
[PeftType("PROMPT_TUNING")]
[PeftConstant("num_transformer_submodules", "1")]
public sealed record PromptConfig : VirtualTokensConfig
{
    private const string Start = "prompt_tuning_init";
    private const string StartText = "prompt_tuning_init_text";
    private const string TokenizerName = "tokenizer_name_or_path";

    internal override int VirtualTokensInRow => NumVirtualTokens;

    internal override long WidthOf(ModelConfig model) => model.HiddenSize;

    internal override Tensor TableOf(CausalLm model, Tensor ids) =>
        model.NamedWeights().Single(weight => weight.Name == CheckpointNames.Embedding).Parameter.index_select(0, ids);

    internal override VirtualTokens Seen(ModelConfig model, Tensor table) => new(NumVirtualTokens) { Embeddings = () => table };

    internal override JsonObject PeftShape(ModelConfig model, string baseModel) => new()
    {
        ["modules_to_save"] = null,
        ["num_attention_heads"] = model.HeadCount,
        ["num_layers"] = model.LayerCount,
        [Start] = JsonNamingPolicy.SnakeCaseUpper.ConvertName(Init.ToString()),
        [StartText] = InitText,
        ["token_dim"] = model.HiddenSize,
        ["tokenizer_kwargs"] = null,
        [TokenizerName] = Init == VirtualTokenStart.Text ? baseModel : null,   // PEFT refuses a text without one
    };

    internal override void FromPeft(JsonObject fields, JsonObject members)
    {
        foreach (var read in (string[])["num_attention_heads", "num_layers", "token_dim", TokenizerName, "tokenizer_kwargs"])
        {
            fields.Remove(read);
        }

        if (fields.Remove(Start, out var start) && start is not null)
        {
            members["init"] = start.GetValue<string>().ToLowerInvariant();
        }

        if (fields.Remove(StartText, out var text) && (string?)members["init"] == "text")
        {
            members["init_text"] = text?.DeepClone();
        }
    }
}
