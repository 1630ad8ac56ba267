namespace TrainingService.Infrastructure.Storage;

/// <summary>The one rule of what a key may be, the same for every store.</summary>
internal static class StorageKey
{
    /// <summary>Returns the key, or refuses one that could leave its place: rooted, with empty, <c>.</c> or <c>..</c> parts, or odd characters.</summary>
    public static string Check(string key)
    {
        var parts = key.Split('/');
        if (key.Length is 0 or > 1000 || key.Contains('\\') || key.Any(char.IsControl) || parts.Any(part => part is "" or "." or ".."))
        {
            throw new ArgumentException($"'{key}' is not a storage key: write relative parts separated by '/'.", nameof(key));
        }

        return key;
    }
}
