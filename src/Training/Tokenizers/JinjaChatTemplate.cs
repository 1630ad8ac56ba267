using System.Text.Json;
using TrainingService.Training.Tokenizers.Jinja;

namespace TrainingService.Training.Tokenizers;

/// <summary>A chat template in Jinja, as Hugging Face folders hold them, run by an interpreter that reaches nothing but its variables.</summary>
public sealed class JinjaChatTemplate : ChatTemplate
{
    private readonly IReadOnlyList<JinjaStatement> _default;
    private readonly IReadOnlyList<JinjaStatement>? _withTools;
    private readonly IReadOnlyDictionary<string, string> _specialTokens;
    private readonly TimeProvider _clock;

    /// <param name="template">The template.</param>
    /// <param name="specialTokens">Variables such as <c>bos_token</c>.</param>
    /// <param name="clock">What <c>strftime_now</c> tells; a fixed one gives the same text each day.</param>
    /// <param name="withTools">The template for conversations with tools; null when one serves both.</param>
    /// <exception cref="TrainingException">The template cannot be read.</exception>
    public JinjaChatTemplate(
        string template, IReadOnlyDictionary<string, string> specialTokens, TimeProvider clock, string? withTools = null)
    {
        Source = template;
        _default = JinjaParser.Parse(template);
        _withTools = withTools is null ? null : JinjaParser.Parse(withTools);
        _specialTokens = specialTokens;
        _clock = clock;
    }

    /// <summary>The template's text.</summary>
    public string Source { get; }

    public override string Render(IReadOnlyList<ChatMessage> messages, bool addGenerationPrompt, JsonElement? tools = null) =>
        Run([.. messages.Select(Value)], addGenerationPrompt, tools).Text;

    public override (string Text, IReadOnlyList<(int Start, int Length, int MessageIndex)> AssistantSpans) RenderWithSpans(
        IReadOnlyList<ChatMessage> messages, JsonElement? tools = null)
    {
        var values = messages.Select(Value).ToList();
        var (text, generated) = Run(values, addGenerationPrompt: false, tools);
        if (generated.Count == 0)
        {
            return base.RenderWithSpans(messages, tools);
        }

        return (text, [.. generated.Select(span => (span.Start, span.Length, MessageOf(span, values)))]);
    }

    private static int MessageOf(JinjaSpan span, List<JinjaValue> messages)
    {
        var index = span.LoopItems.Reverse().Select(item => messages.FindIndex(message => ReferenceEquals(message, item)))
            .FirstOrDefault(found => found >= 0, -1);
        return index >= 0
            ? index
            : throw JinjaErrors.Run("a generation block stands outside the loop over the messages, so its message is not known");
    }

    private (string Text, IReadOnlyList<JinjaSpan> Generated) Run(
        IReadOnlyList<JinjaValue> messages, bool addGenerationPrompt, JsonElement? tools)
    {
        var variables = _specialTokens.ToDictionary(
            token => token.Key, JinjaValue (token) => new JinjaString(token.Value), StringComparer.Ordinal);
        var hasTools = tools is { ValueKind: JsonValueKind.Array } given && given.GetArrayLength() > 0;
        variables["messages"] = new JinjaList(messages);
        variables["tools"] = hasTools ? JinjaValue.From(tools!.Value) : JinjaNone.Value;
        variables["documents"] = JinjaNone.Value;
        variables["add_generation_prompt"] = JinjaBoolean.Of(addGenerationPrompt);
        return JinjaInterpreter.Render(hasTools && _withTools is not null ? _withTools : _default, variables, _clock);
    }

    private static JinjaValue Value(ChatMessage message)
    {
        var value = new JinjaDictionary();
        value.Set("role", JinjaValue.From(message.Role));
        value.Set("content", JinjaValue.From(message.Content));
        foreach (var (name, member) in message.Extra ?? new Dictionary<string, JsonElement>())
        {
            value.Set(name, JinjaValue.From(member));
        }

        return value;
    }
}
