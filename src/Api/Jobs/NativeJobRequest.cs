using System.Text.Json;
using TrainingService.Api.Http;

namespace TrainingService.Api.Jobs;

/// <summary>A job in the native dialect: the training spec, with the job's labels beside its members.</summary>
internal static class NativeJobRequest
{
    public static JobRequest Read(JsonElement body)
    {
        var errors = new List<ErrorDetail>();
        var labels = JobLabels.Read(body, errors);
        return new JobRequest(SpecOf(body), body, labels, errors, path => path);
    }

    private static JsonElement SpecOf(JsonElement body) => body.ValueKind != JsonValueKind.Object
        ? body
        : JsonSerializer.SerializeToElement(
            body.EnumerateObject().Where(member => !JobLabels.Names.Contains(member.Name)).ToDictionary(member => member.Name, member => member.Value));
}
