using System.Collections;
using System.ComponentModel.DataAnnotations;

namespace TrainingService.Training;

/// <summary>Bounds of each number in a list, or of each value of a mapping.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class ItemRangeAttribute(double minimum, double maximum) : ValidationAttribute
{
    public double Minimum { get; } = minimum;

    public double Maximum { get; } = maximum;

    public bool MaximumIsExclusive { get; init; }

    /// <summary>The same bounds, for one number.</summary>
    public RangeAttribute OfOne => new(Minimum, Maximum) { MaximumIsExclusive = MaximumIsExclusive };

    public override bool IsValid(object? value) => value switch
    {
        null => true,
        IDictionary mapping => mapping.Values.Cast<object>().All(OfOne.IsValid),
        IEnumerable items => items.Cast<object>().All(OfOne.IsValid),
        _ => false,
    };
}
