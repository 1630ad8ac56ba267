using System.Text.RegularExpressions;

namespace TrainingService.Infrastructure.Hub;

/// <summary>A model's name on the hub, such as <c>Qwen/Qwen2.5-0.5B</c>, and the branch, tag or commit that is meant.</summary>
public sealed partial record HubModelId
{
    /// <summary>The branch that counts when none is named.</summary>
    public const string MainRevision = "main";

    private HubModelId(string name, string revision)
    {
        Name = name;
        Revision = revision;
    }

    public string Name { get; }

    public string Revision { get; }

    /// <summary>Reads an id and a revision that are given apart.</summary>
    /// <exception cref="HubException">One of them cannot be a hub's; the message says which and why.</exception>
    public static HubModelId Of(string name, string? revision)
    {
        if (!IsName(name))
        {
            throw new HubException(HubFault.Invalid, "A hub id is written 'owner/name', in letters, digits, '.', '_' and '-', as on the model's page.");
        }

        var chosen = revision ?? MainRevision;
        return IsRevision(chosen)
            ? new HubModelId(name, chosen)
            : throw new HubException(HubFault.Invalid, "A revision is a branch, a tag or a commit: letters, digits, '.', '_', '-' and '/'.") { IsAboutRevision = true };
    }

    /// <summary>Reads <c>owner/name</c> or <c>owner/name@revision</c>; null when the text is neither.</summary>
    public static HubModelId? TryParse(string text)
    {
        var parts = text.Split('@', 2);
        var revision = parts.Length == 2 ? parts[1] : MainRevision;
        return parts[0].Contains('/', StringComparison.Ordinal) && IsName(parts[0]) && IsRevision(revision) ? new HubModelId(parts[0], revision) : null;
    }

    public override string ToString() => Revision == MainRevision ? Name : $"{Name}@{Revision}";

    private static bool IsName(string text) =>
        NamePattern().IsMatch(text) && !text.Contains("..", StringComparison.Ordinal) && !text.Contains("--", StringComparison.Ordinal);

    private static bool IsRevision(string text) =>
        RevisionPattern().IsMatch(text) && !text.Contains("..", StringComparison.Ordinal) && !text.Contains("//", StringComparison.Ordinal) && !text.EndsWith('/');

    [GeneratedRegex(@"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?\z")]
    private static partial Regex NamePattern();

    [GeneratedRegex(@"\A[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}\z")]
    private static partial Regex RevisionPattern();
}
