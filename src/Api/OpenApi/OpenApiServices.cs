using System.Text.Json.Nodes;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;

namespace TrainingService.Api.OpenApi;

/// <summary>The document at <c>/openapi/v1.json</c> and the page at <c>/swagger</c>.</summary>
internal static class OpenApiServices
{
    private const string Bearer = "bearer";

    public static void AddApiDescription(this IServiceCollection services)
    {
        services.AddHttpContextAccessor();
        services.AddScoped<SpecExamples>();
        services.AddOpenApi("v1", options =>
        {
            options.AddDocumentTransformer((document, _, _) =>
            {
                Describe(document);
                return Task.CompletedTask;
            });
            options.AddOperationTransformer(DescribeBody);
        });
    }

    public static void MapApiDescription(this WebApplication app)
    {
        app.MapOpenApi("/openapi/{documentName}.json");
        app.UseSwaggerUI(page =>
        {
            page.RoutePrefix = "swagger";
            page.DocumentTitle = "TrainingService API";
            page.SwaggerEndpoint("/openapi/v1.json", "TrainingService v1");
            page.DisplayRequestDuration();
            page.EnablePersistAuthorization();
        });
    }

    private static void Describe(OpenApiDocument document)
    {
        document.Info = new OpenApiInfo
        {
            Title = "TrainingService",
            Version = "v1",
            Description = "Fine-tuning of language models: upload data, register a base model, post a job, read its figures, fetch its "
                + "adapter and the spectra of its weights. OpenAI's clients work against /v1 as they are.",
        };

        // Relative: the page calls the address that it came from, whatever stands in between.
        document.Servers = [new OpenApiServer { Url = "/" }];
        document.Components ??= new OpenApiComponents();
        document.Components.SecuritySchemes ??= new Dictionary<string, IOpenApiSecurityScheme>();
        document.Components.SecuritySchemes[Bearer] = new OpenApiSecurityScheme
        {
            Type = SecuritySchemeType.Http,
            Scheme = Bearer,
            Description = "The service's key, where one is set.",
        };
        document.Security = [new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(Bearer, document)] = [] }];
        SpecSchemas.AddTo(document);
    }

    private static async Task DescribeBody(
        OpenApiOperation operation, OpenApiOperationTransformerContext context, CancellationToken cancellationToken)
    {
        var metadata = context.Description.ActionDescriptor.EndpointMetadata;
        if (metadata.OfType<FormBody>().SingleOrDefault() is { } form)
        {
            operation.RequestBody = Body("multipart/form-data", new OpenApiMediaType { Schema = SchemaOf(form) });
        }
        else if (metadata.OfType<SpecBody>().Select(body => (SpecBody?)body).SingleOrDefault() is { } body)
        {
            var examples = context.ApplicationServices.GetRequiredService<SpecExamples>();
            operation.RequestBody = Body("application/json", new OpenApiMediaType
            {
                Schema = new OpenApiSchemaReference(SpecSchemas.NameOf(body), context.Document),
                Example = await examples.ForAsync(body, cancellationToken),
            });
            if (body != SpecBody.Spec)
            {
                operation.Parameters ??= [];
                operation.Parameters.Add(new OpenApiParameter
                {
                    Name = "Idempotency-Key",
                    In = ParameterLocation.Header,
                    Description = "A name of your own for this request: sent again with the same body, it answers with the same job.",
                    Schema = new OpenApiSchema { Type = JsonSchemaType.String },
                });
            }
        }
    }

    private static OpenApiRequestBody Body(string contentType, OpenApiMediaType content) => new()
    {
        Required = true,
        Content = new Dictionary<string, OpenApiMediaType> { [contentType] = content },
    };

    private static OpenApiSchema SchemaOf(FormBody form) => new()
    {
        Type = JsonSchemaType.Object,
        Required = form.Fields.Where(field => field.Required).Select(field => field.Name).ToHashSet(),
        Properties = form.Fields.ToDictionary(field => field.Name, field => (IOpenApiSchema)new OpenApiSchema
        {
            Type = JsonSchemaType.String,
            Format = field.IsFile ? "binary" : null,
            Description = field.Description,
            Default = field.Example is null ? null : JsonValue.Create(field.Example),
        }),
    };
}
