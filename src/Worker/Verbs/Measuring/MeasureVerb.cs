using System.CommandLine;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Throughput;
using static TorchSharp.torch;

namespace TrainingService.Worker.Verbs.Measuring;

/// <summary><c>measure</c>: how fast this machine trains, on a model of random weights and rows of random tokens.</summary>
/// <remarks>Standard output is one JSON object in one line; standard error is for people.</remarks>
internal static class MeasureVerb
{
    private static readonly JsonSerializerOptions Line = new(SpecJson.Options) { WriteIndented = false };

    public static Command Create() => new("measure", "How fast this machine trains; needs no model and no data.") { Steps(), Product() };

    private static Command Steps()
    {
        var hidden = Count("--hidden", 288, "Width of the model.");
        var layers = Count("--layers", 6, "Layers.");
        var heads = Count("--heads", 6, "Attention heads; they divide the width.");
        var mlp = Count("--mlp", 768, "Width of the gated block.");
        var vocabulary = Count("--vocabulary", 32_000, "Tokens of the vocabulary.");
        var batch = Count("--batch", 8, "Rows of a step.");
        var length = Count("--length", 256, "Tokens of a row.");
        var rank = Count("--rank", 16, "Rank of the LoRA factors on all linear layers.");
        var warmUp = Count("--warm-up", 3, "Steps that are not counted.");
        var steps = Count("--steps", 10, "Steps that are.");
        var precision = PrecisionOption();
        var command = new Command("steps", "Steps of LoRA with AdamW in a training process as a job gets it, and the share of the product rate that they reach.")
        {
            hidden, layers, heads, mlp, vocabulary, batch, length, rank, warmUp, steps, precision,
        };
        command.SetAction(parsed => Failures.Guard(() =>
        {
            var shape = new ModelShape(
                parsed.GetValue(hidden), parsed.GetValue(layers), parsed.GetValue(heads), parsed.GetValue(mlp), parsed.GetValue(vocabulary));
            var plan = new StepsPlan(
                shape, parsed.GetValue(precision), parsed.GetValue(batch), parsed.GetValue(length), parsed.GetValue(rank),
                parsed.GetValue(warmUp), parsed.GetValue(steps));
            Console.Out.WriteLine(JsonSerializer.Serialize(MeasuredSteps.Run(plan), Line));
        }));
        return command;
    }

    private static Command Product()
    {
        var size = Count("--size", ProductRate.Size, "Rows and columns of the matrices.");
        var seconds = new Option<double>("--seconds") { DefaultValueFactory = _ => 1, Description = "How long to repeat it." };
        var precision = PrecisionOption();
        var command = new Command("product", "Operations per second of libtorch's product of two square matrices.") { size, seconds, precision };
        command.SetAction(parsed => Failures.Guard(() =>
        {
            var dtype = parsed.GetValue(precision) == Precision.Bfloat16 ? ScalarType.BFloat16 : ScalarType.Float32;
            var rate = ProductRate.Measure(
                dtype, cuda.is_available() ? CUDA : CPU, TimeSpan.FromSeconds(parsed.GetValue(seconds)), parsed.GetValue(size));
            Console.Out.WriteLine(JsonSerializer.Serialize(new ProductResult(rate / 1e9), Line));
        }));
        return command;
    }

    private static Option<int> Count(string name, int value, string description)
    {
        var option = new Option<int>(name) { DefaultValueFactory = _ => value, Description = description };
        option.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<int>() < 1)
            {
                result.AddError($"{name} must be at least 1.");
            }
        });
        return option;
    }

    private static Option<Precision> PrecisionOption()
    {
        var option = new Option<Precision>("--precision") { DefaultValueFactory = _ => Precision.Float32, Description = "float32 or bfloat16." };
        option.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<Precision>() == Precision.Auto)
            {
                result.AddError("--precision must be float32 or bfloat16.");
            }
        });
        return option;
    }
}

/// <summary>The line of <c>measure product</c>.</summary>
internal sealed record ProductResult(double Gflops);
