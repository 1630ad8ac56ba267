namespace TrainingService.Training.Tokenizers.Jinja;

internal enum JinjaTokenKind
{
    /// <summary>Text outside tags.</summary>
    Data,
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name,
    String,
    Integer,
    Float,
    Operator,
    End,
}

internal readonly record struct JinjaToken(JinjaTokenKind Kind, string Text, int Line);

/// <summary>Cuts a template into tokens, with white space as <c>trim_blocks</c> and <c>lstrip_blocks</c> leave it.</summary>
/// <remarks>
/// The rules of Jinja 3.1 as chat templates are run: the newline behind a block tag or comment goes, so does white space before one
/// that begins a line; <c>-</c> takes all white space, <c>+</c> keeps it; one newline at the template's end goes.
/// </remarks>
internal sealed class JinjaLexer
{
    private static readonly string[] Operators =
        ["**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";"];

    private readonly string _source;
    private readonly List<JinjaToken> _tokens = [];
    private int _position;
    private int _line = 1;
    private int _counted;

    private JinjaLexer(string source) => _source = source;

    public static List<JinjaToken> Read(string template)
    {
        var source = template.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n');
        source = source.EndsWith('\n') ? source[..^1] : source;
        var lexer = new JinjaLexer(source);
        lexer.ReadAll();
        return lexer._tokens;
    }

    private void ReadAll()
    {
        var lineStarts = true;   // whether the text before this point ended in a newline
        while (_position < _source.Length)
        {
            var tag = NextTag();
            var begin = tag < 0 ? _source.Length : tag;
            var text = _source[_position..begin];
            if (tag < 0)
            {
                Add(JinjaTokenKind.Data, text);
                break;
            }

            var kind = _source[tag + 1];
            var sign = tag + 2 < _source.Length ? _source[tag + 2] : ' ';
            Add(JinjaTokenKind.Data, Stripped(text, kind, sign, lineStarts));
            _position = tag + 2 + (sign is '-' or '+' ? 1 : 0);
            switch (kind)
            {
                case '#':
                    ReadComment();
                    break;
                case '%' when TryReadRaw():
                    break;
                case '%':
                    ReadTag(JinjaTokenKind.BlockBegin, JinjaTokenKind.BlockEnd, "%}");
                    break;
                default:
                    ReadTag(JinjaTokenKind.VariableBegin, JinjaTokenKind.VariableEnd, "}}");
                    break;
            }

            lineStarts = _position > 0 && _source[_position - 1] == '\n';
        }

        Add(JinjaTokenKind.End, "");
    }

    private int NextTag()
    {
        for (var i = _source.IndexOf('{', _position); i >= 0 && i + 1 < _source.Length; i = _source.IndexOf('{', i + 1))
        {
            if (_source[i + 1] is '{' or '%' or '#')
            {
                return i;
            }
        }

        return -1;
    }

    private static string Stripped(string text, char kind, char sign, bool lineStarts)
    {
        if (sign == '-')
        {
            return text.TrimEnd();
        }

        if (kind == '{' || sign == '+')
        {
            return text;
        }

        var line = text.LastIndexOf('\n') + 1;
        return (line > 0 || lineStarts) && string.IsNullOrWhiteSpace(text[line..]) ? text[..line] : text;
    }

    private void ReadComment()
    {
        var end = _source.IndexOf("#}", _position, StringComparison.Ordinal);
        if (end < 0)
        {
            throw Fail("a comment is not closed");
        }

        var sign = end > 0 ? _source[end - 1] : ' ';
        _position = end + 2;
        AfterTag(sign, trims: true);
    }

    /// <summary>Reads <c>{% raw %}…{% endraw %}</c>; the position stands behind the opening <c>{%</c>.</summary>
    private bool TryReadRaw()
    {
        var start = SkipWhite(_position);
        if (string.CompareOrdinal(_source, start, "raw", 0, 3) != 0)
        {
            return false;
        }

        var close = SkipWhite(start + 3);
        var sign = close < _source.Length && _source[close] is '-' or '+' ? _source[close] : ' ';
        close += sign == ' ' ? 0 : 1;
        if (string.CompareOrdinal(_source, close, "%}", 0, 2) != 0)
        {
            return false;
        }

        _position = close + 2;
        AfterTag(sign, trims: true);
        for (var i = _source.IndexOf("{%", _position, StringComparison.Ordinal); i >= 0; i = _source.IndexOf("{%", i + 2, StringComparison.Ordinal))
        {
            var endSign = i + 2 < _source.Length && _source[i + 2] is '-' or '+' ? _source[i + 2] : ' ';
            var name = SkipWhite(i + 2 + (endSign == ' ' ? 0 : 1));
            if (string.CompareOrdinal(_source, name, "endraw", 0, 6) != 0)
            {
                continue;
            }

            Add(JinjaTokenKind.Data, Stripped(_source[_position..i], '%', endSign, lineStarts: false));
            var end = _source.IndexOf("%}", name, StringComparison.Ordinal);
            if (end < 0)
            {
                break;
            }

            _position = end + 2;
            AfterTag(_source[end - 1], trims: true);
            return true;
        }

        throw Fail("a raw block is not closed");
    }

    private void ReadTag(JinjaTokenKind begin, JinjaTokenKind end, string closing)
    {
        Add(begin, "");
        var open = new Stack<char>();
        while (true)
        {
            _position = SkipWhite(_position);
            if (_position >= _source.Length)
            {
                throw Fail("a tag is not closed");
            }

            if (open.Count == 0 && ClosingSign(closing) is { } sign)
            {
                Add(end, "");
                _position += closing.Length + (sign == ' ' ? 0 : 1);
                AfterTag(sign, trims: end == JinjaTokenKind.BlockEnd);
                return;
            }

            ReadToken(open);
        }
    }

    /// <summary>The sign before the closing brackets that stand here, a space for none; null when they do not stand here.</summary>
    private char? ClosingSign(string closing)
    {
        if (string.CompareOrdinal(_source, _position, closing, 0, 2) == 0)
        {
            return ' ';
        }

        var sign = _source[_position];
        return sign is '-' or '+' && string.CompareOrdinal(_source, _position + 1, closing, 0, 2) == 0 && (sign == '-' || closing == "%}")
            ? sign
            : null;
    }

    private void ReadToken(Stack<char> open)
    {
        var first = _source[_position];
        if (char.IsAsciiDigit(first))
        {
            ReadNumber();
        }
        else if (first is '"' or '\'')
        {
            var text = JinjaLiterals.String(_source, ref _position) ?? throw Fail("a string is not closed, or has a broken escape");
            Add(JinjaTokenKind.String, text);
        }
        else if (char.IsLetter(first) || first == '_')
        {
            var end = _position;
            while (end < _source.Length && (char.IsLetterOrDigit(_source[end]) || _source[end] == '_'))
            {
                end++;
            }

            Add(JinjaTokenKind.Name, _source[_position..end]);
            _position = end;
        }
        else
        {
            var sign = Array.Find(Operators, op => string.CompareOrdinal(_source, _position, op, 0, op.Length) == 0)
                ?? throw Fail($"the character '{first}' has no meaning there");
            Balance(open, sign[0]);
            Add(JinjaTokenKind.Operator, sign);
            _position += sign.Length;
        }
    }

    private void Balance(Stack<char> open, char bracket)
    {
        switch (bracket)
        {
            case '(' or '[' or '{':
                open.Push(bracket);
                break;
            case ')' or ']' or '}':
                var expected = bracket switch { ')' => '(', ']' => '[', _ => '{' };
                if (!open.TryPop(out var opened) || opened != expected)
                {
                    throw Fail($"'{bracket}' closes nothing");
                }

                break;
            default:
                break;
        }
    }

    private void ReadNumber()
    {
        var end = _position;
        while (end < _source.Length && (char.IsAsciiDigit(_source[end]) || _source[end] == '_'))
        {
            end++;
        }

        var isFloat = end + 1 < _source.Length && _source[end] == '.' && char.IsAsciiDigit(_source[end + 1]);
        end = isFloat ? SkipDigits(end + 1) : end;
        if (end < _source.Length && _source[end] is 'e' or 'E')
        {
            var exponent = end + (end + 1 < _source.Length && _source[end + 1] is '+' or '-' ? 2 : 1);
            isFloat |= SkipDigits(exponent) > exponent;
            end = SkipDigits(exponent) > exponent ? SkipDigits(exponent) : end;
        }

        Add(isFloat ? JinjaTokenKind.Float : JinjaTokenKind.Integer, _source[_position..end].Replace("_", "", StringComparison.Ordinal));
        _position = end;
    }

    private void AfterTag(char sign, bool trims)
    {
        if (sign == '-')
        {
            _position = SkipWhite(_position);
        }
        else if (trims && sign != '+' && _position < _source.Length && _source[_position] == '\n')
        {
            _position++;
        }
    }

    private int SkipDigits(int position)
    {
        while (position < _source.Length && char.IsAsciiDigit(_source[position]))
        {
            position++;
        }

        return position;
    }

    private int SkipWhite(int position)
    {
        while (position < _source.Length && char.IsWhiteSpace(_source[position]))
        {
            position++;
        }

        return position;
    }

    private void Add(JinjaTokenKind kind, string text)
    {
        for (; _counted < _position && _counted < _source.Length; _counted++)
        {
            _line += _source[_counted] == '\n' ? 1 : 0;
        }

        if (kind != JinjaTokenKind.Data || text.Length > 0)
        {
            _tokens.Add(new JinjaToken(kind, text, _line));
        }
    }

    private TrainingException Fail(string what)
    {
        Add(JinjaTokenKind.Data, "");
        return JinjaErrors.Syntax(_line, what);
    }
}
