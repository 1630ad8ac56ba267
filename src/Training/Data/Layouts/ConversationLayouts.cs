using System.Text.Json;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data.Layouts;

/// <summary>Rows that are conversations.</summary>
internal static class ConversationLayouts
{
    public static Sample ReadMessages(Fields fields) => new Conversation(
        NotEmpty(Messages(fields.List("messages"), "messages"), "messages"),
        Tools(fields, "tools") ?? Tools(fields, "functions"));

    public static Sample ReadShareGpt(Fields fields)
    {
        var system = fields.OptionalText("system");
        var turns = new List<Turn>();
        if (system.Length > 0)
        {
            turns.Add(new(new ChatMessage("system", system), Trained: false));
        }

        var list = fields.List("conversations");
        for (var i = 0; i < list.Count; i++)
        {
            turns.Add(ShareGptTurn(list[i], $"conversations[{i}]"));
        }

        return new Conversation(NotEmpty(turns, "conversations"), Tools(fields, "tools"));
    }

    /// <summary>One turn of ShareGPT's form.</summary>
    public static Turn ShareGptTurn(JsonElement value, string field)
    {
        var turn = Fields.Object(value, field);
        // Some publishers put messages under the name conversations.
        var (roleName, textName) = turn.Has("from") ? ("from", "value") : ("role", "content");
        var role = Role(Fields.Text(turn[roleName], $"{field}.{roleName}"), $"{field}.{roleName}");
        return new(new ChatMessage(role, Fields.Text(turn[textName], $"{field}.{textName}")), role == "assistant");
    }

    /// <summary>Messages in OpenAI's form. <c>weight</c> 0 (or <c>train</c> false) keeps an assistant's turn from carrying loss.</summary>
    public static IReadOnlyList<Turn> Messages(IReadOnlyList<JsonElement> list, string name)
    {
        var turns = new List<Turn>(list.Count);
        for (var i = 0; i < list.Count; i++)
        {
            var field = $"{name}[{i}]";
            var message = Fields.Object(list[i], field);
            var role = Role(Fields.Text(message["role"], field + ".role"), field + ".role");
            var extra = new Dictionary<string, JsonElement>();
            foreach (var member in new[] { "name", "tool_calls", "tool_call_id", "function_call" })
            {
                if (message.Has(member))
                {
                    extra[member] = message[member];
                }
            }

            if (extra.Remove("function_call", out var call))
            {
                extra["tool_calls"] = JsonSerializer.SerializeToElement(new[] { new { type = "function", function = call } });
            }

            var content = Content(message, extra.ContainsKey("tool_calls"), field + ".content");
            turns.Add(new(new ChatMessage(role, content, extra.Count == 0 ? null : extra), role == "assistant" && IsTrained(message, field)));
        }

        return turns;
    }

    /// <summary>Tool descriptions; in CSV, and in some published sets, they are JSON inside a string.</summary>
    public static JsonElement? Tools(Fields fields, string name)
    {
        if (!fields.Has(name))
        {
            return null;
        }

        var tools = fields[name];
        if (tools.ValueKind == JsonValueKind.String)
        {
            var text = Fields.Text(tools, name);
            if (string.IsNullOrWhiteSpace(text))
            {
                return null;
            }

            tools = Fields.ParseCell(text, name);
        }

        return tools.ValueKind == JsonValueKind.Array
            ? tools.GetArrayLength() == 0 ? null : tools
            : throw new RowException("wrong_type", $"must be a list of tool descriptions, found {Fields.Describe(tools)}", name);
    }

    private static IReadOnlyList<Turn> NotEmpty(IReadOnlyList<Turn> turns, string field) =>
        turns.Count > 0 ? turns : throw new RowException("empty_conversation", "holds no turns", field);

    /// <summary>Role names of OpenAI's and ShareGPT's dialects, as chat templates know them. A developer turn is a system turn under its
    /// newer name, which few templates know.</summary>
    private static string Role(string role, string field) => role.ToUpperInvariant() switch
    {
        "SYSTEM" or "DEVELOPER" => "system",
        "USER" or "HUMAN" => "user",
        "ASSISTANT" or "GPT" or "CHATGPT" or "BING" or "MODEL" or "FUNCTION_CALL" => "assistant",
        "TOOL" or "FUNCTION" or "OBSERVATION" => "tool",
        _ => throw new RowException("unknown_role", $"'{role}' is not a known role; use system, user, assistant or tool", field),
    };

    private static string Content(Fields message, bool callsTools, string field)
    {
        if (!message.Has("content") && callsTools)
        {
            return "";
        }

        var content = message["content"];
        if (content.ValueKind != JsonValueKind.Array)
        {
            return Fields.Text(content, field);
        }

        var parts = Fields.List(content, field);
        var texts = new List<string>(parts.Count);
        for (var i = 0; i < parts.Count; i++)
        {
            var at = $"{field}[{i}]";
            var part = Fields.Object(parts[i], at);
            var type = part.Has("type") ? Fields.Text(part["type"], at + ".type") : "text";
            if (type != "text")
            {
                throw new RowException("unsupported_content", $"a part of type '{type}' cannot be trained on; only text can", at + ".type");
            }

            texts.Add(Fields.Text(part["text"], at + ".text"));
        }

        return string.Concat(texts);
    }

    private static bool IsTrained(Fields message, string field)
    {
        if (message.Has("weight"))
        {
            return Fields.Integer(message["weight"], field + ".weight") switch
            {
                0 => false,
                1 => true,
                var other => throw new RowException("wrong_value", $"must be 0 or 1, found {other}", field + ".weight"),
            };
        }

        return !message.Has("train") || message["train"].ValueKind switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            _ => throw new RowException("wrong_type", $"must be true or false, found {Fields.Describe(message["train"])}", field + ".train"),
        };
    }
}
