using System.Text;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>Names and their values; a name that is not here is looked for in the surrounding scope.</summary>
internal sealed class JinjaScope(JinjaScope? outer)
{
    private readonly Dictionary<string, JinjaValue> _values = new(StringComparer.Ordinal);

    public void Set(string name, JinjaValue value) => _values[name] = value;

    public JinjaValue? Find(string name)
    {
        for (var scope = this; scope is not null; scope = scope.Outer)
        {
            if (scope._values.TryGetValue(name, out var value))
            {
                return value;
            }
        }

        return null;
    }

    private JinjaScope? Outer => outer;
}

/// <summary>Runs a template's statements once.</summary>
internal sealed class JinjaInterpreter
{
    private readonly JinjaBudget _budget = new();
    private readonly JinjaEvaluator _evaluator;
    private readonly List<JinjaValue> _loopItems = [];
    private readonly List<JinjaSpan> _spans = [];
    private readonly StringBuilder _root = new();
    private StringBuilder _output;

    private JinjaInterpreter(TimeProvider clock)
    {
        _output = _root;
        _evaluator = new JinjaEvaluator(_budget, clock);
    }

    /// <summary>Renders a template.</summary>
    /// <param name="variables">What the template can see.</param>
    public static (string Text, IReadOnlyList<JinjaSpan> Generated) Render(
        IReadOnlyList<JinjaStatement> template, IReadOnlyDictionary<string, JinjaValue> variables, TimeProvider clock)
    {
        var interpreter = new JinjaInterpreter(clock);
        var globals = new JinjaScope(null);
        foreach (var (name, value) in interpreter._evaluator.Globals.Concat(variables))
        {
            globals.Set(name, value);
        }

        if (interpreter.Run(template, new JinjaScope(globals)) != Flow.Next)
        {
            throw JinjaErrors.Run("a break or continue stands outside a loop");
        }

        return (interpreter._root.ToString(), interpreter._spans);
    }

    private Flow Run(IReadOnlyList<JinjaStatement> statements, JinjaScope scope)
    {
        _budget.Enter();
        foreach (var statement in statements)
        {
            _budget.Step();
            var flow = Run(statement, scope);
            if (flow != Flow.Next)
            {
                _budget.Leave();
                return flow;
            }
        }

        _budget.Leave();
        return Flow.Next;
    }

    private Flow Run(JinjaStatement statement, JinjaScope scope)
    {
        switch (statement)
        {
            case JinjaText text:
                Write(text.Text);
                return Flow.Next;
            case JinjaOutput output:
                Write(_evaluator.Format.Text(_evaluator.Evaluate(output.Expression, scope)));
                return Flow.Next;
            case JinjaIf choice:
                foreach (var (condition, body) in choice.Branches)
                {
                    if (_evaluator.Evaluate(condition, scope).IsTrue)
                    {
                        return Run(body, scope);
                    }
                }

                return Run(choice.Otherwise, scope);
            case JinjaFor loop:
                return RunLoop(loop, scope);
            case JinjaSet set:
                Assign(set.Target, _evaluator.Evaluate(set.Value, scope), scope);
                return Flow.Next;
            case JinjaSetBlock block:
                Assign(block.Target, Filtered(block.Filter, Capture(block.Body, new JinjaScope(scope)), scope), scope);
                return Flow.Next;
            case JinjaMacro macro:
                scope.Set(macro.Name, Function(macro.Name, macro.Parameters, macro.Body, scope));
                return Flow.Next;
            case JinjaCallBlock block:
                var caller = Function("caller", block.Parameters, block.Body, scope);
                Write(_evaluator.Format.Text(_evaluator.Call(block.Call, scope, caller)));
                return Flow.Next;
            case JinjaFilterBlock block:
                Write(_evaluator.Format.Text(Filtered(block.Filter, Capture(block.Body, new JinjaScope(scope)), scope)));
                return Flow.Next;
            case JinjaWith with:
                var inner = new JinjaScope(scope);
                foreach (var (target, value) in with.Values)
                {
                    Assign(target, _evaluator.Evaluate(value, scope), inner);
                }

                return Run(with.Body, inner);
            case JinjaGeneration generation:
                return RunGeneration(generation, scope);
            case JinjaLoopControl control:
                return control.IsBreak ? Flow.Break : Flow.Continue;
            default:
                throw new InvalidOperationException($"The parser made a {statement.GetType().Name}.");
        }
    }

    private Flow RunLoop(JinjaFor loop, JinjaScope scope)
    {
        var items = _evaluator.Operators.Iterate(_evaluator.Evaluate(loop.Items, scope));
        if (loop.Filter is not null)
        {
            var kept = new List<JinjaValue>();
            foreach (var item in items)
            {
                _budget.Step();
                var candidate = new JinjaScope(scope);
                Assign(loop.Target, item, candidate);
                if (_evaluator.Evaluate(loop.Filter, candidate).IsTrue)
                {
                    kept.Add(item);
                }
            }

            items = kept;
        }

        if (items.Count == 0)
        {
            return Run(loop.Otherwise, new JinjaScope(scope));
        }

        for (var i = 0; i < items.Count; i++)
        {
            _budget.Step(2);   // a scope and a loop variable
            var inner = new JinjaScope(scope);   // a new one each time: what a loop sets is gone in the next turn
            inner.Set("loop", new JinjaLoop(items, i));
            Assign(loop.Target, items[i], inner);
            _loopItems.Add(items[i]);
            var flow = Run(loop.Body, inner);
            _loopItems.RemoveAt(_loopItems.Count - 1);
            if (flow == Flow.Break)
            {
                break;
            }
        }

        return Flow.Next;
    }

    private Flow RunGeneration(JinjaGeneration generation, JinjaScope scope)
    {
        if (_output != _root)
        {
            throw JinjaErrors.Run("a generation block stands inside a macro or another captured block, so its place in the text is not known");
        }

        var start = _root.Length;
        var flow = Run(generation.Body, new JinjaScope(scope));
        _spans.Add(new JinjaSpan(start, _root.Length - start, [.. _loopItems]));
        return flow;
    }

    private JinjaFunction Function(
        string name, IReadOnlyList<JinjaParameter> parameters, IReadOnlyList<JinjaStatement> body, JinjaScope definedIn) => new(name, arguments =>
    {
        var scope = new JinjaScope(definedIn);
        for (var i = 0; i < parameters.Count; i++)
        {
            var (parameter, otherwise) = parameters[i];
            var value = arguments.Get(i, parameter)
                ?? (otherwise is null ? new JinjaUndefined($"parameter '{parameter}'") : _evaluator.Evaluate(otherwise, scope));
            scope.Set(parameter, value);
        }

        scope.Set("varargs", new JinjaList([.. arguments.Positional.Skip(parameters.Count)], isTuple: true));
        var named = new JinjaDictionary();
        var taken = parameters.Skip(arguments.Positional.Count).Select(parameter => parameter.Name).ToHashSet(StringComparer.Ordinal);
        foreach (var (key, value) in arguments.Named.Where(entry => !taken.Contains(entry.Key)))
        {
            if (key == "caller")
            {
                scope.Set(key, value);
            }
            else
            {
                named.Set(key, value);
            }
        }

        scope.Set("kwargs", named);
        return Capture(body, scope);
    });

    private JinjaString Capture(IReadOnlyList<JinjaStatement> body, JinjaScope scope)
    {
        var before = _output;
        _output = new StringBuilder();
        if (Run(body, scope) != Flow.Next)
        {
            throw JinjaErrors.Run("a break or continue stands outside a loop");
        }

        var text = _output.ToString();
        _output = before;
        return new JinjaString(text);
    }

    private JinjaValue Filtered(JinjaExpression? filter, JinjaString text, JinjaScope scope) =>
        filter is null ? text : _evaluator.ApplyFilterChain(filter, text, scope);

    private void Assign(JinjaTarget target, JinjaValue value, JinjaScope scope)
    {
        switch (target)
        {
            case JinjaNameTarget name:
                scope.Set(name.Name, value);
                break;
            case JinjaMemberTarget member:
                if (scope.Find(member.Name) is not JinjaNamespace space)
                {
                    throw JinjaErrors.Run($"'{member.Name}.{member.Member}' cannot be set, for '{member.Name}' is no namespace");
                }

                space.Members[member.Member] = value;
                break;
            case JinjaTupleTarget tuple:
                var items = _evaluator.Operators.Iterate(value);
                if (items.Count != tuple.Targets.Count)
                {
                    throw JinjaErrors.Run($"{items.Count} values cannot be given to {tuple.Targets.Count} names");
                }

                for (var i = 0; i < items.Count; i++)
                {
                    Assign(tuple.Targets[i], items[i], scope);
                }

                break;
            default:
                throw new InvalidOperationException($"The parser made a {target.GetType().Name}.");
        }
    }

    private void Write(string text)
    {
        _budget.Text((long)_output.Length + text.Length > JinjaBudget.MaxText ? (long)_output.Length + text.Length : text.Length);
        _output.Append(text);
    }

    private enum Flow
    {
        Next,
        Continue,
        Break,
    }
}

/// <summary>Text that a generation block wrote, with the items of the loops it stood in, the innermost last.</summary>
internal sealed record JinjaSpan(int Start, int Length, IReadOnlyList<JinjaValue> LoopItems);

/// <summary>The variable <c>loop</c>.</summary>
internal sealed class JinjaLoop(IReadOnlyList<JinjaValue> items, int index) : JinjaValue
{
    public override string TypeName => "loop";

    public JinjaValue? Member(string name) => name switch
    {
        "index" => new JinjaInteger(index + 1),
        "index0" => new JinjaInteger(index),
        "revindex" => new JinjaInteger(items.Count - index),
        "revindex0" => new JinjaInteger(items.Count - index - 1),
        "first" => JinjaBoolean.Of(index == 0),
        "last" => JinjaBoolean.Of(index == items.Count - 1),
        "length" => new JinjaInteger(items.Count),
        "previtem" => index > 0 ? items[index - 1] : new JinjaUndefined("loop.previtem"),
        "nextitem" => index + 1 < items.Count ? items[index + 1] : new JinjaUndefined("loop.nextitem"),
        "cycle" => new JinjaFunction(name, arguments => arguments.Positional.Count > 0
            ? arguments.Positional[index % arguments.Positional.Count]
            : throw JinjaErrors.Run("loop.cycle needs values")),
        _ => null,
    };
}
