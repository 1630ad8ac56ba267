using System.Diagnostics.CodeAnalysis;

namespace TrainingService.Training;

/// <summary>The JSON schema of a type that is written by a converter of its own.</summary>
/// <param name="schema">A JSON array of schemas, of which a value fits one.</param>
[AttributeUsage(AttributeTargets.Class)]
public sealed class WireFormAttribute([StringSyntax(StringSyntaxAttribute.Json)] string schema) : Attribute
{
    public string Schema { get; } = schema;
}
