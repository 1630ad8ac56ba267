using System.Globalization;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Reads a template's statements.</summary>
internal sealed class JinjaParser
{
    /// <summary>Characters of a template. Those in use have some twenty thousand at most.</summary>
    public const int LongestTemplate = 1 << 20;

    private readonly JinjaTokens _tokens;
    private readonly JinjaExpressionParser _expressions;

    private JinjaParser(List<JinjaToken> tokens)
    {
        _tokens = new JinjaTokens(tokens);
        _expressions = new JinjaExpressionParser(_tokens);
    }

    /// <exception cref="TrainingException">The template is longer than any that is in use, or cannot be read.</exception>
    public static IReadOnlyList<JinjaStatement> Parse(string template)
    {
        if (template.Length > LongestTemplate)
        {
            throw TooLong(template.Length);
        }

        var parser = new JinjaParser(JinjaLexer.Read(template));
        return parser.ParseUntil([]);
    }

    /// <summary>The refusal of a template of this many characters, or bytes where it was not read at all.</summary>
    public static TrainingException TooLong(long length) => TrainingException.InvalidData(
        string.Create(CultureInfo.InvariantCulture, $"The chat template has a length of {length}, more than the {LongestTemplate} that are read; give the model's own."),
        "chat_template");

    /// <summary>Statements up to a tag with one of these names, whose name is read; to the template's end when there are none.</summary>
    private List<JinjaStatement> ParseUntil(string[] ends)
    {
        var statements = new List<JinjaStatement>();
        while (true)
        {
            switch (_tokens.Current.Kind)
            {
                case JinjaTokenKind.Data:
                    statements.Add(new JinjaText(_tokens.Take().Text));
                    break;
                case JinjaTokenKind.VariableBegin:
                    _tokens.Take();
                    statements.Add(new JinjaOutput(_expressions.ParseTuple()));
                    _tokens.Expect(JinjaTokenKind.VariableEnd);
                    break;
                case JinjaTokenKind.BlockBegin:
                    _tokens.Take();
                    if (_tokens.Is(JinjaTokenKind.Name) && ends.Contains(_tokens.Current.Text))
                    {
                        return statements;
                    }

                    statements.Add(_tokens.Nested(ParseBlock));
                    break;
                case JinjaTokenKind.End when ends.Length == 0:
                    return statements;
                default:
                    throw _tokens.Fail($"'{string.Join("' or '", ends)}' is missing before {_tokens.Describe()}");
            }
        }
    }

    private JinjaStatement ParseBlock()
    {
        var name = _tokens.ExpectName();
        switch (name)
        {
            case "if": return ParseIf();
            case "for": return ParseFor();
            case "set": return ParseSet();
            case "macro": return ParseMacro();
            case "call": return ParseCall();
            case "filter": return ParseFilterBlock();
            case "with": return ParseWith();
            case "generation":
                EndTag();
                return new JinjaGeneration(ParseBody("endgeneration"));
            case "break" or "continue":
                EndTag();
                return new JinjaLoopControl(name == "break");
            default:
                throw _tokens.Fail($"the tag '{name}' is not supported");
        }
    }

    private void EndTag() => _tokens.Expect(JinjaTokenKind.BlockEnd);

    private List<JinjaStatement> ParseBody(string end)
    {
        var body = ParseUntil([end]);
        _tokens.ExpectName(end);
        EndTag();
        return body;
    }

    private JinjaIf ParseIf()
    {
        var branches = new List<(JinjaExpression, IReadOnlyList<JinjaStatement>)>();
        var otherwise = new List<JinjaStatement>();
        do
        {
            var condition = _expressions.ParseTuple(withConditional: false);
            EndTag();
            branches.Add((condition, ParseUntil(["elif", "else", "endif"])));
        }
        while (_tokens.TakeName("elif"));

        if (_tokens.TakeName("else"))
        {
            EndTag();
            otherwise = ParseBody("endif");
        }
        else
        {
            _tokens.ExpectName("endif");
            EndTag();
        }

        return new JinjaIf(branches, otherwise);
    }

    private JinjaFor ParseFor()
    {
        var target = ParseTarget(withMember: false);
        _tokens.ExpectName("in");
        var items = _expressions.ParseTuple(withConditional: false);
        var filter = _tokens.TakeName("if") ? _expressions.Parse() : null;
        if (_tokens.IsName("recursive"))
        {
            throw _tokens.Fail("a recursive loop is not supported");
        }

        EndTag();
        var body = ParseUntil(["else", "endfor"]);
        var otherwise = new List<JinjaStatement>();
        if (_tokens.TakeName("else"))
        {
            EndTag();
            otherwise = ParseBody("endfor");
        }
        else
        {
            _tokens.ExpectName("endfor");
            EndTag();
        }

        return new JinjaFor(target, items, filter, body, otherwise);
    }

    private JinjaStatement ParseSet()
    {
        var target = ParseTarget(withMember: true);
        if (_tokens.TakeOperator("="))
        {
            var value = _expressions.ParseTuple();
            EndTag();
            return new JinjaSet(target, value);
        }

        var filter = ParseFilterChain();
        EndTag();
        return new JinjaSetBlock(target, filter, ParseBody("endset"));
    }

    private JinjaExpression? ParseFilterChain()
    {
        JinjaExpression? filter = null;
        while (_tokens.TakeOperator("|"))
        {
            filter = _expressions.ParseFilter(filter);
        }

        return filter;
    }

    private JinjaMacro ParseMacro()
    {
        var name = _tokens.ExpectName();
        var parameters = ParseParameters();
        EndTag();
        return new JinjaMacro(name, parameters, ParseBody("endmacro"));
    }

    private JinjaCallBlock ParseCall()
    {
        var parameters = _tokens.IsOperator("(") ? ParseParameters() : [];
        var call = _expressions.Parse() as JinjaCall ?? throw _tokens.Fail("a call block needs a call");
        EndTag();
        return new JinjaCallBlock(parameters, call, ParseBody("endcall"));
    }

    private List<JinjaParameter> ParseParameters()
    {
        var parameters = new List<JinjaParameter>();
        _tokens.ExpectOperator("(");
        while (!_tokens.IsOperator(")"))
        {
            if (parameters.Count > 0)
            {
                _tokens.ExpectOperator(",");
                if (_tokens.IsOperator(")"))
                {
                    break;
                }
            }

            var name = _tokens.ExpectName();
            var otherwise = _tokens.TakeOperator("=") ? _expressions.Parse() : null;
            if (otherwise is null && parameters is [.., { Default: not null }])
            {
                throw _tokens.Fail($"the parameter '{name}' has no default but stands behind one that has");
            }

            parameters.Add(new JinjaParameter(name, otherwise));
        }

        _tokens.Take();
        return parameters;
    }

    private JinjaFilterBlock ParseFilterBlock()
    {
        var filter = _expressions.ParseFilter(null);
        while (_tokens.TakeOperator("|"))
        {
            filter = _expressions.ParseFilter(filter);
        }

        EndTag();
        return new JinjaFilterBlock(filter, ParseBody("endfilter"));
    }

    private JinjaWith ParseWith()
    {
        var values = new List<(JinjaTarget, JinjaExpression)>();
        while (!_tokens.Is(JinjaTokenKind.BlockEnd))
        {
            if (values.Count > 0)
            {
                _tokens.ExpectOperator(",");
            }

            var target = new JinjaNameTarget(_tokens.ExpectName());
            _tokens.ExpectOperator("=");
            values.Add((target, _expressions.Parse()));
        }

        EndTag();
        return new JinjaWith(values, ParseBody("endwith"));
    }

    private JinjaTarget ParseTarget(bool withMember)
    {
        var targets = new List<JinjaTarget>();
        var isTuple = false;
        do
        {
            if (targets.Count > 0)
            {
                isTuple = true;
            }

            if (_tokens.TakeOperator("("))
            {
                targets.Add(_tokens.Nested(() => ParseTarget(withMember)));
                _tokens.ExpectOperator(")");
            }
            else
            {
                var name = _tokens.ExpectName();
                targets.Add(withMember && _tokens.TakeOperator(".")
                    ? new JinjaMemberTarget(name, _tokens.ExpectName())
                    : new JinjaNameTarget(name));
            }
        }
        while (_tokens.TakeOperator(","));

        return isTuple ? new JinjaTupleTarget(targets) : targets[0];
    }
}
