using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Api.Http;

namespace TrainingService.Api.FineTuning;

/// <summary>Reads <c>peft</c>, an adapter in the field names of Hugging Face PEFT, so that an <c>adapter_config.json</c> can be pasted.</summary>
internal static class PeftMembers
{
    private static readonly Dictionary<string, string> AdapterMembers = new()
    {
        ["r"] = "rank",
        ["lora_alpha"] = "alpha",
        ["lora_dropout"] = "dropout",
        ["use_rslora"] = "use_rslora",
        ["target_modules"] = "target_modules",
        ["exclude_modules"] = "exclude_modules",
        ["rank_pattern"] = "rank_pattern",
        ["alpha_pattern"] = "alpha_pattern",
        ["modules_to_save"] = "modules_to_save",
        ["bias"] = "bias",
    };

    /// <summary>Members that say nothing of the training, or that are only accepted with the value that means: not used.</summary>
    private static readonly HashSet<string> Ignored =
        ["base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version", "task_type"];

    public static void Read(
        JsonElement peft, JsonObject spec, Dictionary<string, string> clientPaths, List<ErrorDetail> errors)
    {
        if (peft.ValueKind != JsonValueKind.Object || spec["adapter"] is not null)
        {
            errors.Add(peft.ValueKind != JsonValueKind.Object
                ? ErrorDetail.Invalid("wrong_kind", "peft must be an object with the fields of Hugging Face PEFT.", "peft")
                : ErrorDetail.Invalid("conflict", "peft and adapter are two ways to say the same; give one of them.", "peft"));
            return;
        }

        var adapter = new JsonObject { ["type"] = "lora" };
        foreach (var member in peft.EnumerateObject())
        {
            var path = $"peft.{member.Name}";
            if (member.Name == "peft_type")
            {
                if (member.Value.ValueKind != JsonValueKind.String || member.Value.GetString() != "LORA")
                {
                    errors.Add(ErrorDetail.Invalid("unsupported_peft_type", $"peft.peft_type must be \"LORA\", and is {member.Value.GetRawText()}.", path));
                }
            }
            else if (AdapterMembers.TryGetValue(member.Name, out var name))
            {
                if (member.Value.ValueKind != JsonValueKind.Null)
                {
                    adapter[name] = JsonNode.Parse(member.Value.GetRawText());
                    clientPaths[$"adapter.{name}"] = path;
                }
            }
            else if (!Ignored.Contains(member.Name) && !MeansNotUsed(member))
            {
                errors.Add(ErrorDetail.Invalid(
                    "unknown_member", $"{path} is not supported; there are: {string.Join(", ", AdapterMembers.Keys)}.", path));
            }
        }

        spec["adapter"] = adapter;
        clientPaths["adapter"] = "peft";
    }

    /// <summary>PEFT writes out the fields that it does not use.</summary>
    private static bool MeansNotUsed(JsonProperty member) => member.Value.ValueKind switch
    {
        JsonValueKind.Null or JsonValueKind.False => true,
        JsonValueKind.Object => member.Value.GetPropertyCount() == 0,
        JsonValueKind.True => member.Name == "init_lora_weights",
        _ => member.Name == "qalora_group_size",
    };
}
