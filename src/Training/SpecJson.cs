using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace TrainingService.Training;

/// <summary>A training spec on the wire: <c>snake_case</c> names, unknown members refused.</summary>
public static class SpecJson
{
    /// <summary>After so many errors the rest of a document is not looked at.</summary>
    public const int MaxErrors = 100;

    public static readonly JsonSerializerOptions Options = CreateOptions();

    /// <summary>The same on one line.</summary>
    public static readonly JsonSerializerOptions Compact = new(Options) { WriteIndented = false };

    /// <summary>Where in a spec a member of some name stands, for advice to those who put it elsewhere.</summary>
    internal static readonly IReadOnlyDictionary<string, string> PathsByName = CollectPaths();

    /// <summary>JSON schema of a whole spec; kept in <c>docs/schema/training-spec.json</c>.</summary>
    public static JsonObject Schema()
    {
        var schema = SchemaOf(typeof(TrainingSpec));
        schema.Insert(0, "$schema", "https://json-schema.org/draft/2020-12/schema");
        schema.Insert(1, "title", "Training spec");
        return schema;
    }

    /// <summary>The spec as an indented document, with every default written out.</summary>
    public static string Serialize(TrainingSpec spec) => JsonSerializer.Serialize(spec, Options);

    /// <summary>Reads a spec; reports all that is wrong with it at once.</summary>
    public static SpecResult Parse(string json)
    {
        JsonDocument document;
        try
        {
            document = JsonDocument.Parse(json.AsMemory().TrimStart('\uFEFF'), new JsonDocumentOptions { MaxDepth = SpecText.MaxDepth });
        }
        catch (JsonException error)
        {
            return Malformed(Explain(error));
        }
        catch (ArgumentException)   // half of a surrogate pair has no UTF-8 form
        {
            return Malformed("The spec is not valid Unicode text.");
        }

        using (document)
        {
            return Parse(document.RootElement);
        }
    }

    /// <summary>Reads a spec; reports all that is wrong with it at once.</summary>
    public static SpecResult Parse(JsonElement json)
    {
        var reader = new SpecReader(Options);
        var spec = (TrainingSpec?)reader.Read(json, typeof(TrainingSpec));
        return new(spec, reader.Errors);
    }

    /// <summary>JSON schema of a record of the spec, or of the whole spec.</summary>
    public static JsonObject SchemaOf(Type type) => SpecSchema.Of(type);

    private static SpecResult Malformed(string message) => new(null, [new SpecError("", message, SpecErrorCodes.MalformedJson)]);

    private static string Explain(JsonException error)
    {
        var cut = error.Message.IndexOf(" LineNumber:", StringComparison.Ordinal);
        var reason = SpecPath.Shorten((cut < 0 ? error.Message : error.Message[..cut]).TrimEnd('.'));   // it may quote the rest of the document
        return $"The spec is not JSON: line {error.LineNumber + 1}, column {error.BytePositionInLine + 1}: {reason}.";
    }

    private static Dictionary<string, string> CollectPaths()
    {
        var paths = new Dictionary<string, string>();
        Collect(typeof(TrainingSpec), "", "", family: null);
        return paths;

        void Collect(Type type, string path, string choice, Type? family)
        {
            var info = Options.GetTypeInfo(type);
            foreach (var derived in info.PolymorphismOptions?.DerivedTypes ?? [])
            {
                Collect(derived.DerivedType, path, $" of type {derived.TypeDiscriminator}", type);
            }

            foreach (var property in info.Kind == JsonTypeInfoKind.Object ? info.Properties : [])
            {
                var member = SpecPath.Member(path, property.Name);
                paths.TryAdd(property.Name, property.DeclaringType == family ? member : member + choice);
                Collect(property.PropertyType, member, "", family: null);
            }
        }
    }

    private static JsonSerializerOptions CreateOptions()
    {
        var options = new JsonSerializerOptions
        {
            PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
            UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
            AllowOutOfOrderMetadataProperties = true,   // Postgres jsonb reorders keys
            RespectNullableAnnotations = true,
            RespectRequiredConstructorParameters = true,
            AllowDuplicateProperties = false,
            WriteIndented = true,
            Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
            Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower, allowIntegerValues: false) },
        };
        options.MakeReadOnly(populateMissingResolver: true);
        return options;
    }
}
