using System.Text.Json.Nodes;
using Microsoft.OpenApi;
using Microsoft.OpenApi.Reader;
using TrainingService.Api.FineTuning;
using TrainingService.Training;

namespace TrainingService.Api.OpenApi;

/// <summary>The schema of the training spec, as the engine publishes it, in the words of the document.</summary>
internal static class SpecSchemas
{
    public const string Spec = "TrainingSpec";
    public const string Job = "TrainingSpecWithLabels";
    public const string FineTuningJob = "FineTuningJobRequest";

    public static string NameOf(SpecBody body) => body switch
    {
        SpecBody.Spec => Spec,
        SpecBody.Job => Job,
        SpecBody.FineTuningJob => FineTuningJob,
    };

    public static void AddTo(OpenApiDocument document)
    {
        document.AddComponent(Spec, Parse(SpecJson.SchemaOf(typeof(TrainingSpec)), document));
        document.AddComponent(Job, Parse(WithLabels(), document));
        document.AddComponent(FineTuningJob, Parse(Compatible(), document));
    }

    private static JsonObject WithLabels()
    {
        var schema = SpecJson.SchemaOf(typeof(TrainingSpec));
        AddLabels(schema["properties"]!.AsObject());
        return schema;
    }

    private static void AddLabels(JsonObject members)
    {
        members["suffix"] = Member("Part of the name of the result: 1 to 64 letters, digits, '-', '_' or '.'.", "string", "null");
        members["metadata"] = Member("Up to sixteen pairs of your own, to find the job by.", "object", "null");
        members["metadata"]!["additionalProperties"] = new JsonObject { ["type"] = "string" };
        members["max_run_seconds"] = Member("Seconds that all attempts of the job may run together, 1 to 31536000; then it ends as timeout.", "integer", "null");
        members["priority"] = Member("Higher runs first, -100 to 100.", "integer", "null");
    }

    private static JsonObject Compatible()
    {
        var hyperparameters = new JsonObject
        {
            ["type"] = "object",
            ["description"] = "\"auto\", or numbers. Each is a setting of the spec: epochs, batch_size, and learning_rate = 0.0002 × multiplier.",
            ["properties"] = new JsonObject
            {
                ["n_epochs"] = Member("Passes over the training rows; auto: 3.", "integer", "string"),
                ["batch_size"] = Member("Sequences in one step; auto: 8.", "integer", "string"),
                ["learning_rate_multiplier"] = Member("The learning rate is 0.0002 times this; auto: 1.", "number", "string"),
            },
        };
        var members = new JsonObject
        {
            ["model"] = Member("Base model, by id or name; or a fine-tuned model ft:… to continue.", "string"),
            ["training_file"] = Member("Id of the training file.", "string"),
            ["validation_file"] = Member("Id of the validation file.", "string", "null"),
            ["method"] = new JsonObject
            {
                ["type"] = "object",
                ["description"] = "What is optimised, with its hyperparameters in the member of the method's name.",
                ["properties"] = new JsonObject
                {
                    ["type"] = new JsonObject { ["description"] = "The method.", ["enum"] = new JsonArray([.. FineTuningMethods.ObjectiveByMethod.Keys.Select(name => (JsonNode)name)]) },
                    ["supervised"] = Method(hyperparameters),
                    ["dpo"] = Method(WithBeta(hyperparameters)),
                },
            },
            ["hyperparameters"] = hyperparameters,
            ["peft"] = Member("An adapter in the field names of Hugging Face PEFT: r, lora_alpha, lora_dropout, target_modules, use_rslora, …", "object", "null"),
        };
        AddLabels(members);
        foreach (var (name, schema) in SpecJson.SchemaOf(typeof(TrainingSpec))["properties"]!.AsObject())
        {
            members.TryAdd(name, schema?.DeepClone());
        }

        members["data"]!.AsObject().Remove("required");
        return new JsonObject
        {
            ["type"] = "object",
            ["required"] = new JsonArray("model", "training_file"),
            ["properties"] = members,
        };
    }

    private static JsonObject Method(JsonNode hyperparameters) => new()
    {
        ["type"] = "object",
        ["description"] = "Settings of the method.",
        ["properties"] = new JsonObject { ["hyperparameters"] = hyperparameters.DeepClone() },
    };

    private static JsonNode WithBeta(JsonObject hyperparameters)
    {
        var all = hyperparameters.DeepClone();
        all["properties"]![FineTuningMethods.Beta] = Member("Strength of the pull to the base model, objective.beta; auto: 0.1.", "number", "string");
        return all;
    }

    private static JsonObject Member(string description, params string[] types) => new()
    {
        ["type"] = types.Length == 1 ? JsonValue.Create(types[0]) : new JsonArray([.. types.Select(type => (JsonNode)JsonValue.Create(type)!)]),
        ["description"] = description,
    };

    private static OpenApiSchema Parse(JsonObject schema, OpenApiDocument document)
    {
        schema.Remove("$schema");
        return OpenApiModelFactory.Parse<OpenApiSchema>(
            schema.ToJsonString(), OpenApiSpecVersion.OpenApi3_1, document, out _, OpenApiConstants.Json)
            ?? throw new InvalidOperationException("The schema of the spec is not a schema.");
    }
}
