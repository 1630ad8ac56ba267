using TrainingService.Domain.Projects;

namespace TrainingService.Api;

/// <summary>Whose request it is. Every query names the project, so a foreign row and a missing row are the same.</summary>
internal sealed record Caller(Guid ProjectId)
{
    /// <summary>Shown as owner of models and as organization of jobs.</summary>
    public string ProjectName { get; } = "default";

    /// <summary>The authenticated caller: one built-in project.</summary>
    public static ValueTask<Caller> BindAsync(HttpContext context) => ValueTask.FromResult(new Caller(Project.BuiltIn));
}
