using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Api.Http;
using TrainingService.Api.Jobs;

namespace TrainingService.Api.FineTuning;

/// <summary>
/// Reads the body that OpenAI's clients send, and makes a spec of it. What they call <c>hyperparameters</c> becomes schedule and
/// optimizer; <c>auto</c>, or nothing, leaves the member to the spec's own default. Every part of the spec may be given beside.
/// </summary>
internal sealed class FineTuningRequest
{
    /// <summary>The learning rate that <c>learning_rate_multiplier</c> multiplies: the spec's default.</summary>
    public const double BaseLearningRate = 2e-4;

    private static readonly HashSet<string> SpecParts =
        ["data", "objective", "adapter", "optimizer", "schedule", "precision", "quantization", "evaluation", "checkpoints", "spectra", "seed"];

    private static readonly HashSet<string> OwnMembers =
        ["model", "training_file", "validation_file", "method", "hyperparameters", "integrations", "peft", .. JobLabels.Names, .. SpecParts];

    private readonly JsonElement _body;
    private readonly JsonObject _spec = [];
    private readonly List<ErrorDetail> _errors = [];
    private readonly Dictionary<string, string> _clientPaths = [];

    private FineTuningRequest(JsonElement body) => _body = body;

    public static JobRequest Read(JsonElement body)
    {
        if (body.ValueKind != JsonValueKind.Object)
        {
            throw RequestException.Invalid("wrong_kind", "The body must be a JSON object with model and training_file.");
        }

        var request = new FineTuningRequest(body);
        request.ReadMembers();
        var labels = JobLabels.Read(body, request._errors);
        return new JobRequest(
            JsonSerializer.SerializeToElement(request._spec), body, labels, request._errors, request.ToClientPath);
    }

    private void ReadMembers()
    {
        foreach (var name in _body.EnumerateObject().Select(member => member.Name).Where(name => !OwnMembers.Contains(name)))
        {
            Refuse("unknown_member", $"{name} is not a member of a fine-tuning job; there are: {string.Join(", ", OwnMembers)}.", name);
        }

        foreach (var part in SpecParts)
        {
            if (Get(_body, part) is { } value)
            {
                _spec[part] = JsonNode.Parse(value.GetRawText());
            }
        }

        Place("model", "model", required: true);
        Place("training_file", "data.train", required: true);
        Place("validation_file", "data.validation", required: false);
        if (_spec["data"] is JsonObject data && !data.ContainsKey("packing"))
        {
            data["packing"] = false;   // in this dialect batch_size counts rows, so a sequence holds one
        }

        ReadMethod();
        if (Get(_body, "hyperparameters") is { } hyperparameters)
        {
            ReadHyperparameters(hyperparameters, "hyperparameters", FineTuningMethods.HyperparametersOf("supervised"));
        }

        ReadIntegrations();
        if (Get(_body, "peft") is { } peft)
        {
            PeftMembers.Read(peft, _spec, _clientPaths, _errors);
        }
    }

    private void ReadMethod()
    {
        if (Get(_body, "method") is not { } method)
        {
            return;
        }

        var type = method.ValueKind == JsonValueKind.Object && Get(method, "type") is { ValueKind: JsonValueKind.String } named
            ? named.GetString()!
            : "";
        if (!FineTuningMethods.ObjectiveByMethod.TryGetValue(type, out var objective))
        {
            Refuse("unsupported_method", $"method.type must be one of: {string.Join(", ", FineTuningMethods.ObjectiveByMethod.Keys)}.", "method.type");
            return;
        }

        RefuseOthers(method, "method", ["type", type]);
        if (_spec["objective"] is JsonObject given && given["type"] is JsonValue other && other.ToString() != objective)
        {
            Refuse("conflict", $"method.type {type} means objective {objective}, and objective.type is {other}; give one of them.", "objective.type");
        }
        else if (_spec["objective"] is null)
        {
            _spec["objective"] = new JsonObject { ["type"] = objective };
            _clientPaths["objective"] = "method";
        }

        if (Get(method, type) is { ValueKind: JsonValueKind.Object } settings)
        {
            RefuseOthers(settings, $"method.{type}", ["hyperparameters"]);
            if (Get(settings, "hyperparameters") is { } hyperparameters)
            {
                ReadHyperparameters(hyperparameters, $"method.{type}.hyperparameters", FineTuningMethods.HyperparametersOf(type));
            }
        }
    }

    private void ReadHyperparameters(JsonElement values, string path, string[] known)
    {
        if (values.ValueKind != JsonValueKind.Object)
        {
            Refuse("wrong_kind", $"{path} must be an object.", path);
            return;
        }

        RefuseOthers(values, path, known);
        ReadNumber(values, path, "n_epochs", "schedule.epochs", factor: 1, whole: true);
        ReadNumber(values, path, "batch_size", "schedule.batch_size", factor: 1, whole: true);
        ReadNumber(values, path, "learning_rate_multiplier", "optimizer.learning_rate", BaseLearningRate, whole: false);
        if (known.Contains(FineTuningMethods.Beta))
        {
            ReadNumber(values, path, FineTuningMethods.Beta, "objective.beta", factor: 1, whole: false);
        }
    }

    private void ReadNumber(JsonElement values, string path, string name, string target, double factor, bool whole)
    {
        if (Get(values, name) is not { } value || (value.ValueKind == JsonValueKind.String && value.GetString() == "auto"))
        {
            return;
        }

        var clientPath = $"{path}.{name}";
        if (value.ValueKind != JsonValueKind.Number || !value.TryGetDouble(out var number) || !(number > 0) || !double.IsFinite(number) || (whole && number != Math.Floor(number)))
        {
            Refuse("invalid_value", $"{clientPath} must be \"auto\" or a {(whole ? "whole " : "")}number above zero, and is {value.GetRawText()}.", clientPath);
            return;
        }

        // The spec's own bounds are checked where the spec is read.
        Put(target, whole && number <= int.MaxValue ? JsonValue.Create((int)number) : JsonValue.Create(number * factor), clientPath);
    }

    private void ReadIntegrations()
    {
        if (Get(_body, "integrations") is { } integrations
            && !(integrations.ValueKind == JsonValueKind.Array && integrations.GetArrayLength() == 0))
        {
            Refuse(
                "unsupported_integration",
                "Integrations such as wandb are not available here; leave integrations out and read GET /v1/jobs/{id}/metrics.", "integrations");
        }
    }

    private void Place(string name, string target, bool required)
    {
        if (Get(_body, name) is { } value)
        {
            Put(target, JsonNode.Parse(value.GetRawText()), name);
        }
        else if (required)
        {
            Refuse("missing_required", $"{name} is missing.", name);
            Put(target, JsonValue.Create("missing"), name);
        }
    }

    /// <summary>Sets a member of the spec, and remembers where the client wrote it.</summary>
    private void Put(string target, JsonNode? value, string clientPath)
    {
        var parts = target.Split('.');
        if (parts.Length == 1)
        {
            _spec[target] = value;
        }
        else if (_spec[parts[0]] is null or JsonObject)
        {
            var part = _spec[parts[0]] as JsonObject;
            if (part is null)
            {
                // An object that chooses among types needs the one whose defaults the client relies on.
                _spec[parts[0]] = part = parts[0] == "optimizer" ? new JsonObject { ["type"] = "adamw" } : [];
                _clientPaths.TryAdd(parts[0], clientPath);
            }

            if (part.ContainsKey(parts[1]))
            {
                Refuse("conflict", $"{target} and {clientPath} are the same setting; give one of them.", clientPath);
                return;
            }

            part[parts[1]] = value;
        }

        _clientPaths[target] = clientPath;
    }

    private string ToClientPath(string path)
    {
        if (_clientPaths.TryGetValue(path, out var known))
        {
            return known;
        }

        // An error inside a value, such as an item of a list, stands below where the value was written.
        var parent = _clientPaths.Keys.Where(key => key.Contains('.', StringComparison.Ordinal) && path.StartsWith(key, StringComparison.Ordinal))
            .OrderByDescending(key => key.Length).FirstOrDefault();
        return parent is null ? path : _clientPaths[parent] + path[parent.Length..];
    }

    private void RefuseOthers(JsonElement json, string path, string[] known)
    {
        foreach (var name in json.EnumerateObject().Select(member => member.Name).Where(name => !known.Contains(name)))
        {
            Refuse("unknown_member", $"{path} has no member {name}; there are: {string.Join(", ", known)}.", $"{path}.{name}");
        }
    }

    private void Refuse(string code, string message, string path) => _errors.Add(ErrorDetail.Invalid(code, message, path));

    private static JsonElement? Get(JsonElement json, string name) =>
        json.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;
}
