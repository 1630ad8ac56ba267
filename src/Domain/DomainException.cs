namespace TrainingService.Domain;

/// <summary>A broken rule of the domain, with a stable code.</summary>
/// <param name="code">Stable code, such as <c>job.invalid_transition</c>.</param>
public class DomainException(string code, string message) : Exception(message)
{
    public string Code { get; } = code;
}
