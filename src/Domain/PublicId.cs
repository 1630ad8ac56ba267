using System.Diagnostics.CodeAnalysis;

namespace TrainingService.Domain;

/// <summary>Identifiers as clients see them: a prefix that tells the kind, and the row's key in 32 hexadecimal digits.</summary>
public static class PublicId
{
    public const string File = "file-";
    public const string Job = "ftjob-";
    public const string Event = "ftevent-";
    public const string Checkpoint = "ftckpt_";
    public const string Model = "mdl_";
    public const string Upload = "upload_";
    public const string UploadPart = "part_";

    public static string Of(string prefix, Guid id) => $"{prefix}{id:N}";

    /// <summary>Reads <paramref name="text"/> as an identifier of the kind <paramref name="prefix"/>.</summary>
    public static bool TryParse(string prefix, [NotNullWhen(true)] string? text, out Guid id)
    {
        id = Guid.Empty;
        return text is not null
            && text.StartsWith(prefix, StringComparison.Ordinal)
            && Guid.TryParseExact(text.AsSpan(prefix.Length), "N", out id);
    }
}
