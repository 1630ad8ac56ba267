namespace TrainingService.Api.OpenApi;

/// <summary>One field of a multipart form.</summary>
internal sealed record FormField(string Name, string Description, bool IsFile = false, bool Required = false, string? Example = null);

/// <summary>The body of an operation is a form that the handler reads as it arrives.</summary>
internal sealed record FormBody(IReadOnlyList<FormField> Fields);

/// <summary>Which document the body of an operation is.</summary>
internal enum SpecBody
{
    /// <summary>A training spec.</summary>
    Spec,

    /// <summary>A training spec, with the job's labels beside its members.</summary>
    Job,

    /// <summary>OpenAI's body, with the parts of the spec beside its members.</summary>
    FineTuningJob,
}

/// <summary>Says what an operation takes where its parameters cannot.</summary>
internal static class RequestBodies
{
    public static RouteHandlerBuilder TakesForm(this RouteHandlerBuilder endpoint, params FormField[] fields) =>
        endpoint.WithMetadata(new FormBody(fields));

    public static RouteHandlerBuilder TakesSpec(this RouteHandlerBuilder endpoint, bool withLabels) =>
        endpoint.WithMetadata(withLabels ? SpecBody.Job : SpecBody.Spec);

    public static RouteHandlerBuilder TakesFineTuningJob(this RouteHandlerBuilder endpoint) =>
        endpoint.WithMetadata(SpecBody.FineTuningJob);
}
