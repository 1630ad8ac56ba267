using System.Diagnostics;
using System.Text.Json;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Tokenizers;

public class ChatTemplateTests
{
    private const string ChatMl =
        "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

    private static readonly ChatMessage[] Chat =
        [new("user", "Hi"), new("assistant", "Hello!"), new("user", "And?"), new("assistant", "Bye.")];

    [Fact]
    public void An_assistants_span_is_what_the_turn_adds_behind_the_generation_prompt()
    {
        var (text, spans) = Template(ChatMl).RenderWithSpans(Chat);

        Assert.Equal(
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
            + "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\nBye.<|im_end|>\n", text);
        Assert.Equal(
            [(1, "Hello!<|im_end|>"), (3, "Bye.<|im_end|>")],
            spans.Select(span => (span.MessageIndex, text.Substring(span.Start, span.Length))));
    }

    [Fact]
    public void Generation_blocks_say_the_spans_themselves()
    {
        var (text, spans) = Template(
            "{% for m in messages[1:] %}{{ m.role[0] }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %};"
            + "{% else %}{{ m.content }};{% endif %}{% endfor %}").RenderWithSpans(Chat);

        Assert.Equal("a: Hello!;u: And?;a: Bye.;", text);
        Assert.Equal([(3, 6, 1), (21, 4, 3)], spans);
    }

    [Fact]
    public void A_template_that_thinks_in_the_last_turn_only_still_ends_every_turn()
    {
        var (text, spans) = Template(
            "{% for m in messages %}{{ '<' ~ m.role[0] ~ '>' }}{% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}"
            + "{{ m.content ~ '</s>\n' }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}").RenderWithSpans(Chat);

        Assert.Equal("<u>Hi</s>\n<a>Hello!</s>\n<u>And?</s>\n<a><think></think>Bye.</s>\n", text);
        Assert.Equal(
            [(1, "Hello!</s>"), (3, "<think></think>Bye.</s>")],
            spans.Select(span => (span.MessageIndex, text.Substring(span.Start, span.Length))));
    }

    [Fact]
    public void A_template_that_hides_where_a_turn_begins_is_refused_where_spans_are_needed()
    {
        var template = Template("{% for m in messages %}{{ loop.revindex }}{{ m.content | upper }}{% endfor %}");

        var refused = Assert.Throws<TrainingException>(() => template.RenderWithSpans(Chat));

        Assert.Equal("messages[1]", refused.Param);
        Assert.Contains("{% generation %}", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Further_members_of_a_message_are_seen_and_content_may_be_overridden()
    {
        using var extra = JsonDocument.Parse("""{"name": "bob", "content": null, "tool_calls": [{"function": {"arguments": {"a": 1}}}]}""");
        var message = new ChatMessage("assistant", "", extra.RootElement.EnumerateObject().ToDictionary(m => m.Name, m => m.Value));

        Assert.Equal(
            "bob True {\"a\": 1}",
            Template("{% set m = messages[0] %}{{ m.name }} {{ m.content is none }} {{ m.tool_calls[0].function.arguments | tojson }}")
                .Render([message], addGenerationPrompt: false));
    }

    [Fact]
    public void What_a_template_raises_reaches_the_owner()
    {
        var refused = Assert.Throws<TrainingException>(
            () => Template("{{ raise_exception('roles must alternate') }}").Render(Chat, addGenerationPrompt: false));

        Assert.Equal(FailureCode.InvalidData, refused.Code);
        Assert.Contains("roles must alternate", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_syntax_error_names_its_line() => Assert.Contains(
        "line 3", Assert.Throws<TrainingException>(() => Template("a\nb\n{{ 1 + }}")).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}")]
    [InlineData("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}")]
    [InlineData("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")]
    [InlineData("{% macro f() %}{% for i in [1] %}{% if true %}{{ (((f()))) ~ 1 }}{% endif %}{% endfor %}{% endmacro %}{{ f() }}")]
    [InlineData("{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}")]
    [InlineData("{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}")]
    [InlineData("{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x | replace('a', 'aaa') %}{% endfor %}")]
    [InlineData("{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}")]
    [InlineData("{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}")]
    [InlineData("{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}")]
    [InlineData("{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}")]
    [InlineData("{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}")]
    [InlineData("{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x < ns.y }}")]
    [InlineData("{{ 'a' * 99999999999 }}")]
    [InlineData("{{ [1, 2] * 99999999999 }}")]
    [InlineData("{{ 99999999999 * 'a' * 99999999999 }}")]
    [InlineData("{{ 9999999999 ** 9999999999 }}")]
    [InlineData("{{ range(0, 9223372036854775807, 1) }}")]
    [InlineData("{{ 'a\nb' | indent(9999999999) }}")]
    [InlineData("{{ {'a': 1} | tojson(indent=999999999) }}")]
    [InlineData("{{ ('a,' * 2000000).split(',') }}")]
    [InlineData("{{ (-9223372036854775807 - 1) // -1 }}")]
    [InlineData("{{ -(-9223372036854775807 - 1) }}")]
    public void A_hostile_template_is_stopped_within_seconds(string source)
    {
        var template = Template(source);
        var watch = Stopwatch.StartNew();

        var stopped = Assert.Throws<TrainingException>(() => template.Render(Chat, addGenerationPrompt: false));

        Assert.Equal(FailureCode.InvalidData, stopped.Code);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 60);   // about one on an idle machine
    }

    [Theory]
    [InlineData("(", ")")]
    [InlineData("[", "]")]
    [InlineData("{1: ", "}")]
    [InlineData("not ", "")]
    [InlineData("-", "")]
    [InlineData("f(", ")")]
    [InlineData("1 if 1 else ", "")]
    public void Deep_nesting_is_refused_not_overflowed(string open, string close)
    {
        var source = "{{ " + string.Concat(Enumerable.Repeat(open, 20_000)) + "1" + string.Concat(Enumerable.Repeat(close, 20_000)) + " }}";

        Assert.Throws<TrainingException>(() => Template(source));
    }

    [Theory]
    [InlineData("{{ 1", " + 1", " }}")]
    [InlineData("{{ 1", " | abs", " }}")]
    [InlineData("{{ a", ".a", " }}")]
    [InlineData("{{ a", "[0]", " }}")]
    public void A_long_chain_is_stopped_not_overflowed(string start, string part, string end)
    {
        var template = Template(start + string.Concat(Enumerable.Repeat(part, 20_000)) + end);

        Assert.Throws<TrainingException>(() => template.Render(Chat, addGenerationPrompt: false));
    }

    [Fact]
    public void Deeply_nested_blocks_are_refused() => Assert.Throws<TrainingException>(
        () => Template(string.Concat(Enumerable.Repeat("{% if 1 %}", 20_000)) + string.Concat(Enumerable.Repeat("{% endif %}", 20_000))));

    /// <summary>Threads that train may have small stacks; the limits have to hold there too.</summary>
    [Fact]
    public void The_limits_of_depth_fit_a_small_stack()
    {
        Exception? seen = null;
        var thread = new Thread(
            () => seen = Record.Exception(() => Template("{% macro f(x) %}{% for i in [1] %}{% if 1 %}{{ [[[f([[x]])]]] ~ '' }}{% endif %}{% endfor %}{% endmacro %}{{ f(1) }}")
                .Render(Chat, addGenerationPrompt: false)),
            maxStackSize: 512 * 1024);
        thread.Start();
        thread.Join();

        Assert.IsType<TrainingException>(seen);
    }

    [Theory]
    [InlineData("{{ messages.GetType() }}")]
    [InlineData("{{ ''.__class__.__mro__ }}")]
    [InlineData("{{ messages.Items.Count }}")]
    [InlineData("{{ raise_exception.Method.Module }}")]
    public void A_template_reaches_no_member_of_the_runtime(string source) =>
        Assert.Throws<TrainingException>(() => Template(source).Render(Chat, addGenerationPrompt: false));

    [Fact]
    public void A_long_conversation_stays_within_the_limits()
    {
        ChatMessage[] turns = [.. Enumerable.Range(0, 2000).Select(i => new ChatMessage(i % 2 == 0 ? "user" : "assistant", new string('x', 500)))];

        Assert.Equal(2000, Template(ChatMl).Render(turns, addGenerationPrompt: false).Split("<|im_end|>").Length - 1);
    }

    private static JinjaChatTemplate Template(string source) =>
        new(source, new Dictionary<string, string>(), new FixedClock(DateTimeOffset.UnixEpoch));
}
