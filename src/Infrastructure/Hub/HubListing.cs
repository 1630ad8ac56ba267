using System.Text.Json;
using System.Text.RegularExpressions;

namespace TrainingService.Infrastructure.Hub;

/// <summary>Reads what the hub says of a repository. Every member is hostile until shown otherwise.</summary>
internal static partial class HubListing
{
    private const int LongestPath = 500;

    private static readonly JsonDocumentOptions Strict = new() { MaxDepth = 32, AllowDuplicateProperties = false };

    /// <summary>The commit behind a revision.</summary>
    public static string Commit(ReadOnlyMemory<byte> json)
    {
        using var document = Parse(json);
        return Text(document.RootElement, "sha") is { } sha && CommitPattern().IsMatch(sha) ? sha : throw Broken("it names no commit");
    }

    /// <summary>The files of one page of a listing; folders and what lies in them is left out.</summary>
    /// <param name="entries">Entries of the page, whatever they are.</param>
    public static List<HubFile> Files(ReadOnlyMemory<byte> json, out int entries)
    {
        using var document = Parse(json);
        if (document.RootElement.ValueKind != JsonValueKind.Array)
        {
            throw Broken("its list of files is no list");
        }

        var files = new List<HubFile>();
        entries = document.RootElement.GetArrayLength();
        foreach (var entry in document.RootElement.EnumerateArray())
        {
            var path = CheckPath(Text(entry, "path"));
            if (Text(entry, "type") == "file" && !path.Contains('/', StringComparison.Ordinal))
            {
                files.Add(File(path, entry));
            }
        }

        return files;
    }

    public static HubException Broken(string what, Exception? inner = null) =>
        new(HubFault.Invalid, $"The hub's answer cannot be used: {what}.", inner);

    private static HubFile File(string path, JsonElement entry)
    {
        var isLarge = Member(entry, "lfs") is { ValueKind: not (JsonValueKind.Undefined or JsonValueKind.Null) };
        var described = isLarge ? Member(entry, "lfs") : entry;
        var oid = Text(described, "oid");
        var bytes = Member(described, "size") is { ValueKind: JsonValueKind.Number } size && size.TryGetInt64(out var number) && number >= 0
            ? number
            : throw Broken($"file {Quote(path)} has no size that a file can have");
        return (isLarge ? Sha256Pattern() : CommitPattern()).IsMatch(oid ?? "")
            ? new HubFile(path, bytes, isLarge ? oid![^64..] : null, isLarge ? null : oid)
            : throw Broken($"file {Quote(path)} has no hash");
    }

    private static string CheckPath(string? path) =>
        path is { Length: > 0 and <= LongestPath } && !path.StartsWith('/') && !path.Contains('\\', StringComparison.Ordinal)
        && !path.Any(char.IsControl) && !path.Split('/').Any(part => part is "" or "." or "..")
            ? path
            : throw Broken($"it lists a file as {Quote(path ?? "")}, which is no path inside a repository");

    private static JsonDocument Parse(ReadOnlyMemory<byte> json)
    {
        try
        {
            return JsonDocument.Parse(json, Strict);
        }
        catch (JsonException e)
        {
            throw Broken("it is not the JSON that was asked for", e);
        }
    }

    private static JsonElement Member(JsonElement json, string name) =>
        json.ValueKind == JsonValueKind.Object && json.TryGetProperty(name, out var value) ? value : default;

    private static string? Text(JsonElement json, string name)
    {
        try
        {
            return Member(json, name) is { ValueKind: JsonValueKind.String } value ? value.GetString() : null;
        }
        catch (InvalidOperationException e)
        {
            throw Broken($"'{name}' is no text", e);   // half of a surrogate pair
        }
    }

    /// <summary>A name for a message: printable, and not too long.</summary>
    internal static string Quote(string name)
    {
        var plain = string.Concat(name.Take(80).Select(letter => letter is >= ' ' and <= '~' ? letter : '?'));
        return name.Length > 80 ? $"'{plain}…'" : $"'{plain}'";
    }

    [GeneratedRegex(@"\A[0-9a-f]{40}\z")]
    private static partial Regex CommitPattern();

    [GeneratedRegex(@"\A(sha256:)?[0-9a-f]{64}\z")]
    private static partial Regex Sha256Pattern();
}
