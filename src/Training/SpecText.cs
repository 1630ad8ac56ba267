using System.Text.Json;

namespace TrainingService.Training;

/// <summary>Checks of a JSON document that come before its meaning: depth, text that is Unicode, no member twice.</summary>
internal static class SpecText
{
    /// <summary>The deepest spec has five levels.</summary>
    public const int MaxDepth = 64;

    /// <summary>Reports what is wrong below <paramref name="value"/>.</summary>
    /// <returns>False if the document must not be read further: names or texts in it cannot be decoded.</returns>
    public static bool Inspect(JsonElement value, string path, int depth, Action<SpecError> report)
    {
        if (depth > MaxDepth)
        {
            report(new SpecError(path, $"{SpecPath.Spoken(path)} is nested more than {MaxDepth} levels deep.", SpecErrorCodes.MalformedJson));
            return false;
        }

        switch (value.ValueKind)
        {
            case JsonValueKind.String when Decode(value) is null:
                report(Undecodable(path));
                return false;
            case JsonValueKind.Array:
                var index = 0;
                return value.EnumerateArray().All(item => Inspect(item, SpecPath.Item(path, index++), depth + 1, report));
            case JsonValueKind.Object:
                return InspectMembers(value, path, depth, report);
            default:
                return true;
        }
    }

    private static bool InspectMembers(JsonElement value, string path, int depth, Action<SpecError> report)
    {
        var seen = new HashSet<string>();
        foreach (var member in value.EnumerateObject())
        {
            if (NameOf(member) is not { } name)
            {
                report(Undecodable(path));
                return false;
            }

            var memberPath = SpecPath.Member(path, name);
            if (!seen.Add(name))
            {
                report(new SpecError(
                    memberPath, $"{memberPath} is given more than once; keep one of them.", SpecErrorCodes.DuplicateMember));
            }

            if (!Inspect(member.Value, memberPath, depth + 1, report))
            {
                return false;
            }
        }

        return true;
    }

    private static SpecError Undecodable(string path) => new(
        path, $"{SpecPath.Spoken(path)} holds half of a surrogate pair, or a NUL; write text as valid Unicode.", SpecErrorCodes.MalformedJson);

    private static string? Decode(JsonElement text)
    {
        try
        {
            return Usable(text.GetString());
        }
        catch (InvalidOperationException)   // an escaped half of a surrogate pair
        {
            return null;
        }
    }

    private static string? NameOf(JsonProperty member)
    {
        try
        {
            return Usable(member.Name);
        }
        catch (InvalidOperationException)   // an escaped half of a surrogate pair
        {
            return null;
        }
    }

    private static string? Usable(string? text) => text?.Contains('\0') == false ? text : null;
}
