namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Methods of texts, lists and mappings; those that would change one are refused, as the sandbox of chat templates does.</summary>
internal sealed class JinjaMethods(JinjaBudget budget, JinjaOperators operators, JinjaFormat format)
{
    private static readonly string[] Changing =
        ["append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update"];

    /// <summary>A method of a value; null when the type has none of that name.</summary>
    public JinjaFunction? Find(JinjaValue value, string name)
    {
        Func<JinjaArguments, JinjaValue>? call = value switch
        {
            JinjaString text => OfText(text.Value, name),
            JinjaDictionary dictionary => OfDictionary(dictionary, name),
            JinjaList list => OfList(list, name),
            _ => null,
        };
        if (call is null && value is JinjaList or JinjaDictionary && Changing.Contains(name)
            && !(value is JinjaDictionary members && members.TryGet(new JinjaString(name), out _)))
        {
            throw JinjaErrors.Run($"{value.TypeName}.{name} is not allowed, for it changes a value; build a new one");
        }

        return call is null ? null : new JinjaFunction(name, arguments =>
        {
            budget.Text(value switch { JinjaString text => text.Value.Length, JinjaList list => list.Items.Count, _ => 0 });
            return call(arguments);
        });
    }

    private Func<JinjaArguments, JinjaValue>? OfText(string text, string name) => name switch
    {
        "strip" => a => new JinjaString(JinjaStrings.Strip(text, Characters(text, a), left: true, right: true)),
        "lstrip" => a => new JinjaString(JinjaStrings.Strip(text, Characters(text, a), left: true, right: false)),
        "rstrip" => a => new JinjaString(JinjaStrings.Strip(text, Characters(text, a), left: false, right: true)),
        "split" => a => Texts(JinjaStrings.Split(budget, text, Separator(a), a.Integer(1, "maxsplit") ?? -1, fromRight: false)),
        "rsplit" => a => Texts(JinjaStrings.Split(budget, text, Separator(a), a.Integer(1, "maxsplit") ?? -1, fromRight: true)),
        "splitlines" => _ => Texts(JinjaStrings.Lines(budget, text)),
        "startswith" => a => JinjaBoolean.Of(Any(a.Need(0, "prefix"), part => text.StartsWith(part, StringComparison.Ordinal))),
        "endswith" => a => JinjaBoolean.Of(Any(a.Need(0, "suffix"), part => text.EndsWith(part, StringComparison.Ordinal))),
        "removeprefix" => a => new JinjaString(text.StartsWith(a.Text(0, "prefix"), StringComparison.Ordinal) ? text[a.Text(0, "prefix").Length..] : text),
        "removesuffix" => a => new JinjaString(text.EndsWith(a.Text(0, "suffix"), StringComparison.Ordinal) ? text[..^a.Text(0, "suffix").Length] : text),
        "upper" => _ => new JinjaString(JinjaStrings.Upper(text)),
        "lower" => _ => new JinjaString(JinjaStrings.Lower(text)),
        "title" => _ => new JinjaString(JinjaStrings.Title(text, c => !char.IsLetter(c))),
        "capitalize" => _ => new JinjaString(JinjaStrings.Capitalize(text)),
        "replace" => a => new JinjaString(JinjaStrings.Replace(budget, text, a.Text(0, "old"), a.Text(1, "new"), a.Integer(2, "count") ?? -1)),
        "join" => a => Join(text, operators.Iterate(a.Need(0, "iterable"))),
        "count" => a => new JinjaInteger(Part(text, a) is { Length: > 0 } part ? JinjaStrings.Count(budget, text, part) : text.Length + 1),
        "find" => a => new JinjaInteger(Place(text, text.IndexOf(Part(text, a), StringComparison.Ordinal))),
        "rfind" => a => new JinjaInteger(Place(text, text.LastIndexOf(Part(text, a), StringComparison.Ordinal))),
        "index" => a => text.IndexOf(Part(text, a), StringComparison.Ordinal) is >= 0 and var at
            ? new JinjaInteger(Place(text, at))
            : throw JinjaErrors.Run("a text that is looked for is not there"),
        "partition" => a => Partition(text, a.Text(0, "sep"), fromRight: false),
        "rpartition" => a => Partition(text, a.Text(0, "sep"), fromRight: true),
        "isdigit" or "isdecimal" or "isnumeric" => _ => JinjaBoolean.Of(text.Length > 0 && text.All(char.IsDigit)),
        "isalpha" => _ => JinjaBoolean.Of(text.Length > 0 && text.All(char.IsLetter)),
        "isalnum" => _ => JinjaBoolean.Of(text.Length > 0 && text.All(char.IsLetterOrDigit)),
        "isspace" => _ => JinjaBoolean.Of(text.Length > 0 && text.All(JinjaStrings.IsSpace)),
        "isupper" => _ => JinjaBoolean.Of(text.Any(char.IsUpper) && !text.Any(char.IsLower)),
        "islower" => _ => JinjaBoolean.Of(text.Any(char.IsLower) && !text.Any(char.IsUpper)),
        _ => null,
    };

    private Func<JinjaArguments, JinjaValue>? OfDictionary(JinjaDictionary dictionary, string name) => name switch
    {
        "items" => _ => Items(dictionary),
        "keys" => _ => new JinjaList([.. Entries(dictionary).Select(entry => entry.Key)]),
        "values" => _ => new JinjaList([.. Entries(dictionary).Select(entry => entry.Value)]),
        "copy" => _ => dictionary,
        "get" => a => dictionary.TryGet(a.Need(0, "key"), out var value) ? value : a.Get(1, "default") ?? JinjaNone.Value,
        _ => null,
    };

    private Func<JinjaArguments, JinjaValue>? OfList(JinjaList list, string name) => name switch
    {
        "copy" => _ => list,
        "count" => a => new JinjaInteger(list.Items.Count(item => operators.AreEqual(item, a.Need(0, "value")))),
        "index" => a => list.Items.ToList().FindIndex(item => operators.AreEqual(item, a.Need(0, "value"))) is >= 0 and var at
            ? new JinjaInteger(at)
            : throw JinjaErrors.Run("a value that is looked for is not in the list"),
        _ => null,
    };

    public JinjaList Items(JinjaDictionary dictionary) =>
        new([.. Entries(dictionary).Select(entry => new JinjaList([entry.Key, entry.Value], isTuple: true))]);

    public JinjaString Join(string separator, IReadOnlyList<JinjaValue> items)
    {
        var texts = items.Select(format.Text).ToList();
        budget.Text(texts.Sum(text => (long)text.Length) + ((long)separator.Length * Math.Max(0, texts.Count - 1)));
        return new JinjaString(string.Join(separator, texts));
    }

    private JinjaList Texts(List<string> texts)
    {
        budget.Items(texts.Count);
        return new JinjaList([.. texts.Select(text => new JinjaString(text))]);
    }

    private IReadOnlyList<(JinjaValue Key, JinjaValue Value)> Entries(JinjaDictionary dictionary)
    {
        budget.Items(dictionary.Entries.Count);
        return dictionary.Entries;
    }

    /// <summary>What is looked for in a text.</summary>
    private string Part(string text, JinjaArguments arguments)
    {
        var part = arguments.Text(0, "sub");
        budget.Search(text.Length, part.Length);
        return part;
    }

    private string? Characters(string text, JinjaArguments arguments)
    {
        if (arguments.Get(0, "chars") is null or JinjaNone)
        {
            return null;
        }

        var characters = arguments.Text(0, "chars");
        budget.Search(text.Length, characters.Length);
        return characters;
    }

    private static string? Separator(JinjaArguments arguments) =>
        arguments.Get(0, "sep") is null or JinjaNone ? null : arguments.Text(0, "sep");

    private static bool Any(JinjaValue options, Func<string, bool> holds) => options switch
    {
        JinjaString text => holds(text.Value),
        JinjaList { IsTuple: true } list => list.Items.Any(item => Any(item, holds)),
        _ => throw JinjaErrors.Run($"a {options.TypeName} cannot begin or end a text"),
    };

    /// <summary>A place in UTF-16 units as Python counts it.</summary>
    private static int Place(string text, int index) => index < 0 ? -1 : index - text.Take(index).Count(char.IsLowSurrogate);

    private JinjaList Partition(string text, string separator, bool fromRight)
    {
        budget.Search(text.Length, separator.Length);
        var at = separator.Length == 0
            ? throw JinjaErrors.Run("a text is split at an empty separator")
            : fromRight ? text.LastIndexOf(separator, StringComparison.Ordinal) : text.IndexOf(separator, StringComparison.Ordinal);
        string[] parts = at < 0
            ? fromRight ? ["", "", text] : [text, "", ""]
            : [text[..at], separator, text[(at + separator.Length)..]];
        return new JinjaList([.. parts.Select(part => new JinjaString(part))], isTuple: true);
    }
}
