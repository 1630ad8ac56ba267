using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>A value that a template computes with. Templates reach nothing but these types: no object of the runtime has members here.</summary>
internal abstract class JinjaValue
{
    /// <summary>The value as messages name it.</summary>
    public abstract string TypeName { get; }

    public virtual bool IsTrue => true;

    public static JinjaValue From(JsonElement json) => json.ValueKind switch
    {
        JsonValueKind.String => new JinjaString(json.GetString()!),
        JsonValueKind.Number => json.TryGetInt64(out var whole) ? new JinjaInteger(whole) : new JinjaFloat(json.GetDouble()),
        JsonValueKind.True => JinjaBoolean.True,
        JsonValueKind.False => JinjaBoolean.False,
        JsonValueKind.Array => new JinjaList([.. json.EnumerateArray().Select(From)]),
        JsonValueKind.Object => FromObject(json),
        JsonValueKind.Null or JsonValueKind.Undefined => JinjaNone.Value,
    };

    public static JinjaValue From(string? text) => text is null ? JinjaNone.Value : new JinjaString(text);

    private static JinjaDictionary FromObject(JsonElement json)
    {
        var dictionary = new JinjaDictionary();
        foreach (var member in json.EnumerateObject())
        {
            dictionary.Set(new JinjaString(member.Name), From(member.Value));
        }

        return dictionary;
    }
}

/// <summary>A name or member that is not there. It prints as nothing, is false and empty, and nothing can be asked of it.</summary>
internal sealed class JinjaUndefined(string name) : JinjaValue
{
    public override string TypeName => "undefined";

    public override bool IsTrue => false;

    public TrainingException Fail() => JinjaErrors.Run($"{name} is undefined");
}

internal sealed class JinjaNone : JinjaValue
{
    public static readonly JinjaNone Value = new();

    public override string TypeName => "None";

    public override bool IsTrue => false;
}

internal sealed class JinjaBoolean : JinjaValue
{
    public static readonly JinjaBoolean True = new(true);
    public static readonly JinjaBoolean False = new(false);

    private JinjaBoolean(bool value) => IsTrue = value;

    public override string TypeName => "bool";

    public override bool IsTrue { get; }

    public static JinjaBoolean Of(bool value) => value ? True : False;
}

internal sealed class JinjaInteger(long value) : JinjaValue
{
    public long Value => value;

    public override string TypeName => "int";

    public override bool IsTrue => value != 0;
}

internal sealed class JinjaFloat(double value) : JinjaValue
{
    public double Value => value;

    public override string TypeName => "float";

    public override bool IsTrue => value != 0;
}

internal sealed class JinjaString(string value) : JinjaValue
{
    public string Value => value;

    public override string TypeName => "str";

    public override bool IsTrue => value.Length > 0;
}

/// <summary>A list or tuple; templates cannot change one.</summary>
internal sealed class JinjaList(IReadOnlyList<JinjaValue> items, bool isTuple = false) : JinjaValue
{
    public IReadOnlyList<JinjaValue> Items => items;

    public bool IsTuple => isTuple;

    public override string TypeName => isTuple ? "tuple" : "list";

    public override bool IsTrue => items.Count > 0;
}

/// <summary>A mapping in order of insertion; templates cannot change one.</summary>
internal sealed class JinjaDictionary : JinjaValue
{
    private const int LongestKey = 4096;   // looking a key up reads all of it, in one step of the budget

    private readonly Dictionary<object, int> _places = [];
    private readonly List<(JinjaValue Key, JinjaValue Value)> _entries = [];

    public IReadOnlyList<(JinjaValue Key, JinjaValue Value)> Entries => _entries;

    public override string TypeName => "dict";

    public override bool IsTrue => _entries.Count > 0;

    /// <summary>Used while the mapping is built.</summary>
    public void Set(JinjaValue key, JinjaValue value)
    {
        var plain = Plain(key) ?? throw JinjaErrors.Run($"a {key.TypeName} cannot be a key");
        if (_places.TryGetValue(plain, out var place))
        {
            _entries[place] = (_entries[place].Key, value);
            return;
        }

        _places.Add(plain, _entries.Count);
        _entries.Add((key, value));
    }

    public void Set(string key, JinjaValue value) => Set(new JinjaString(key), value);

    public bool TryGet(JinjaValue key, [MaybeNullWhen(false)] out JinjaValue value)
    {
        if (Plain(key) is { } plain && _places.TryGetValue(plain, out var place))
        {
            value = _entries[place].Value;
            return true;
        }

        value = null;
        return false;
    }

    /// <summary>Something that compares as Python's keys do: 1, 1.0 and true are one key.</summary>
    private static object? Plain(JinjaValue key) => key switch
    {
        JinjaString text => text.Value.Length <= LongestKey ? text.Value : throw JinjaErrors.Limit(
            string.Create(CultureInfo.InvariantCulture, $"it uses a text of {text.Value.Length} characters as a key, and the longest has {LongestKey}")),
        JinjaInteger number => (double)number.Value,
        JinjaFloat number => number.Value,
        JinjaBoolean flag => flag.IsTrue ? 1.0 : 0.0,
        JinjaNone => key,
        _ => null,
    };
}

/// <summary>The one thing that a template may change: <c>{% set ns.name = … %}</c>.</summary>
internal sealed class JinjaNamespace : JinjaValue
{
    public Dictionary<string, JinjaValue> Members { get; } = new(StringComparer.Ordinal);

    public override string TypeName => "namespace";
}

/// <summary>Arguments of a call.</summary>
internal sealed record JinjaArguments(IReadOnlyList<JinjaValue> Positional, IReadOnlyDictionary<string, JinjaValue> Named)
{
    public static readonly JinjaArguments None = new([], new Dictionary<string, JinjaValue>());

    /// <summary>An argument by place or name; null when it was not given.</summary>
    public JinjaValue? Get(int index, string name) =>
        index < Positional.Count ? Positional[index] : Named.GetValueOrDefault(name);

    /// <summary>An argument that has to be there.</summary>
    public JinjaValue Need(int index, string name) => Get(index, name) ?? throw JinjaErrors.Run($"the argument {name} is missing");

    public string Text(int index, string name) => Need(index, name) is JinjaString text
        ? text.Value
        : throw JinjaErrors.Run($"the argument {name} has to be a string, not a {Need(index, name).TypeName}");

    public bool Flag(int index, string name, bool otherwise) => Get(index, name)?.IsTrue ?? otherwise;

    public long? Integer(int index, string name) => Get(index, name) switch
    {
        null or JinjaNone => null,
        JinjaInteger number => number.Value,
        JinjaBoolean flag => flag.IsTrue ? 1 : 0,
        var other => throw JinjaErrors.Run($"the argument {name} has to be a whole number, not a {other.TypeName}"),
    };

    public JinjaArguments Skip(int count) => this with { Positional = [.. Positional.Skip(count)] };
}

/// <summary>A function, method or macro.</summary>
internal sealed class JinjaFunction(string name, Func<JinjaArguments, JinjaValue> call) : JinjaValue
{
    public override string TypeName => "function";

    public string Name => name;

    public JinjaValue Call(JinjaArguments arguments) => call(arguments);
}
