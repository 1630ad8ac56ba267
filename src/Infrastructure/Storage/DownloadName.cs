namespace TrainingService.Infrastructure.Storage;

/// <summary>The name that a browser saves a download under.</summary>
public static class DownloadName
{
    /// <summary>A Content-Disposition that carries any name safely: plain letters for old clients, and the exact name encoded (RFC 6266, RFC 8187).</summary>
    public static string Disposition(string name)
    {
        var printable = new string([.. name.Where(letter => !char.IsControl(letter))]);
        var plain = new string([.. printable.Select(letter => char.IsAsciiLetterOrDigit(letter) || letter is '.' or '-' or '_' or ' ' or '(' or ')' ? letter : '_')]);
        return $"attachment; filename=\"{plain}\"; filename*=UTF-8''{Uri.EscapeDataString(printable)}";
    }
}
