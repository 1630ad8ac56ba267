namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Computes expressions.</summary>
internal sealed class JinjaEvaluator
{
    private readonly JinjaBudget _budget;
    private readonly JinjaFilters _filters;
    private readonly JinjaTests _tests;
    private readonly JinjaMethods _methods;

    public JinjaEvaluator(JinjaBudget budget, TimeProvider clock)
    {
        _budget = budget;
        Operators = new JinjaOperators(budget);
        Format = new JinjaFormat(budget);
        _tests = new JinjaTests(budget, Operators);
        _methods = new JinjaMethods(budget, Operators, Format);
        _filters = new JinjaFilters(budget, this, _tests, _methods);
        Globals = JinjaGlobals.Create(budget, Operators, Format, clock);
    }

    public JinjaOperators Operators { get; }

    public JinjaFormat Format { get; }

    public IReadOnlyDictionary<string, JinjaValue> Globals { get; }

    public JinjaValue Evaluate(JinjaExpression expression, JinjaScope scope)
    {
        _budget.Step();
        _budget.Enter();
        var value = expression switch
        {
            JinjaConstant constant => constant.Value,
            JinjaName name => scope.Find(name.Name) ?? new JinjaUndefined($"'{name.Name}'"),
            JinjaAttribute attribute => Attribute(Evaluate(attribute.Target, scope), attribute.Name),
            JinjaIndex index => Index(index, scope),
            JinjaCall call => Call(call, scope, caller: null),
            JinjaFilter filter => _filters.Apply(
                filter.Name, Evaluate(filter.Target ?? throw JinjaErrors.Run("a filter has no value"), scope), Arguments(filter.Arguments, scope)),
            JinjaTest test => JinjaBoolean.Of(_tests.Holds(test.Name, Evaluate(test.Target, scope), Arguments(test.Arguments, scope))),
            JinjaBinary binary => Binary(binary, scope),
            JinjaUnary { Operator: "not" } unary => JinjaBoolean.Of(!Evaluate(unary.Operand, scope).IsTrue),
            JinjaUnary unary => JinjaOperators.Signed(unary.Operator, Evaluate(unary.Operand, scope)),
            JinjaComparison comparison => Compare(comparison, scope),
            JinjaConditional conditional => Evaluate(conditional.Condition, scope).IsTrue
                ? Evaluate(conditional.Then, scope)
                : conditional.Otherwise is null ? new JinjaUndefined("the value of an if without else") : Evaluate(conditional.Otherwise, scope),
            JinjaListLiteral list => new JinjaList([.. list.Items.Select(item => Evaluate(item, scope))], list.IsTuple),
            JinjaDictionaryLiteral literal => Dictionary(literal, scope),
            JinjaSlice => throw JinjaErrors.Run("a slice stands where a value is needed"),
            _ => throw new InvalidOperationException($"The parser made a {expression.GetType().Name}."),
        };
        _budget.Leave();
        return value;
    }

    /// <summary>Calls a function, with the body of a call block as its <c>caller</c>.</summary>
    public JinjaValue Call(JinjaCall call, JinjaScope scope, JinjaFunction? caller)
    {
        var target = Evaluate(call.Target, scope);
        var arguments = Arguments(call.Arguments, scope);
        if (caller is not null)
        {
            arguments = arguments with { Named = new Dictionary<string, JinjaValue>(arguments.Named) { ["caller"] = caller } };
        }

        return target switch
        {
            JinjaFunction function => function.Call(arguments),
            JinjaUndefined undefined => throw undefined.Fail(),
            _ => throw JinjaErrors.Run($"a {target.TypeName} cannot be called"),
        };
    }

    /// <summary>Filters in a row, the innermost applied to a text that a block wrote.</summary>
    public JinjaValue ApplyFilterChain(JinjaExpression expression, JinjaValue text, JinjaScope scope)
    {
        if (expression is not JinjaFilter filter)
        {
            throw JinjaErrors.Run("a filter block holds something that is no filter");
        }

        _budget.Enter();
        var target = filter.Target is null ? text : ApplyFilterChain(filter.Target, text, scope);
        _budget.Leave();
        return _filters.Apply(filter.Name, target, Arguments(filter.Arguments, scope));
    }

    /// <summary><c>value.name</c>; undefined when there is no such member.</summary>
    public JinjaValue Attribute(JinjaValue target, string name) => target switch
    {
        JinjaUndefined undefined => throw undefined.Fail(),
        JinjaNamespace space => space.Members.GetValueOrDefault(name) ?? Missing(target, name),
        JinjaLoop loop => loop.Member(name) ?? Missing(target, name),
        _ => _methods.Find(target, name) ?? Operators.Item(target, new JinjaString(name)) ?? Missing(target, name),
    };

    /// <summary><c>value[index]</c>; undefined when there is no such item.</summary>
    public JinjaValue Subscript(JinjaValue target, JinjaValue index) => target switch
    {
        JinjaUndefined undefined => throw undefined.Fail(),
        _ => Operators.Item(target, index)
            ?? (index is JinjaString name ? Attribute(target, name.Value) : Missing(target, Format.Text(index))),
    };

    private static JinjaUndefined Missing(JinjaValue target, string name) => new($"'{name}' of a {target.TypeName}");

    private JinjaValue Index(JinjaIndex index, JinjaScope scope)
    {
        var target = Evaluate(index.Target, scope);
        if (index.Index is not JinjaSlice slice)
        {
            return Subscript(target, Evaluate(index.Index, scope));
        }

        long? Bound(JinjaExpression? bound) =>
            bound is null || Evaluate(bound, scope) is not { } value || value is JinjaNone ? null : JinjaOperators.Whole(value);

        return Operators.Slice(target, Bound(slice.Start), Bound(slice.Stop), Bound(slice.Step));
    }

    private JinjaValue Binary(JinjaBinary binary, JinjaScope scope)
    {
        var left = Evaluate(binary.Left, scope);
        switch (binary.Operator)
        {
            case "and":
                return left.IsTrue ? Evaluate(binary.Right, scope) : left;
            case "or":
                return left.IsTrue ? left : Evaluate(binary.Right, scope);
            case "~":
                var (first, second) = (Format.Text(left), Format.Text(Evaluate(binary.Right, scope)));
                _budget.Text((long)first.Length + second.Length);
                return new JinjaString(first + second);
            default:
                return Operators.Arithmetic(binary.Operator, left, Evaluate(binary.Right, scope));
        }
    }

    private JinjaBoolean Compare(JinjaComparison comparison, JinjaScope scope)
    {
        var left = Evaluate(comparison.First, scope);
        foreach (var (op, operand) in comparison.Rest)
        {
            var right = Evaluate(operand, scope);
            if (!Operators.Compare(op, left, right))
            {
                return JinjaBoolean.False;
            }

            left = right;
        }

        return JinjaBoolean.True;
    }

    private JinjaDictionary Dictionary(JinjaDictionaryLiteral literal, JinjaScope scope)
    {
        var dictionary = new JinjaDictionary();
        foreach (var (key, value) in literal.Entries)
        {
            dictionary.Set(Evaluate(key, scope), Evaluate(value, scope));
        }

        return dictionary;
    }

    private JinjaArguments Arguments(JinjaCallArguments arguments, JinjaScope scope)
    {
        if (arguments is { Positional.Count: 0, Named.Count: 0, Spread: null, NamedSpread: null })
        {
            return JinjaArguments.None;
        }

        var positional = arguments.Positional.Select(argument => Evaluate(argument, scope)).ToList();
        if (arguments.Spread is not null)
        {
            positional.AddRange(Operators.Iterate(Evaluate(arguments.Spread, scope)));
        }

        var named = new Dictionary<string, JinjaValue>(StringComparer.Ordinal);
        foreach (var (name, value) in arguments.Named)
        {
            named[name] = Evaluate(value, scope);
        }

        if (arguments.NamedSpread is not null)
        {
            var spread = Evaluate(arguments.NamedSpread, scope) as JinjaDictionary
                ?? throw JinjaErrors.Run("'**' needs a mapping");
            _budget.Items(spread.Entries.Count);
            foreach (var (key, value) in spread.Entries)
            {
                named[Format.Text(key)] = value;
            }
        }

        return new JinjaArguments(positional, named);
    }
}
