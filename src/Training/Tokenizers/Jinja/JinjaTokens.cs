namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>A template's tokens with a place in them, and how deep the parser has gone.</summary>
internal sealed class JinjaTokens(List<JinjaToken> tokens)
{
    // A parser calls itself for what is nested, about a dozen frames a level.
    private const int MaxDepth = 100;

    private int _position;
    private int _depth;

    public JinjaToken Current => tokens[_position];

    public JinjaToken Next => tokens[Math.Min(_position + 1, tokens.Count - 1)];

    public JinjaToken Take()
    {
        var token = tokens[_position];
        _position = Math.Min(_position + 1, tokens.Count - 1);
        return token;
    }

    public bool Is(JinjaTokenKind kind) => Current.Kind == kind;

    public bool IsOperator(string text) => Current.Kind == JinjaTokenKind.Operator && Current.Text == text;

    public bool IsName(string text) => Current.Kind == JinjaTokenKind.Name && Current.Text == text;

    public bool TakeOperator(string text) => IsOperator(text) && Take().Kind == JinjaTokenKind.Operator;

    public bool TakeName(string text) => IsName(text) && Take().Kind == JinjaTokenKind.Name;

    public void ExpectOperator(string text)
    {
        if (!TakeOperator(text))
        {
            throw Fail($"'{text}' is expected before {Describe()}");
        }
    }

    public void ExpectName(string text)
    {
        if (!TakeName(text))
        {
            throw Fail($"'{text}' is expected before {Describe()}");
        }
    }

    public string ExpectName() => Is(JinjaTokenKind.Name) ? Take().Text : throw Fail($"a name is expected before {Describe()}");

    public void Expect(JinjaTokenKind kind)
    {
        if (!Is(kind))
        {
            throw Fail($"the tag should end before {Describe()}");
        }

        Take();
    }

    /// <summary>Parses something nested.</summary>
    public T Nested<T>(Func<T> parse)
    {
        if (++_depth > MaxDepth)
        {
            throw Fail($"more than {MaxDepth} things are nested in each other");
        }

        var result = parse();
        _depth--;
        return result;
    }

    public TrainingException Fail(string what) => JinjaErrors.Syntax(Current.Line, what);

    public string Describe() => Current.Kind switch
    {
        JinjaTokenKind.End => "the end of the template",
        JinjaTokenKind.BlockEnd or JinjaTokenKind.VariableEnd => "the end of the tag",
        JinjaTokenKind.BlockBegin or JinjaTokenKind.VariableBegin => "the next tag",
        JinjaTokenKind.Data => "text",
        JinjaTokenKind.Name or JinjaTokenKind.String or JinjaTokenKind.Integer or JinjaTokenKind.Float or JinjaTokenKind.Operator =>
            $"'{Current.Text}'",
    };
}
