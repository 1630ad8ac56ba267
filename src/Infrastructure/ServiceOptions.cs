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
    /// <summary>The root.</summary>
    public const string Section = "";

    /// <summary>Which implementations serve: <c>embedded</c> or <c>production</c>.</summary>
    public ServiceProfile Profile { get; init; } = ServiceProfile.Embedded;

    /// <summary>Folder of the SQLite file, of the artifacts on the embedded profile, and of the worker's cache.</summary>
    [Required(AllowEmptyStrings = false)]
    public string DataFolder { get; init; } = "data";

    /// <summary>Folder whose files are settings, such as <c>/run/secrets</c>: named like environment variables, they win over everything else; null: none.</summary>
    public string? SecretsFolder { get; init; }

    /// <summary><see cref="DataFolder"/> as a full path.</summary>
    public string DataPath => Path.GetFullPath(DataFolder);
}

/// <summary>Section <c>ConnectionStrings</c>: the database. It holds a password, so it prints nothing.</summary>
public sealed class DatabaseOptions
{
    public const string Section = "ConnectionStrings";

    /// <summary>Npgsql connection string; demanded by the production profile alone.</summary>
    public string? Postgres { get; init; }
}
