namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>What stands behind <c>|</c>.</summary>
internal sealed class JinjaFilters(JinjaBudget budget, JinjaEvaluator evaluator, JinjaTests tests, JinjaMethods methods)
{
    public JinjaValue Apply(string name, JinjaValue value, JinjaArguments arguments) =>
        OfText(name, value, arguments) ?? OfNumber(name, value, arguments) ?? OfList(name, value, arguments) ?? OfAny(name, value, arguments)
        ?? throw JinjaErrors.Run($"the filter '{name}' is not supported");

    private JinjaValue? OfText(string name, JinjaValue value, JinjaArguments arguments)
    {
        // A list's order can be reversed and so can a text; the rest works on the value's text, and copies it or walks over it.
        string Text()
        {
            var text = evaluator.Format.Text(value);
            budget.Text(text.Length);
            return text;
        }

        switch (name)
        {
            case "trim":
                var trimmed = Text();
                var characters = (arguments.Get(0, "chars") as JinjaString)?.Value;
                budget.Search(trimmed.Length, characters?.Length ?? 0);
                return new JinjaString(JinjaStrings.Strip(trimmed, characters, left: true, right: true));
            case "upper": return new JinjaString(JinjaStrings.Upper(Text()));
            case "lower": return new JinjaString(JinjaStrings.Lower(Text()));
            case "capitalize": return new JinjaString(JinjaStrings.Capitalize(Text()));
            case "title":
                return new JinjaString(JinjaStrings.Title(Text(), c => JinjaStrings.IsSpace(c) || c is '-' or '(' or '{' or '[' or '<'));
            case "string" or "safe": return new JinjaString(Text());
            case "e" or "escape" or "forceescape":
                return new JinjaString(Text().Replace("&", "&amp;", StringComparison.Ordinal).Replace(">", "&gt;", StringComparison.Ordinal)
                    .Replace("<", "&lt;", StringComparison.Ordinal).Replace("'", "&#39;", StringComparison.Ordinal)
                    .Replace("\"", "&#34;", StringComparison.Ordinal));
            case "replace":
                return new JinjaString(JinjaStrings.Replace(
                    budget, Text(), Argument(arguments.Need(0, "old")), Argument(arguments.Need(1, "new")), arguments.Integer(2, "count") ?? -1));
            case "indent":
                var width = arguments.Get(0, "width");
                var indentation = width is JinjaString own ? own.Value : Spaces(width is null ? 4 : JinjaOperators.Whole(width));
                return new JinjaString(JinjaStrings.Indent(
                    budget, Text(), indentation, arguments.Flag(1, "first", false), arguments.Flag(2, "blank", false)));
            case "tojson": return new JinjaString(evaluator.Format.Json(value, Style(arguments)));
            case "wordcount": return new JinjaInteger(JinjaStrings.Split(budget, Text(), null, -1, fromRight: false).Count);
            default: return null;
        }
    }

    private JinjaValue? OfNumber(string name, JinjaValue value, JinjaArguments arguments)
    {
        budget.Text(value is JinjaString digitsOf ? digitsOf.Value.Length : 0);
        switch (name)
        {
            case "int":
                return ToInteger(value, arguments) is { } whole ? new JinjaInteger(whole) : arguments.Get(0, "default") ?? new JinjaInteger(0);
            case "float":
                var number = value is JinjaString text ? JinjaStrings.ParseFloat(text.Value) : JinjaOperators.Number(value);
                return number is { } known ? new JinjaFloat(known) : arguments.Get(0, "default") ?? new JinjaFloat(0);
            case "abs":
                return JinjaOperators.Signed(value is JinjaInteger { Value: < 0 } or JinjaFloat { Value: < 0 } ? "-" : "+", value);
            case "round" when value is JinjaInteger && arguments.Get(1, "method") is null:
                return value;
            case "round":
                var digits = (int)Math.Clamp(arguments.Integer(0, "precision") ?? 0, 0, 15);
                var scale = Math.Pow(10, digits);
                var given = JinjaOperators.Number(value) ?? throw JinjaErrors.Run($"a {value.TypeName} cannot be rounded");
                return new JinjaFloat((arguments.Get(1, "method") as JinjaString)?.Value switch
                {
                    null or "common" => Math.Round(given, digits, MidpointRounding.ToEven),
                    "ceil" => Math.Ceiling(given * scale) / scale,
                    "floor" => Math.Floor(given * scale) / scale,
                    var method => throw JinjaErrors.Run($"the way '{method}' of rounding is not known"),
                });
            default:
                return null;
        }
    }

    private JinjaValue? OfList(string name, JinjaValue value, JinjaArguments arguments)
    {
        IReadOnlyList<JinjaValue> Items() => evaluator.Operators.Iterate(value);

        switch (name)
        {
            case "list": return new JinjaList(Items());
            case "first": return Items() is [var first, ..] ? first : new JinjaUndefined("the first item of an empty list");
            case "last": return Items() is [.., var last] ? last : new JinjaUndefined("the last item of an empty list");
            case "join":
                return methods.Join(
                    Argument(arguments.Get(0, "d") ?? new JinjaString("")), [.. Items().Select(Part(arguments.Get(1, "attribute")))]);
            case "reverse" when value is JinjaString: return evaluator.Operators.Slice(value, null, null, -1);
            case "reverse": return new JinjaList([.. Items().Reverse()]);
            case "map": return Map(Items(), arguments);
            case "select": return new JinjaList([.. Items().Where(Selected(arguments, item => item))]);
            case "reject": return new JinjaList([.. Items().Where(Not(Selected(arguments, item => item)))]);
            case "selectattr": return new JinjaList([.. Items().Where(Selected(arguments.Skip(1), Part(arguments.Need(0, "attribute"))))]);
            case "rejectattr": return new JinjaList([.. Items().Where(Not(Selected(arguments.Skip(1), Part(arguments.Need(0, "attribute")))))]);
            case "sort":
                return new JinjaList(Sorted(
                    Items(), Key(arguments.Get(2, "attribute"), arguments.Flag(1, "case_sensitive", false)), arguments.Flag(0, "reverse", false)));
            case "unique":
                var seen = new JinjaDictionary();
                var key = Key(arguments.Get(1, "attribute"), arguments.Flag(0, "case_sensitive", false));
                foreach (var item in Items().Where(item => !seen.TryGet(key(item), out _)))
                {
                    seen.Set(key(item), item);
                }

                return new JinjaList([.. seen.Entries.Select(entry => entry.Value)]);
            case "min" or "max":
                var sorted = Sorted(Items(), Key(arguments.Get(1, "attribute"), arguments.Flag(0, "case_sensitive", false)), reverse: name == "max");
                return sorted.Count > 0 ? sorted[0] : new JinjaUndefined($"the {name} of an empty list");
            case "sum":
                return Items().Select(Part(arguments.Get(0, "attribute")))
                    .Aggregate(arguments.Get(1, "start") ?? new JinjaInteger(0), (sum, item) => evaluator.Operators.Arithmetic("+", sum, item));
            default:
                return null;
        }
    }

    private JinjaValue? OfAny(string name, JinjaValue value, JinjaArguments arguments)
    {
        switch (name)
        {
            case "default" or "d":
                return value is JinjaUndefined || (arguments.Flag(1, "boolean", false) && !value.IsTrue)
                    ? arguments.Get(0, "default_value") ?? new JinjaString("")
                    : value;
            case "length" or "count": return new JinjaInteger(Length(value));
            case "attr": return evaluator.Attribute(value, arguments.Text(0, "name"));
            case "items":
                return value is JinjaUndefined ? new JinjaList([]) : value is JinjaDictionary mapping
                    ? methods.Items(mapping)
                    : throw JinjaErrors.Run($"a {value.TypeName} has no items");
            case "dictsort":
                var pairs = methods.Items(value as JinjaDictionary ?? throw JinjaErrors.Run($"a {value.TypeName} is no mapping to sort"));
                var byValue = arguments.Get(1, "by") is JinjaString { Value: "value" };
                return new JinjaList(Sorted(
                    pairs.Items, Key(new JinjaInteger(byValue ? 1 : 0), arguments.Flag(0, "case_sensitive", false)),
                    arguments.Flag(2, "reverse", false)));
            default:
                return null;
        }
    }

    private int Length(JinjaValue value) => value switch
    {
        JinjaString text => evaluator.Operators.Length(text.Value),
        JinjaList list => list.Items.Count,
        JinjaDictionary dictionary => dictionary.Entries.Count,
        JinjaUndefined => 0,
        _ => throw JinjaErrors.Run($"a {value.TypeName} has no length"),
    };

    private JinjaList Map(IReadOnlyList<JinjaValue> items, JinjaArguments arguments)
    {
        if (arguments.Named.TryGetValue("attribute", out var attribute))
        {
            var part = Part(attribute);
            var otherwise = arguments.Named.GetValueOrDefault("default");
            return new JinjaList([.. items.Select(item => part(item) is JinjaUndefined && otherwise is not null ? otherwise : part(item))]);
        }

        var name = arguments.Text(0, "filter");
        return new JinjaList([.. items.Select(item => Apply(name, item, arguments.Skip(1)))]);
    }

    private Func<JinjaValue, bool> Selected(JinjaArguments arguments, Func<JinjaValue, JinjaValue> part)
    {
        if (arguments.Positional.Count == 0)
        {
            return item => part(item).IsTrue;
        }

        var (name, rest) = (arguments.Text(0, "test"), arguments.Skip(1));
        return item => tests.Holds(name, part(item), rest);
    }

    private static Func<JinjaValue, bool> Not(Func<JinjaValue, bool> condition) => item => !condition(item);

    /// <summary>Reads <c>a.b.0</c> from an item; the item itself when no attribute is named.</summary>
    private Func<JinjaValue, JinjaValue> Part(JinjaValue? attribute) => attribute switch
    {
        null or JinjaNone => item => item,
        JinjaInteger => item => Member(item, attribute),
        JinjaString path => item => path.Value.Split('.').Aggregate(item, (current, name) =>
            Member(current, JinjaStrings.ParseInteger(name, 10) is { } index ? new JinjaInteger(index) : new JinjaString(name))),
        _ => throw JinjaErrors.Run($"an attribute is named by a {attribute.TypeName}"),
    };

    private JinjaValue Member(JinjaValue value, JinjaValue name)
    {
        budget.Step();
        return evaluator.Subscript(value, name);
    }

    private Func<JinjaValue, JinjaValue> Key(JinjaValue? attribute, bool caseSensitive)
    {
        var part = Part(attribute);
        return item =>
        {
            var value = part(item);
            if (caseSensitive || value is not JinjaString text)
            {
                return value;
            }

            budget.Text(text.Value.Length);
            return new JinjaString(JinjaStrings.Lower(text.Value));
        };
    }

    private List<JinjaValue> Sorted(IReadOnlyList<JinjaValue> items, Func<JinjaValue, JinjaValue> key, bool reverse)
    {
        var order = Comparer<JinjaValue>.Create(evaluator.Operators.Order);
        try
        {
            return [.. reverse ? items.OrderByDescending(key, order) : items.OrderBy(key, order)];
        }
        catch (InvalidOperationException e) when (e.InnerException is TrainingException)
        {
            throw JinjaErrors.Run("a list holds values that have no order among them");
        }
    }

    private string Argument(JinjaValue value) => evaluator.Format.Text(value);

    private string Spaces(long count)
    {
        budget.Text(Math.Max(0, count));
        return new string(' ', (int)Math.Max(0, count));
    }

    private JsonStyle Style(JinjaArguments arguments)
    {
        var indent = arguments.Get(1, "indent") switch
        {
            null or JinjaNone => null,
            JinjaString text => text.Value,
            var width => Spaces(JinjaOperators.Whole(width)),
        };
        var (item, key) = (indent is null ? ", " : ",", ": ");
        if (arguments.Get(2, "separators") is JinjaList { Items: [JinjaString own, JinjaString ownKey] })
        {
            (item, key) = (own.Value, ownKey.Value);
        }

        return new JsonStyle(indent, item, key, arguments.Flag(3, "sort_keys", false), arguments.Flag(0, "ensure_ascii", false));
    }

    private static long? ToInteger(JinjaValue value, JinjaArguments arguments)
    {
        var number = value is JinjaString text
            ? JinjaStrings.ParseInteger(text.Value, (int)(arguments.Integer(1, "base") ?? 10)) is { } whole ? whole : JinjaStrings.ParseFloat(text.Value)
            : JinjaOperators.Number(value);
        return value is JinjaInteger given ? given.Value : number is > -9e18 and < 9e18 ? (long)number : null;
    }
}
