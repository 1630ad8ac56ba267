namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>What stands behind <c>is</c>.</summary>
internal sealed class JinjaTests(JinjaBudget budget, JinjaOperators operators)
{
    public bool Holds(string name, JinjaValue value, JinjaArguments arguments)
    {
        switch (name)
        {
            case "defined": return value is not JinjaUndefined;
            case "undefined": return value is JinjaUndefined;
            case "none": return value is JinjaNone;
            case "string": return value is JinjaString;
            case "mapping": return value is JinjaDictionary;
            case "iterable" or "sequence": return value is JinjaString or JinjaList or JinjaDictionary or JinjaUndefined;
            case "number": return value is JinjaInteger or JinjaFloat or JinjaBoolean;
            case "integer": return value is JinjaInteger;
            case "float": return value is JinjaFloat;
            case "boolean": return value is JinjaBoolean;
            case "true": return value is JinjaBoolean { IsTrue: true };
            case "false": return value is JinjaBoolean { IsTrue: false };
            case "callable": return value is JinjaFunction;
            case "lower": return value is JinjaString lower && IsCased(lower.Value, char.IsUpper, char.IsLower);
            case "upper": return value is JinjaString upper && IsCased(upper.Value, char.IsLower, char.IsUpper);
            case "odd": return Remainder(value, new JinjaInteger(2)) == 1;
            case "even": return Remainder(value, new JinjaInteger(2)) == 0;
            case "divisibleby": return Remainder(value, arguments.Need(0, "num")) == 0;
            case "sameas":
                var other = arguments.Need(0, "other");
                return ReferenceEquals(value, other) || (value is JinjaInteger or JinjaString && operators.AreEqual(value, other));
            case "in": return operators.Contains(arguments.Need(0, "seq"), value);
            default:
                var comparison = name switch
                {
                    "eq" or "equalto" or "==" => "==",
                    "ne" or "!=" => "!=",
                    "lt" or "lessthan" or "<" => "<",
                    "le" or "<=" => "<=",
                    "gt" or "greaterthan" or ">" => ">",
                    "ge" or ">=" => ">=",
                    _ => throw JinjaErrors.Run($"the test '{name}' is not supported"),
                };
                return operators.Compare(comparison, value, arguments.Need(0, "other"));
        }
    }

    private long Remainder(JinjaValue value, JinjaValue by) =>
        operators.Arithmetic("%", value, by) is JinjaInteger remainder ? remainder.Value : -1;

    /// <summary>Whether a text has letters of one case and none of the other.</summary>
    private bool IsCased(string text, Func<char, bool> not, Func<char, bool> some)
    {
        budget.Text(text.Length);
        return !text.Any(not) && text.Any(some);
    }
}
