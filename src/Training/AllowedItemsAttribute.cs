using System.ComponentModel.DataAnnotations;

namespace TrainingService.Training;

/// <summary>The texts that a list may hold.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class AllowedItemsAttribute(params string[] values) : ValidationAttribute
{
    public IReadOnlyList<string> Values { get; } = values;

    public override bool IsValid(object? value) =>
        value is null || (value is IEnumerable<string> items && items.All(Values.Contains));
}
