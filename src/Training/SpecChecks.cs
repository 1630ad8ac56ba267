using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;

namespace TrainingService.Training;

/// <summary>What is wrong with a spec for the model that it names. Needs the model's <c>config.json</c> and no tensors.</summary>
public static class SpecChecks
{
    /// <param name="memoryBytes">What a run may use; null: not asked.</param>
    public static IReadOnlyList<SpecError> AgainstModel(TrainingSpec spec, ModelConfig model, long? memoryBytes = null)
    {
        List<SpecError> errors = [.. OfHead(spec, model)];
        model = spec.Objective.On(model);
        errors.AddRange(OfAdapter(spec.Adapter, model));
        if (errors.Count == 0 && spec is { HeldBase: not null, Adapter: LayerAdapterConfig layers })
        {
            errors.AddRange(QuantizedBase.Trained(LayerPlan.FullWeightsOf(layers, model), model)
                .Take(1)
                .Select(module => new SpecError("adapter.modules_to_save", QuantizedBase.RefusesTrained(module), SpecErrorCodes.Conflict)));
        }

        var positions = model.MaxPositions - spec.Adapter.VirtualTokens;
        if (positions > 1 && spec.Data.MaxLength > positions && spec.Data.MaxLength != DataConfig.DefaultMaxLength)
        {
            // The default is nobody's choice: a run lowers it to what the model has.
            errors.Add(new(
                "data.max_length",
                $"data.max_length is {spec.Data.MaxLength}, more than the {model.MaxPositions} positions of the model"
                + (spec.Adapter.VirtualTokens == 0 ? "; " : $" less adapter.num_virtual_tokens, {spec.Adapter.VirtualTokens}; ")
                + $"use at most {positions}.",
                SpecErrorCodes.TooLong));
        }

        if (errors.Count == 0 && memoryBytes is { } limit && Estimate.For(spec, model).Memory.TotalBytes is var needed && needed > limit)
        {
            errors.Add(new(
                "model",
                $"model needs about {Gibibytes(needed)} of memory with these settings, and {Gibibytes(limit)} are at hand; "
                + "lower schedule.batch_size or data.max_length, use a LoRA adapter, or choose a smaller model.",
                SpecErrorCodes.TooLarge));
        }

        return errors;
    }

    private static IEnumerable<SpecError> OfHead(TrainingSpec spec, ModelConfig model)
    {
        var objective = spec.Objective;
        if (objective.Score is not null && spec.Adapter is VirtualTokensConfig)
        {
            yield return new(
                "adapter.type", $"adapter.type {spec.Adapter.Name} trains virtual tokens alone, and a new score head has to train too; use lora or another adapter of layers.",
                SpecErrorCodes.Conflict);
        }

        if (model.Score is not { } has)
        {
            yield break;
        }

        if (objective.Score is not { } wanted)
        {
            if (model.PredictsTokens)
            {
                yield break;
            }

            yield return new("model", "model scores sequences and has no output head for tokens; use objective reward, or a model of the causal kind.", SpecErrorCodes.Conflict);
        }
        else if (!wanted.Fits(has))
        {
            yield return new(
                "objective",
                $"objective needs a score head of {wanted.Outputs} outputs ({wanted.Layers}), and the model brings one of {has.Outputs} ({has.Layers}); "
                + "set objective.score_layers to the model's, or take another model.", SpecErrorCodes.Conflict);
        }
    }

    private static IReadOnlyList<SpecError> OfAdapter(AdapterConfig adapter, ModelConfig model)
    {
        try
        {
            return adapter.Check(model);
        }
        catch (TrainingException error)   // a regular expression that takes too long
        {
            return [new(error.Param ?? "adapter.target_modules", error.Message, SpecErrorCodes.InvalidValue)];
        }
    }

    private static string Gibibytes(long bytes) => FormattableString.Invariant($"{bytes / (double)(1L << 30):0.0} GiB");
}
