using System.Text;
using TrainingService.Api.Http;

namespace TrainingService.Api.Models;

/// <summary>Turns the names in an archive into places below a folder. What would lie elsewhere, or over something else, is refused.</summary>
internal sealed class ArchiveNames(string folder)
{
    private const int LongestName = 500;
    private const int LongestPart = 255;   // bytes that a file system takes

    // Names that differ in case alone are one file on some systems, and a trap on the others.
    private readonly HashSet<string> _files = new(StringComparer.OrdinalIgnoreCase);
    private readonly HashSet<string> _folders = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>Where an entry goes.</summary>
    public string PlaceOf(string name)
    {
        var parts = name.Split('/').Where(part => part is not ("" or ".")).ToArray();
        if (parts.Length == 0 || name.Length > LongestName || name.StartsWith('/') || name.AsSpan().ContainsAny('\\', ':')
            || name.Any(char.IsControl) || name.Any(char.IsSurrogate) || parts.Contains("..")
            || parts.Any(part => Encoding.UTF8.GetByteCount(part) > LongestPart))
        {
            throw ModelArchive.Refuse($"The archive's entry '{Shown(name)}' would leave the model's folder, or is no name of a file");
        }

        for (var length = 1; length < parts.Length; length++)
        {
            var above = string.Join('/', parts[..length]);
            _folders.Add(above);
            if (_files.Contains(above))
            {
                throw Twice(name);
            }
        }

        var place = string.Join('/', parts);
        return _files.Add(place) && !_folders.Contains(place) ? Path.Combine([folder, .. parts]) : throw Twice(name);
    }

    /// <summary>A name fit for a message.</summary>
    public static string Shown(string name)
    {
        const int most = 100;
        var plain = string.Concat(name.Take(most).Select(letter => char.IsControl(letter) || char.IsSurrogate(letter) ? '?' : letter));
        return name.Length > most ? plain + "…" : plain;
    }

    private static RequestException Twice(string name) => ModelArchive.Refuse($"The archive holds '{Shown(name)}' twice, or once as a file and once as a folder");
}
