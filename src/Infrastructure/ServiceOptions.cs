using System.ComponentModel.DataAnnotations;

namespace TrainingService.Infrastructure;

/// <summary>Which implementations serve.</summary>
public enum ServiceProfile
{
    /// <summary>SQLite, Hangfire in memory, a folder: nothing to install, one process.</summary>
    Embedded,

    /// <summary>Postgres, Hangfire on Postgres, S3: any number of workers.</summary>
    Production,
}

/// <summary>What every part of a deployment shares: the root of the configuration.</summary>
public sealed record ServiceOptions
{
    public ServiceProfile Profile { get; init; } = ServiceProfile.Embedded;

    /// <summary>Folder of the SQLite file, of the artifacts on the embedded profile, and of the worker's cache.</summary>
    [Required(AllowEmptyStrings = false)]
    public string DataFolder { get; init; } = "data";

    /// <summary><see cref="DataFolder"/> as a full path.</summary>
    public string DataPath => Path.GetFullPath(DataFolder);
}

/// <summary>Section <c>ConnectionStrings</c>. It holds a password, so it prints nothing.</summary>
public sealed class DatabaseOptions
{
    /// <summary>Npgsql connection string; demanded by the production profile alone.</summary>
    public string? Postgres { get; init; }
}
