namespace TrainingService.Infrastructure.Hub;

/// <summary>What is in the way, and so who can change it.</summary>
public enum HubFault
{
    /// <summary>The operator has switched the hub off, or has set it up wrongly.</summary>
    NotConfigured,

    /// <summary>The hub has no such model, revision or file, or does not tell strangers of it.</summary>
    NotFound,

    /// <summary>The hub knows the model and does not give it to us.</summary>
    Denied,

    /// <summary>The repository, or what the hub says of it, cannot be used.</summary>
    Invalid,

    /// <summary>More files or bytes than the operator allows.</summary>
    TooLarge,

    /// <summary>The hub, or the way to it, fails at the moment.</summary>
    Unreachable,

    /// <summary>The disk that should take the files is full.</summary>
    DiskFull,
}

/// <summary>A model cannot be had from the hub. The message is for its user; it holds no token and no signed address.</summary>
public sealed class HubException(HubFault fault, string message, Exception? inner = null) : Exception(message, inner)
{
    public HubFault Fault { get; } = fault;

    /// <summary>Whether the revision is at fault rather than the model's id.</summary>
    public bool IsAboutRevision { get; init; }

    /// <summary>How long the hub asks us to wait.</summary>
    internal TimeSpan? RetryAfter { get; init; }

    /// <summary>Whether what came differs from what the hub had announced: worth one more try and no second.</summary>
    internal bool IsMismatch { get; init; }
}
