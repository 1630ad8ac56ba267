namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>An expression of a template.</summary>
internal abstract record JinjaExpression;

internal sealed record JinjaConstant(JinjaValue Value) : JinjaExpression;

internal sealed record JinjaName(string Name) : JinjaExpression;

internal sealed record JinjaListLiteral(IReadOnlyList<JinjaExpression> Items, bool IsTuple) : JinjaExpression;

internal sealed record JinjaDictionaryLiteral(IReadOnlyList<(JinjaExpression Key, JinjaExpression Value)> Entries) : JinjaExpression;

/// <summary><c>target.name</c>: a method or attribute first, then an item.</summary>
internal sealed record JinjaAttribute(JinjaExpression Target, string Name) : JinjaExpression;

/// <summary><c>target[index]</c>: an item first, then an attribute.</summary>
internal sealed record JinjaIndex(JinjaExpression Target, JinjaExpression Index) : JinjaExpression;

internal sealed record JinjaSlice(JinjaExpression? Start, JinjaExpression? Stop, JinjaExpression? Step) : JinjaExpression;

internal sealed record JinjaCallArguments(
    IReadOnlyList<JinjaExpression> Positional,
    IReadOnlyList<(string Name, JinjaExpression Value)> Named,
    JinjaExpression? Spread,
    JinjaExpression? NamedSpread);

internal sealed record JinjaCall(JinjaExpression Target, JinjaCallArguments Arguments) : JinjaExpression;

internal sealed record JinjaFilter(JinjaExpression? Target, string Name, JinjaCallArguments Arguments) : JinjaExpression;

internal sealed record JinjaTest(JinjaExpression Target, string Name, JinjaCallArguments Arguments) : JinjaExpression;

internal sealed record JinjaUnary(string Operator, JinjaExpression Operand) : JinjaExpression;

internal sealed record JinjaBinary(string Operator, JinjaExpression Left, JinjaExpression Right) : JinjaExpression;

/// <summary><c>a &lt; b &lt;= c</c>; each operand is computed once.</summary>
internal sealed record JinjaComparison(JinjaExpression First, IReadOnlyList<(string Operator, JinjaExpression Operand)> Rest) : JinjaExpression;

internal sealed record JinjaConditional(JinjaExpression Condition, JinjaExpression Then, JinjaExpression? Otherwise) : JinjaExpression;

/// <summary>A statement of a template.</summary>
internal abstract record JinjaStatement;

internal sealed record JinjaText(string Text) : JinjaStatement;

internal sealed record JinjaOutput(JinjaExpression Expression) : JinjaStatement;

internal sealed record JinjaIf(
    IReadOnlyList<(JinjaExpression Condition, IReadOnlyList<JinjaStatement> Body)> Branches, IReadOnlyList<JinjaStatement> Otherwise)
    : JinjaStatement;

internal sealed record JinjaFor(
    JinjaTarget Target,
    JinjaExpression Items,
    JinjaExpression? Filter,
    IReadOnlyList<JinjaStatement> Body,
    IReadOnlyList<JinjaStatement> Otherwise) : JinjaStatement;

internal sealed record JinjaSet(JinjaTarget Target, JinjaExpression Value) : JinjaStatement;

/// <summary><c>{% set name %}…{% endset %}</c>, perhaps through a filter.</summary>
internal sealed record JinjaSetBlock(JinjaTarget Target, JinjaExpression? Filter, IReadOnlyList<JinjaStatement> Body) : JinjaStatement;

internal sealed record JinjaParameter(string Name, JinjaExpression? Default);

internal sealed record JinjaMacro(string Name, IReadOnlyList<JinjaParameter> Parameters, IReadOnlyList<JinjaStatement> Body) : JinjaStatement;

/// <summary><c>{% call macro(…) %}…{% endcall %}</c>: the macro reaches the body as <c>caller()</c>.</summary>
internal sealed record JinjaCallBlock(
    IReadOnlyList<JinjaParameter> Parameters, JinjaCall Call, IReadOnlyList<JinjaStatement> Body) : JinjaStatement;

internal sealed record JinjaFilterBlock(JinjaExpression Filter, IReadOnlyList<JinjaStatement> Body) : JinjaStatement;

internal sealed record JinjaWith(IReadOnlyList<(JinjaTarget Target, JinjaExpression Value)> Values, IReadOnlyList<JinjaStatement> Body)
    : JinjaStatement;

/// <summary>Marks what an assistant says.</summary>
internal sealed record JinjaGeneration(IReadOnlyList<JinjaStatement> Body) : JinjaStatement;

internal sealed record JinjaLoopControl(bool IsBreak) : JinjaStatement;

/// <summary>What a value is assigned to.</summary>
internal abstract record JinjaTarget;

internal sealed record JinjaNameTarget(string Name) : JinjaTarget;

internal sealed record JinjaMemberTarget(string Name, string Member) : JinjaTarget;

internal sealed record JinjaTupleTarget(IReadOnlyList<JinjaTarget> Targets) : JinjaTarget;
