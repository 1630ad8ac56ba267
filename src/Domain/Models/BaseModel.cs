namespace TrainingService.Domain.Models;

/// <summary>Where the files of a base model lie.</summary>
public enum ModelSource
{
    /// <summary>A folder that the workers reach by path.</summary>
    LocalPath,

    /// <summary>Files in the artifact store under <see cref="BaseModel.Location"/>, unpacked from an uploaded archive.</summary>
    Stored,

    /// <summary>A repository on a model hub at one commit: its small files are stored, its weights are fetched where they are needed.</summary>
    Hub,
}

/// <summary>A registered base model: a Hugging Face folder.</summary>
public sealed class BaseModel
{
    public required Guid Id { get; init; }

    public required Guid ProjectId { get; init; }

    /// <summary>Name that clients may use instead of the id; unique within the project.</summary>
    public required string Name { get; init; }

    public required ModelSource Source { get; init; }

    /// <summary>Folder, or key prefix in the artifact store.</summary>
    public required string Location { get; init; }

    /// <summary><c>config.json</c>, as registered: the API needs no file to estimate a job or to check a rank.</summary>
    public required string ConfigJson { get; init; }

    /// <summary>
    /// The files: path, bytes and sha256 of each, and whether it is fetched from the hub, as a JSON array. The worker's cache trusts
    /// nothing else.
    /// </summary>
    public required string FilesJson { get; init; }

    /// <summary>Id on the hub, such as <c>org/name</c>; null for a model of another source.</summary>
    public string? HubId { get; init; }

    /// <summary>Branch, tag or commit that was asked for.</summary>
    public string? HubRevision { get; init; }

    /// <summary>The commit that the revision stood for when the model was registered. Nothing else is ever fetched.</summary>
    public string? HubCommit { get; init; }

    public required long Bytes { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }
}
