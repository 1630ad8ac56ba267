using System.ComponentModel.DataAnnotations;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace TrainingService.Training;

/// <summary>Reads a document into records and reports everything that is wrong with it, not only the first thing.</summary>
/// <remarks>
/// It walks the serializer's own metadata beside the document, so that a member that a record gains is known here, in the schema and
/// on the wire at once. Rules come from the attributes of the members and from <see cref="IValidatableObject"/>; a rule across members
/// is not asked when one of the members that it names is at fault already.
/// </remarks>
internal sealed class SpecReader(JsonSerializerOptions options)
{
    private readonly List<SpecError> _errors = [];

    public IReadOnlyList<SpecError> Errors => _errors;

    /// <summary>Reads a document as <paramref name="type"/>.</summary>
    /// <returns>Null when there are errors.</returns>
    public object? Read(JsonElement document, Type type)
    {
        return SpecText.Inspect(document, "", 1, Add)
            && TryRead(document, options.GetTypeInfo(type), new SpecMember("", [], false, () => "it must be an object."), out var value)
            && _errors.Count == 0
                ? value
                : null;
    }

    private bool TryRead(JsonElement value, JsonTypeInfo type, SpecMember member, out object? result)
    {
        result = null;
        if (_errors.Count >= SpecJson.MaxErrors)
        {
            return false;
        }

        if (value.ValueKind == JsonValueKind.Null)
        {
            return member.IsNullable || Fail(member.Path, SpecErrorCodes.NullNotAllowed, $"must not be null; {member.InsteadOfNull()}");
        }

        return type.Kind switch
        {
            JsonTypeInfoKind.Object => TryReadObject(value, type, member.Path, out result),
            JsonTypeInfoKind.Enumerable => TryReadList(value, type, member, out result),
            JsonTypeInfoKind.Dictionary => TryReadMapping(value, type, member, out result),
            _ => SpecScalar.TryRead(value, type, member, Add, out result),
        };
    }

    private bool TryReadObject(JsonElement value, JsonTypeInfo declared, string path, out object? result)
    {
        result = null;
        if (value.ValueKind != JsonValueKind.Object)
        {
            return Fail(path, SpecErrorCodes.WrongKind, $"is {SpecScalar.Seen(value)}; it must be an object.");
        }

        var family = declared.PolymorphismOptions;
        var discriminator = family?.TypeDiscriminatorPropertyName;
        if (!TryFindType(value, declared, path, out var type))
        {
            return false;
        }

        var instance = type.CreateObject!();
        var known = type.Properties.ToDictionary(property => property.Name);
        var missing = known.Values.Where(property => property.IsRequired).Select(property => property.Name).ToHashSet();
        var complete = true;
        var seen = new HashSet<string>();
        foreach (var given in value.EnumerateObject())
        {
            if (given.Name == discriminator || !seen.Add(given.Name))
            {
                continue;
            }

            if (!known.TryGetValue(given.Name, out var property))
            {
                FailUnknown(given.Name, path, known.Keys.Append(discriminator).OfType<string>());
                continue;
            }

            missing.Remove(property.Name);
            if (TryRead(given.Value, options.GetTypeInfo(property.PropertyType), SpecMember.Of(property, path, instance), out var read))
            {
                property.Set!(instance, read);
            }
            else
            {
                complete &= !property.IsRequired;
            }
        }

        foreach (var name in missing)
        {
            Fail(SpecPath.Member(path, name), SpecErrorCodes.MissingRequired, "is missing; it is required.");
        }

        if (!complete || missing.Count > 0)
        {
            return false;
        }

        CheckTogether(instance, path);
        result = instance;
        return true;
    }

    /// <summary>The record that an object stands for: its declared type, or the member of the family that <c>type</c> names.</summary>
    private bool TryFindType(JsonElement value, JsonTypeInfo declared, string path, [NotNullWhen(true)] out JsonTypeInfo? type)
    {
        type = declared;
        if (declared.PolymorphismOptions is not { } family)
        {
            return true;
        }

        type = null;
        var names = family.DerivedTypes.ToDictionary(derived => (string)derived.TypeDiscriminator!, derived => derived.DerivedType);
        var typePath = SpecPath.Member(path, family.TypeDiscriminatorPropertyName);
        var list = string.Join(", ", names.Keys);
        if (!value.TryGetProperty(family.TypeDiscriminatorPropertyName, out var given))
        {
            return Fail(typePath, SpecErrorCodes.MissingRequired, $"is missing; choose one of {list}.");
        }

        if (given.ValueKind != JsonValueKind.String)
        {
            return Fail(typePath, SpecErrorCodes.WrongKind, $"is {SpecScalar.Seen(given)}; choose one of {list}.");
        }

        var name = given.GetString()!;
        if (!names.TryGetValue(name, out var derived))
        {
            return Fail(
                typePath, SpecErrorCodes.UnknownType, $"is {SpecScalar.Seen(given)}, which does not exist; {DidYouMean(name, names.Keys)}choose one of {list}.");
        }

        type = options.GetTypeInfo(derived);
        return true;
    }

    private bool TryReadList(JsonElement value, JsonTypeInfo type, SpecMember member, out object? result)
    {
        result = null;
        if (value.ValueKind != JsonValueKind.Array)
        {
            return Fail(member.Path, SpecErrorCodes.WrongKind, $"is {SpecScalar.Seen(value)}; it must be a list.");
        }

        var length = value.GetArrayLength();
        if (member.Rule<LengthAttribute>() is { } bounds && (length < bounds.MinimumLength || length > bounds.MaximumLength))
        {
            var wanted = bounds.MinimumLength == bounds.MaximumLength ? $"{bounds.MinimumLength}" : $"from {bounds.MinimumLength} to {bounds.MaximumLength}";
            return Fail(member.Path, SpecErrorCodes.OutOfRange, $"has {length} items; it must have {wanted}.");
        }

        var elementType = options.GetTypeInfo(type.ElementType!);
        var items = Array.CreateInstance(elementType.Type, length);
        var complete = true;
        var index = 0;
        foreach (var item in value.EnumerateArray())
        {
            if (TryRead(item, elementType, member.Item(SpecPath.Item(member.Path, index)), out var read))
            {
                items.SetValue(read, index);
            }
            else
            {
                complete = false;
            }

            index++;
        }

        result = items;
        return complete;
    }

    private bool TryReadMapping(JsonElement value, JsonTypeInfo type, SpecMember member, out object? result)
    {
        result = null;
        if (value.ValueKind != JsonValueKind.Object)
        {
            return Fail(member.Path, SpecErrorCodes.WrongKind, $"is {SpecScalar.Seen(value)}; it must be an object of names and values.");
        }

        var valueType = options.GetTypeInfo(type.ElementType!);
        var mapping = (System.Collections.IDictionary)Activator.CreateInstance(typeof(Dictionary<,>).MakeGenericType(typeof(string), valueType.Type))!;
        var complete = true;
        foreach (var entry in value.EnumerateObject())
        {
            if (TryRead(entry.Value, valueType, member.Item(SpecPath.Member(member.Path, entry.Name)), out var read))
            {
                mapping[entry.Name] = read;
            }
            else
            {
                complete = false;
            }
        }

        result = mapping;
        return complete;
    }

    private void CheckTogether(object instance, string path)
    {
        if (instance is not IValidatableObject rules)
        {
            return;
        }

        foreach (var broken in rules.Validate(new ValidationContext(instance)))
        {
            var paths = broken.MemberNames.Select(name => WirePath(path, name)).ToList();
            if (!paths.Exists(involved => _errors.Exists(error => SpecPath.IsWithin(error.Path, involved))))
            {
                Fail(paths[0], SpecErrorCodes.Conflict, broken.ErrorMessage!);
            }
        }
    }

    /// <summary>Turns a member as C# writes it (<c>Evaluation.Metrics</c>, <c>RankPattern["q.*"]</c>) into a path.</summary>
    private string WirePath(string path, string member)
    {
        var key = member.IndexOf('[', StringComparison.Ordinal);
        var names = (key < 0 ? member : member[..key]).Split('.');
        return names.Aggregate(path, (parent, name) => SpecPath.Member(parent, options.PropertyNamingPolicy!.ConvertName(name)))
            + (key < 0 ? "" : member[key..]);
    }

    private void FailUnknown(string name, string path, IEnumerable<string> known)
    {
        var members = known.ToList();
        var near = NearestName.Of(name, members);
        var advice = near is not null ? $"did you mean {near}?"
            : SpecJson.PathsByName.TryGetValue(name, out var elsewhere) ? $"it belongs at {elsewhere}."
            : $"known here: {string.Join(", ", members)}.";
        Fail(SpecPath.Member(path, name), SpecErrorCodes.UnknownMember, $"is not known; {advice}");
    }

    private static string DidYouMean(string name, IEnumerable<string> known) =>
        NearestName.Of(name, known) is { } near ? $"did you mean {near}? Or " : "";

    private bool Fail(string path, string code, string predicate)
    {
        Add(new SpecError(path, $"{SpecPath.Spoken(path)} {predicate}", code));
        return false;
    }

    private void Add(SpecError error)
    {
        if (_errors.Count < SpecJson.MaxErrors)
        {
            _errors.Add(error);
        }
    }
}

/// <summary>A place in a document and what its declaration says of it.</summary>
/// <param name="InsteadOfNull">Says what to write instead of null.</param>
internal sealed record SpecMember(string Path, IReadOnlyList<ValidationAttribute> Rules, bool IsNullable, Func<string> InsteadOfNull)
{
    public static SpecMember Of(JsonPropertyInfo property, string parent, object defaults)
    {
        var rules = property.AttributeProvider!.GetCustomAttributes(typeof(ValidationAttribute), true).Cast<ValidationAttribute>().ToList();
        return new(
            SpecPath.Member(parent, property.Name),
            rules,
            property.IsSetNullable,
            () => property.IsRequired ? "it is required." : $"leave it out for its default, {Written(property.Get!(defaults), property.PropertyType)}.");
    }

    public T? Rule<T>()
        where T : ValidationAttribute => Rules.OfType<T>().FirstOrDefault();

    /// <summary>An item of this list, or a value of this mapping.</summary>
    public SpecMember Item(string path)
    {
        var rules = new List<ValidationAttribute>();
        if (Rule<ItemRangeAttribute>() is { } range)
        {
            rules.Add(range.OfOne);
        }

        if (Rule<AllowedItemsAttribute>() is { } allowed)
        {
            rules.Add(new AllowedValuesAttribute([.. allowed.Values]));
        }

        return new(path, rules, false, () => "leave it out.");
    }

    private static string Written(object? value, Type type) => JsonSerializer.Serialize(value, type, SpecJson.Compact);
}
