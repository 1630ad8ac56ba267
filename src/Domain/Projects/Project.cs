namespace TrainingService.Domain.Projects;

/// <summary>Whose rows these are. Every query names the project; a foreign row does not exist.</summary>
public sealed class Project
{
    /// <summary>The one project that is always there; the embedded profile knows no other.</summary>
    public static readonly Guid BuiltIn = Guid.Parse("00000000-0000-0000-0000-000000000001");

    public required Guid Id { get; init; }

    public required string Name { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }
}
