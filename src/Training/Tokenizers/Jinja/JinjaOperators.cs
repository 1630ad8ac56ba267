namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Arithmetic, comparison and indexing as Python does them.</summary>
internal sealed class JinjaOperators(JinjaBudget budget)
{
    public JinjaValue Arithmetic(string op, JinjaValue left, JinjaValue right)
    {
        switch (op, left, right)
        {
            case (_, JinjaUndefined undefined, _):
                throw undefined.Fail();
            case (_, _, JinjaUndefined undefined):
                throw undefined.Fail();
            case ("+", JinjaString a, JinjaString b):
                budget.Text((long)a.Value.Length + b.Value.Length);
                return new JinjaString(a.Value + b.Value);
            case ("+", JinjaList a, JinjaList b) when a.IsTuple == b.IsTuple:
                budget.Items((long)a.Items.Count + b.Items.Count);
                return new JinjaList([.. a.Items, .. b.Items], a.IsTuple);
            case ("*", JinjaString text, JinjaInteger or JinjaBoolean):
                return Repeat(text, Whole(right));
            case ("*", JinjaInteger or JinjaBoolean, JinjaString text):
                return Repeat(text, Whole(left));
            case ("*", JinjaList list, JinjaInteger or JinjaBoolean):
                var count = Math.Max(0, Whole(right));
                budget.Items(list.Items.Count == 0 ? 0 : count > JinjaBudget.MaxItems ? count : list.Items.Count * count);
                return new JinjaList([.. Enumerable.Range(0, (int)count).SelectMany(_ => list.Items)], list.IsTuple);
            default:
                return Numeric(op, left, right);
        }
    }

    public static JinjaValue Signed(string sign, JinjaValue operand) => operand switch
    {
        JinjaInteger or JinjaBoolean => Numeric(sign, new JinjaInteger(0), operand),
        JinjaFloat number => new JinjaFloat(sign == "-" ? -number.Value : number.Value),
        JinjaUndefined undefined => throw undefined.Fail(),
        _ => throw JinjaErrors.Run($"'{sign}' does not work on a {operand.TypeName}"),
    };

    public bool Compare(string op, JinjaValue left, JinjaValue right) => op switch
    {
        "==" => AreEqual(left, right),
        "!=" => !AreEqual(left, right),
        "in" => Contains(right, left),
        "not in" => !Contains(right, left),
        "<" => Order(left, right) < 0,
        "<=" => Order(left, right) <= 0,
        ">" => Order(left, right) > 0,
        ">=" => Order(left, right) >= 0,
        _ => throw new InvalidOperationException($"The parser made the comparison '{op}'."),
    };

    public bool AreEqual(JinjaValue left, JinjaValue right)
    {
        CountComparison(left, right);
        budget.Enter();
        var equal = (left, right) switch
        {
            (JinjaUndefined, JinjaUndefined) => true,
            (JinjaString a, JinjaString b) => string.Equals(a.Value, b.Value, StringComparison.Ordinal),
            (JinjaList a, JinjaList b) => a.IsTuple == b.IsTuple && a.Items.Count == b.Items.Count
                && a.Items.Zip(b.Items).All(pair => AreEqual(pair.First, pair.Second)),
            (JinjaDictionary a, JinjaDictionary b) => a.Entries.Count == b.Entries.Count
                && a.Entries.All(entry => b.TryGet(entry.Key, out var other) && AreEqual(entry.Value, other)),
            _ => Number(left) is { } x && Number(right) is { } y ? x == y : ReferenceEquals(left, right),
        };
        budget.Leave();
        return equal;
    }

    /// <summary>Negative, zero or positive as the left one comes first, neither, or last.</summary>
    public int Order(JinjaValue left, JinjaValue right)
    {
        CountComparison(left, right);
        switch (left, right)
        {
            case (JinjaString a, JinjaString b):
                return string.CompareOrdinal(a.Value, b.Value);
            case (JinjaList a, JinjaList b) when a.IsTuple == b.IsTuple:
                budget.Enter();
                var differing = a.Items.Zip(b.Items).FirstOrDefault(pair => !AreEqual(pair.First, pair.Second));
                var order = differing.First is null ? a.Items.Count.CompareTo(b.Items.Count) : Order(differing.First, differing.Second);
                budget.Leave();
                return order;
            case (JinjaUndefined undefined, _):
                throw undefined.Fail();
            case (_, JinjaUndefined undefined):
                throw undefined.Fail();
            default:
                return Number(left) is { } x && Number(right) is { } y
                    ? x.CompareTo(y)
                    : throw JinjaErrors.Run($"a {left.TypeName} and a {right.TypeName} have no order");
        }
    }

    public bool Contains(JinjaValue container, JinjaValue item)
    {
        switch (container)
        {
            case JinjaString text when item is JinjaString part:
                budget.Search(text.Value.Length, part.Value.Length);
                return text.Value.Contains(part.Value, StringComparison.Ordinal);
            case JinjaList list:
                return list.Items.Any(other => AreEqual(other, item));
            case JinjaDictionary dictionary:
                return dictionary.TryGet(item, out _);
            case JinjaUndefined:
                return false;
            default:
                throw JinjaErrors.Run($"'in' does not work on a {item.TypeName} and a {container.TypeName}");
        }
    }

    /// <summary>Item of a list, string or mapping; null when there is none.</summary>
    public JinjaValue? Item(JinjaValue target, JinjaValue index)
    {
        switch (target, index)
        {
            case (JinjaDictionary dictionary, _):
                return dictionary.TryGet(index, out var value) ? value : null;
            case (JinjaList list, JinjaInteger or JinjaBoolean):
                var place = Place(Whole(index), list.Items.Count);
                return place is null ? null : list.Items[place.Value];
            case (JinjaString text, JinjaInteger or JinjaBoolean):
                var count = Length(text.Value);
                return Place(Whole(index), count) is not { } at ? null : new JinjaString(
                    count == text.Value.Length ? text.Value[at].ToString() : Characters(text.Value)[at]);
            default:
                return null;
        }
    }

    public JinjaValue Slice(JinjaValue target, long? start, long? stop, long? step)
    {
        switch (target)
        {
            case JinjaString text:
                budget.Text(text.Value.Length);
                if (Length(text.Value) == text.Value.Length)
                {
                    return new JinjaString(string.Concat(Places(text.Value.Length, start, stop, step).Select(i => text.Value[i])));
                }

                var characters = Characters(text.Value);
                return new JinjaString(string.Concat(Places(characters.Count, start, stop, step).Select(i => characters[i])));
            case JinjaList list:
                budget.Items(list.Items.Count);
                return new JinjaList([.. Places(list.Items.Count, start, stop, step).Select(i => list.Items[i])], list.IsTuple);
            case JinjaUndefined undefined:
                throw undefined.Fail();
            default:
                throw JinjaErrors.Run($"a {target.TypeName} cannot be sliced");
        }
    }

    /// <summary>The values that a loop or filter walks over: keys of a mapping, characters of a string.</summary>
    public IReadOnlyList<JinjaValue> Iterate(JinjaValue value)
    {
        IReadOnlyList<JinjaValue> items = value switch
        {
            JinjaList list => list.Items,
            JinjaDictionary dictionary => [.. dictionary.Entries.Select(entry => entry.Key)],
            JinjaString text => [.. Characters(text.Value).Select(character => new JinjaString(character))],
            JinjaUndefined => [],
            _ => throw JinjaErrors.Run($"a {value.TypeName} cannot be iterated over"),
        };
        budget.Items(items.Count);
        return items;
    }

    /// <summary>Number of characters as Python counts them: code points, not UTF-16 units.</summary>
    public int Length(string text)
    {
        budget.Text(text.Length);
        return text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0 ? text.Length : text.EnumerateRunes().Count();
    }

    /// <summary>Python's characters of a text.</summary>
    public IReadOnlyList<string> Characters(string text)
    {
        budget.Items(text.Length);
        var characters = new List<string>(text.Length);
        for (var i = 0; i < text.Length; i++)
        {
            var size = char.IsHighSurrogate(text[i]) && i + 1 < text.Length && char.IsLowSurrogate(text[i + 1]) ? 2 : 1;
            characters.Add(text.Substring(i, size));
            i += size - 1;
        }

        return characters;
    }

    public static long Whole(JinjaValue value) => value switch
    {
        JinjaInteger number => number.Value,
        JinjaBoolean flag => flag.IsTrue ? 1 : 0,
        _ => throw JinjaErrors.Run($"a whole number is needed, not a {value.TypeName}"),
    };

    public static double? Number(JinjaValue value) => value switch
    {
        JinjaInteger number => number.Value,
        JinjaFloat number => number.Value,
        JinjaBoolean flag => flag.IsTrue ? 1 : 0,
        _ => null,
    };

    private void CountComparison(JinjaValue left, JinjaValue right) =>
        budget.Text(left is JinjaString a && right is JinjaString b ? Math.Min(a.Value.Length, b.Value.Length) : 0);

    private JinjaString Repeat(JinjaString text, long count)
    {
        count = Math.Max(0, count);
        budget.Text(text.Value.Length == 0 ? 0 : count > JinjaBudget.MaxText ? count : text.Value.Length * count);
        return new JinjaString(text.Value.Length == 0 ? "" : string.Concat(Enumerable.Repeat(text.Value, (int)count)));
    }

    private static JinjaValue Numeric(string op, JinjaValue left, JinjaValue right)
    {
        if (Number(left) is not { } x || Number(right) is not { } y)
        {
            throw JinjaErrors.Run($"'{op}' does not work on a {left.TypeName} and a {right.TypeName}");
        }

        if (op is "/" or "//" or "%" && y == 0)
        {
            throw JinjaErrors.Run("it divides by zero");
        }

        if (left is JinjaFloat || right is JinjaFloat || op == "/" || (op == "**" && y < 0))
        {
            return new JinjaFloat(op switch
            {
                "+" => x + y,
                "-" => x - y,
                "*" => x * y,
                "/" => x / y,
                "//" => Math.Floor(x / y),
                "%" => x - (y * Math.Floor(x / y)),
                _ => Math.Pow(x, y),
            });
        }

        var (a, b) = (Whole(left), Whole(right));
        try
        {
            return new JinjaInteger(op switch
            {
                "+" => checked(a + b),
                "-" => checked(a - b),
                "*" => checked(a * b),
                "//" => FloorDivide(a, b),
                "%" => a - (b * FloorDivide(a, b)),
                _ => Power(a, b),
            });
        }
        catch (OverflowException e)
        {
            throw TrainingException.InvalidData("The chat template failed: a whole number exceeds 64 bits.", "chat_template", e);
        }
    }

    private static long FloorDivide(long a, long b)
    {
        var quotient = checked(a / b);
        return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
    }

    private static long Power(long value, long exponent)
    {
        var result = 1L;
        for (; exponent > 0; exponent >>= 1)
        {
            result = (exponent & 1) == 1 ? checked(result * value) : result;
            value = exponent > 1 ? checked(value * value) : value;
        }

        return result;
    }

    private static int? Place(long index, int count)
    {
        var place = index < 0 ? index + count : index;
        return place >= 0 && place < count ? (int)place : null;
    }

    private static IEnumerable<int> Places(int count, long? start, long? stop, long? step)
    {
        var by = step ?? 1;
        if (by == 0)
        {
            throw JinjaErrors.Run("a slice has the step 0");
        }

        var (low, high) = by > 0 ? (0L, (long)count) : (-1L, count - 1L);
        long Bound(long? bound, long otherwise) =>
            bound is not { } value ? otherwise : Math.Clamp(value < 0 ? value + count : value, low, high);

        var end = Bound(stop, by > 0 ? high : low);
        by = Math.Clamp(by, -count - 1L, count + 1L);   // a longer step leaves the list all the same
        for (var i = Bound(start, by > 0 ? low : high); by > 0 ? i < end : i > end; i += by)
        {
            yield return (int)i;
        }
    }
}
