using Microsoft.Extensions.Configuration;

namespace TrainingService.Infrastructure;

/// <summary>Settings as files, which is how orchestrators hand out secrets: nobody reads them from a process list or an inspection.</summary>
public static class SecretFiles
{
    /// <summary>
    /// Adds the files of <see cref="ServiceOptions.SecretsFolder"/>, if it is set: a file's name is a setting with <c>__</c> between its parts
    /// (<c>S3__SecretKey</c>), its content the value. They win over every other source.
    /// </summary>
    public static void AddSecretFiles(this IConfigurationManager configuration)
    {
        if (configuration[nameof(ServiceOptions.SecretsFolder)] is { Length: > 0 } folder)
        {
            configuration.AddKeyPerFile(Path.GetFullPath(folder), optional: false);
        }
    }
}
