namespace TrainingService.Infrastructure.Hub;

/// <summary>Reads the access token from where the operator put it. It is kept nowhere.</summary>
internal static class HubToken
{
    private const int Longest = 1000;

    /// <returns>The token; null when none is set up.</returns>
    /// <exception cref="HubException">The place is set up and holds no token.</exception>
    public static async Task<string?> ReadAsync(HubOptions options, CancellationToken cancellationToken)
    {
        if (!string.IsNullOrEmpty(options.TokenFile))
        {
            return Check(await ReadFileAsync(options.TokenFile, cancellationToken), "file that Hub:TokenFile names");
        }

        return string.IsNullOrEmpty(options.TokenVariable)
            ? null
            : Check(Environment.GetEnvironmentVariable(options.TokenVariable) ?? "", "environment variable that Hub:TokenVariable names");
    }

    private static async Task<string> ReadFileAsync(string path, CancellationToken cancellationToken)
    {
        try
        {
            return await File.ReadAllTextAsync(path, cancellationToken);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HubException(HubFault.NotConfigured, "The file that Hub:TokenFile names cannot be read; the operator must put the token there.", e);
        }
    }

    /// <summary>Says what is wrong without a letter of what was found.</summary>
    private static string Check(string text, string place)
    {
        var token = text.Trim();
        return token.Length is > 0 and <= Longest && token.All(letter => letter is > ' ' and <= '~')
            ? token
            : throw new HubException(HubFault.NotConfigured, $"The {place} holds no access token; the operator must put it there.");
    }
}
