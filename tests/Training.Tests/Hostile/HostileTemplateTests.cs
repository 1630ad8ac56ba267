using System.Diagnostics;
using TrainingService.Training.Tests.Tokenizers;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>Chat templates whose single steps are dear: each kind of work is counted by what it costs, in time and in memory.</summary>
public class HostileTemplateTests
{
    private const string Million = "{% set a = 'a' * 16000000 %}{% for i in range(100000) %}";

    public static TheoryData<string> Dear =>
    [
        Million + "{% set y = a | upper %}{% endfor %}",
        Million + "{% set y = a | trim %}{% endfor %}",
        Million + "{% set y = a | int %}{% endfor %}",
        Million + "{% set y = a | wordcount %}{% endfor %}",
        Million + "{% set y = a is lower %}{% endfor %}",
        "{% set a = 'a' * 16000000 %}{% set b = 'a' * 16000000 %}{% for i in range(100000) %}{% if a == b %}{% endif %}{% endfor %}",
        "{% set a = 'a' * 16000000 %}{% set b = 'a' * 16000000 %}{% for i in range(100000) %}{% if a < b %}{% endif %}{% endfor %}",
        "{% set a = 'a' * 16000000 %}{% set b = 'a' * 4000000 ~ 'b' ~ 'a' * 4000000 %}{{ b in a }}",
        "{% set a = 'a' * 16000000 %}{% set b = 'a' * 4000000 ~ 'b' ~ 'a' * 4000000 %}{{ a.find(b) }}",
        "{% set a = 'a' * 16000000 %}{% set b = 'a' * 4000000 ~ 'b' ~ 'a' * 4000000 %}{{ a.split(b) }}",
        "{% set a = 'a' * 16000000 %}{% set b = 'a' * 4000000 ~ 'b' ~ 'a' * 4000000 %}{{ a.partition(b) }}",
        "{% set a = 'a' * 16000000 %}{% set b = 'a' * 4000000 ~ 'b' ~ 'a' * 4000000 %}{{ a | replace(b, 'c') }}",
        "{% set a = 'a' * 16000000 %}{% set b = 'b' * 16000000 ~ 'a' %}{{ a.strip(b) }}",
        "{% set a = 'a' * 16000000 %}{% set b = 'b' * 16000000 ~ 'a' %}{{ a | trim(b) }}",
        "{{ ('a ' * 8000000).split(none, 7000000) | length }}",
        "{{ ('a ' * 8000000).split() | length }}",
        "{{ (',' * 16000000).split(',') | length }}",
        "{{ ('\\n' * 16000000).splitlines() | length }}",
        "{% set d = {'a' * 8000000: 1} %}",
        "{% set ns = namespace(x={}) %}{% set a = 'a' * 8000000 %}{% for i in range(100000) %}{{ messages[0][a] }}{% endfor %}",
        "{{ strftime_now('%A' * 8000000) }}",
        "{% for i in range(100000) %}{% set y = strftime_now('%A' * 20000) %}{% endfor %}",
        "{{ 'a' ~ '\\x01' * 16000000 | tojson }}{{ ('\\x01' * 16000000) | tojson }}",
        "{{ [[[[[[1]]]]]] | tojson(indent=16000000) }}",
        "{% set l = ['a' * 16000000] * 1000 %}{{ l | sort | length }}",
        "{% set l = ['a' * 16000000] * 1000 %}{{ l | map('upper') | list | length }}",
        "{% set l = ['a' * 16000000] * 1000 %}{{ l | join }}",
        "{% set d = dict(range(100000) | map('string') | map('list') | list) %}",
        "{% set m = messages * 100000 %}{% for i in range(100000) %}{% set y = m.index(1) %}{% endfor %}",
        "{% filter upper" + string.Concat(Enumerable.Repeat("|upper", 100_000)) + " %}x{% endfilter %}",
        "{% set x | upper" + string.Concat(Enumerable.Repeat("|upper", 100_000)) + " %}x{% endset %}",
        "{% macro f(x) %}{{ caller(x) }}{% endmacro %}" + string.Concat(Enumerable.Repeat("{% call(x) f(1) %}", 90)) + "{{ range(100000) | sum }}"
            + string.Concat(Enumerable.Repeat("{% endcall %}", 90)) + Million + "{% set y = a | upper %}{% endfor %}",
    ];

    [Theory]
    [MemberData(nameof(Dear))]
    public void Work_is_counted_by_what_it_costs(string source)
    {
        var before = GC.GetAllocatedBytesForCurrentThread();
        var watch = Stopwatch.StartNew();

        var stopped = Assert.Throws<TrainingException>(() => Render(source));

        Assert.Equal(FailureCode.InvalidData, stopped.Code);
        Assert.Equal("chat_template", stopped.Param);
        Assert.InRange(stopped.Message.Length, 20, 1200);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 300);   // below two on an idle machine; a hundred times more on a crowded one
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 3L << 30);   // all that was ever asked for, most of it given back
    }

    [Theory]
    [InlineData("{{ ", "'a' ", "}}")]
    [InlineData("{{ 1 | f", ".f", " }}")]
    [InlineData("{{ 1 is f", ".f", " }}")]
    [InlineData("{# ", "{# ", "#}")]
    [InlineData("", "{% raw %}{% endraw %}", "")]
    [InlineData("{{ [", "1,", "] | length }}")]
    [InlineData("", "{", "")]
    public void A_long_source_is_read_in_time_that_grows_with_its_length(string open, string part, string close)
    {
        var watch = Stopwatch.StartNew();
        var source = open + string.Concat(Enumerable.Repeat(part, 300_000 / part.Length)) + close;

        var error = Record.Exception(() => Render(source));

        Assert.True(error is null or TrainingException, error?.ToString());
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 300);   // below one on an idle machine
    }

    [Theory]
    [InlineData("{% if 1 %}", "{% endif %}")]
    [InlineData("{% for i in [1] %}", "{% endfor %}")]
    [InlineData("{% filter upper %}", "{% endfilter %}")]
    [InlineData("{% set x %}", "{% endset %}")]
    [InlineData("{% with x = 1 %}", "{% endwith %}")]
    [InlineData("{% macro f() %}", "{% endmacro %}")]
    [InlineData("{% call f() %}", "{% endcall %}")]
    [InlineData("{% generation %}", "{% endgeneration %}")]
    [InlineData("{% set (", "")]
    [InlineData("{{ (", "")]
    [InlineData("{{ x[", "")]
    [InlineData("{{ x is (", "")]
    [InlineData("{{ x | f(", "")]
    [InlineData("{{ {1:", "")]
    [InlineData("{{ ~", "")]
    public void Nesting_of_any_kind_is_refused_on_a_small_stack(string open, string close)
    {
        var repeated = open.StartsWith("{{ ", StringComparison.Ordinal) ? open[3..] : open.StartsWith("{% set (", StringComparison.Ordinal) ? "(" : open;
        var source = open + string.Concat(Enumerable.Repeat(repeated, 100_000 / repeated.Length)) + string.Concat(Enumerable.Repeat(close, 100));
        Exception? error = null;
        var thread = new Thread(() => error = Record.Exception(() => Render(source)), maxStackSize: 512 * 1024);
        thread.Start();
        thread.Join();

        Assert.IsType<TrainingException>(error);
    }

    [Fact]
    public void A_template_longer_than_any_in_use_is_not_read()
    {
        var error = Assert.Throws<TrainingException>(() => Render(new string('a', (1 << 20) + 1)));

        Assert.Contains("1048577", error.Message, StringComparison.Ordinal);
        Assert.Contains("1048576", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{% include 'x' %}")]
    [InlineData("{% import '/etc/passwd' as x %}")]
    [InlineData("{% extends 'x' %}")]
    [InlineData("{% from 'os' import system %}")]
    [InlineData("{{ self.__init__ }}")]
    [InlineData("{{ cycler.__init__.__globals__.os }}")]
    [InlineData("{{ ''['__class__']['__mro__'] }}")]
    [InlineData("{{ messages | attr('__class__') | attr('__base__') }}")]
    [InlineData("{{ range.__globals__['x'] }}")]
    [InlineData("{{ lipsum() }}")]
    [InlineData("{{ '%s' % 1 }}")]
    [InlineData("{{ '{0.__class__}'.format(1) }}")]
    [InlineData("{{ messages.append(1) }}")]
    public void Nothing_outside_its_variables_can_be_reached(string source) => Assert.Throws<TrainingException>(() => Render(source));

    [Fact]
    public void What_a_template_says_is_shortened()
    {
        var error = Assert.Throws<TrainingException>(() => Render("{{ raise_exception('x' * 1000000) }}"));

        Assert.InRange(error.Message.Length, 500, 1100);
    }

    [Fact]
    public void Splitting_at_white_space_stops_as_Python_does() =>
        Assert.Equal("['a', 'b  c ']['a', 'b', 'c']['a b', 'c']", Render("{{ ' a b  c '.split(none, 1) }}{{ ' a b  c '.split() }}{{ 'a b c'.rsplit(' ', 1) }}"));

    private static string Render(string source) =>
        new JinjaChatTemplate(source, new Dictionary<string, string>(), new FixedClock(DateTimeOffset.UnixEpoch))
            .Render([new("user", "Hi"), new("assistant", "Hello!")], addGenerationPrompt: false);
}
