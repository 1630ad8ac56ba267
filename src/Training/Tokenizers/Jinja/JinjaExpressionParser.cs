using System.Globalization;
using System.Text;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Reads expressions, with Jinja's precedence: conditional, or, and, not, comparison, +-, ~, */, **, unary, postfix, filter.</summary>
internal sealed class JinjaExpressionParser(JinjaTokens tokens)
{
    private static readonly JinjaCallArguments NoArguments = new([], [], null, null);

    public JinjaExpression Parse(bool withConditional = true) =>
        tokens.Nested(() => withConditional ? ParseConditional() : ParseOr());

    /// <summary>One expression, or a tuple of several with commas between them.</summary>
    public JinjaExpression ParseTuple(bool withConditional = true, bool mayBeEmpty = false)
    {
        var items = new List<JinjaExpression>();
        var isTuple = false;
        while (!AtTupleEnd())
        {
            items.Add(Parse(withConditional));
            if (!tokens.TakeOperator(","))
            {
                break;
            }

            isTuple = true;
        }

        if (!isTuple && items.Count == 1)
        {
            return items[0];
        }

        return items.Count > 0 || mayBeEmpty
            ? new JinjaListLiteral(items, IsTuple: true)
            : throw tokens.Fail($"an expression is expected before {tokens.Describe()}");
    }

    /// <summary>The name and arguments of a filter whose <c>|</c> was read, or that begins a filter block.</summary>
    public JinjaExpression ParseFilter(JinjaExpression? target)
    {
        var name = ParseDottedName();
        return new JinjaFilter(target, name, tokens.IsOperator("(") ? ParseArguments() : NoArguments);
    }

    private bool AtTupleEnd() =>
        tokens.Current.Kind is JinjaTokenKind.BlockEnd or JinjaTokenKind.VariableEnd or JinjaTokenKind.End || tokens.IsOperator(")");

    private JinjaExpression ParseConditional()
    {
        var expression = ParseOr();
        while (tokens.TakeName("if"))
        {
            var condition = ParseOr();
            var otherwise = tokens.TakeName("else") ? tokens.Nested(ParseConditional) : null;
            expression = new JinjaConditional(condition, expression, otherwise);
        }

        return expression;
    }

    private JinjaExpression ParseOr()
    {
        var left = ParseAnd();
        while (tokens.TakeName("or"))
        {
            left = new JinjaBinary("or", left, ParseAnd());
        }

        return left;
    }

    private JinjaExpression ParseAnd()
    {
        var left = ParseNot();
        while (tokens.TakeName("and"))
        {
            left = new JinjaBinary("and", left, ParseNot());
        }

        return left;
    }

    private JinjaExpression ParseNot() =>
        tokens.TakeName("not") ? new JinjaUnary("not", tokens.Nested(ParseNot)) : ParseComparison();

    private JinjaExpression ParseComparison()
    {
        var first = ParseSum();
        var rest = new List<(string, JinjaExpression)>();
        while (true)
        {
            if (tokens.Is(JinjaTokenKind.Operator) && tokens.Current.Text is "==" or "!=" or "<" or "<=" or ">" or ">=")
            {
                rest.Add((tokens.Take().Text, ParseSum()));
            }
            else if (tokens.TakeName("in"))
            {
                rest.Add(("in", ParseSum()));
            }
            else if (tokens.IsName("not") && tokens.Next is { Kind: JinjaTokenKind.Name, Text: "in" })
            {
                tokens.Take();
                tokens.Take();
                rest.Add(("not in", ParseSum()));
            }
            else
            {
                return rest.Count == 0 ? first : new JinjaComparison(first, rest);
            }
        }
    }

    private JinjaExpression ParseSum() => ParseChain(["+", "-"], () => ParseChain(["~"], ParseProduct));

    private JinjaExpression ParseProduct() => ParseChain(["*", "/", "//", "%"], () => ParseChain(["**"], () => ParseUnary(withFilters: true)));

    private JinjaExpression ParseChain(string[] operators, Func<JinjaExpression> operand)
    {
        var left = operand();
        while (tokens.Is(JinjaTokenKind.Operator) && operators.Contains(tokens.Current.Text))
        {
            left = new JinjaBinary(tokens.Take().Text, left, operand());
        }

        return left;
    }

    private JinjaExpression ParseUnary(bool withFilters)
    {
        JinjaExpression expression;
        if (tokens.Is(JinjaTokenKind.Operator) && tokens.Current.Text is "-" or "+")
        {
            expression = new JinjaUnary(tokens.Take().Text, tokens.Nested(() => ParseUnary(withFilters: false)));
        }
        else
        {
            expression = ParsePrimary();
        }

        expression = ParsePostfix(expression);
        return withFilters ? ParseFilters(expression) : expression;
    }

    private JinjaExpression ParsePrimary()
    {
        var token = tokens.Current;
        switch (token.Kind)
        {
            case JinjaTokenKind.Name:
                tokens.Take();
                return token.Text switch
                {
                    "true" or "True" => new JinjaConstant(JinjaBoolean.True),
                    "false" or "False" => new JinjaConstant(JinjaBoolean.False),
                    "none" or "None" => new JinjaConstant(JinjaNone.Value),
                    _ => new JinjaName(token.Text),
                };
            case JinjaTokenKind.String:
                var text = new StringBuilder();
                while (tokens.Is(JinjaTokenKind.String))
                {
                    text.Append(tokens.Take().Text);
                }

                return new JinjaConstant(new JinjaString(text.ToString()));
            case JinjaTokenKind.Integer:
                tokens.Take();
                return long.TryParse(token.Text, NumberStyles.None, CultureInfo.InvariantCulture, out var whole)
                    ? new JinjaConstant(new JinjaInteger(whole))
                    : throw tokens.Fail($"the number {token.Text} is too large");
            case JinjaTokenKind.Float:
                tokens.Take();
                return new JinjaConstant(new JinjaFloat(double.Parse(token.Text, CultureInfo.InvariantCulture)));
            case JinjaTokenKind.Operator when token.Text == "(":
                tokens.Take();
                var inner = tokens.Nested(() => ParseTuple(mayBeEmpty: true));
                tokens.ExpectOperator(")");
                return inner;
            case JinjaTokenKind.Operator when token.Text == "[":
                tokens.Take();
                return new JinjaListLiteral(ParseItems("]", () => Parse()), IsTuple: false);
            case JinjaTokenKind.Operator when token.Text == "{":
                tokens.Take();
                return new JinjaDictionaryLiteral(ParseItems("}", ParseEntry));
            default:
                throw tokens.Fail($"an expression is expected before {tokens.Describe()}");
        }
    }

    private (JinjaExpression Key, JinjaExpression Value) ParseEntry()
    {
        var key = Parse();
        tokens.ExpectOperator(":");
        return (key, Parse());
    }

    private List<T> ParseItems<T>(string end, Func<T> parse)
    {
        var items = new List<T>();
        while (!tokens.IsOperator(end))
        {
            if (items.Count > 0)
            {
                tokens.ExpectOperator(",");
                if (tokens.IsOperator(end))
                {
                    break;
                }
            }

            items.Add(parse());
        }

        tokens.Take();
        return items;
    }

    private JinjaExpression ParsePostfix(JinjaExpression expression)
    {
        while (true)
        {
            if (tokens.TakeOperator("."))
            {
                expression = tokens.Is(JinjaTokenKind.Integer)
                    ? new JinjaIndex(expression, ParsePrimary())
                    : new JinjaAttribute(expression, tokens.ExpectName());
            }
            else if (tokens.TakeOperator("["))
            {
                var index = ParseItems("]", ParseSubscript);
                expression = new JinjaIndex(expression, index.Count == 1 ? index[0] : new JinjaListLiteral(index, IsTuple: true));
            }
            else if (tokens.IsOperator("("))
            {
                expression = new JinjaCall(expression, ParseArguments());
            }
            else
            {
                return expression;
            }
        }
    }

    private JinjaExpression ParseSubscript()
    {
        var start = tokens.IsOperator(":") ? null : Parse();
        if (!tokens.TakeOperator(":"))
        {
            return start!;
        }

        var stop = AtSliceEnd() ? null : Parse();
        var step = tokens.TakeOperator(":") && !AtSliceEnd() ? Parse() : null;
        return new JinjaSlice(start, stop, step);
    }

    private bool AtSliceEnd() => tokens.IsOperator(":") || tokens.IsOperator("]") || tokens.IsOperator(",");

    private JinjaExpression ParseFilters(JinjaExpression expression)
    {
        while (true)
        {
            if (tokens.TakeOperator("|"))
            {
                expression = ParseFilter(expression);
            }
            else if (tokens.TakeName("is"))
            {
                expression = ParseTest(expression);
            }
            else if (tokens.IsOperator("("))
            {
                expression = new JinjaCall(expression, ParseArguments());
            }
            else
            {
                return expression;
            }
        }
    }

    private JinjaExpression ParseTest(JinjaExpression target)
    {
        var negated = tokens.TakeName("not");
        var name = ParseDottedName();
        var arguments = NoArguments;
        if (tokens.IsOperator("("))
        {
            arguments = ParseArguments();
        }
        else if (tokens.Current.Kind is JinjaTokenKind.String or JinjaTokenKind.Integer or JinjaTokenKind.Float
            || tokens.IsOperator("[") || tokens.IsOperator("{")
            || (tokens.Is(JinjaTokenKind.Name) && tokens.Current.Text is not ("else" or "or" or "and" or "is" or "if" or "not" or "in")))
        {
            arguments = new JinjaCallArguments([ParsePostfix(ParsePrimary())], [], null, null);
        }

        var test = new JinjaTest(target, name, arguments);
        return negated ? new JinjaUnary("not", test) : test;
    }

    private string ParseDottedName()
    {
        var name = new StringBuilder(tokens.ExpectName());
        while (tokens.TakeOperator("."))
        {
            name.Append('.').Append(tokens.ExpectName());
        }

        return name.ToString();
    }

    private JinjaCallArguments ParseArguments()
    {
        tokens.ExpectOperator("(");
        var positional = new List<JinjaExpression>();
        var named = new List<(string, JinjaExpression)>();
        JinjaExpression? spread = null;
        JinjaExpression? namedSpread = null;
        var any = false;
        while (!tokens.IsOperator(")"))
        {
            if (any)
            {
                tokens.ExpectOperator(",");
                if (tokens.IsOperator(")"))
                {
                    break;
                }
            }

            any = true;
            if (tokens.TakeOperator("**"))
            {
                namedSpread = Parse();
            }
            else if (tokens.TakeOperator("*"))
            {
                spread = Parse();
            }
            else if (tokens.Is(JinjaTokenKind.Name) && tokens.Next is { Kind: JinjaTokenKind.Operator, Text: "=" })
            {
                var name = tokens.Take().Text;
                tokens.Take();
                named.Add((name, Parse()));
            }
            else if (named.Count > 0 || namedSpread is not null)
            {
                throw tokens.Fail("an argument without name stands behind one with a name");
            }
            else
            {
                positional.Add(Parse());
            }
        }

        tokens.Take();
        return new JinjaCallArguments(positional, named, spread, namedSpread);
    }
}
