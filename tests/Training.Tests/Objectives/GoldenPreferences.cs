using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>What TRL computes of the golden pairs with a LoRA on the tiny Llama; the model without it is the reference.</summary>
internal sealed class GoldenPreferences : IDisposable
{
    private readonly JsonDocument _facts = JsonDocument.Parse(File.ReadAllText(SharedData.Path("golden", "dpo", "golden.json")));
    private readonly SafeTensorsFile _tensors = SafeTensorsFile.Open(SharedData.Path("golden", "dpo", "tensors.safetensors"));

    public static string AdapterFolder => SharedData.Path("golden", "dpo", "adapter");

    public JsonElement Facts => _facts.RootElement;

    public static CausalLm Model() => CausalLm.Load(SharedData.Path("golden", "models", "llama_untied"), ScalarType.Float32, CPU);

    public static double[] Numbers(JsonElement list) => [.. list.EnumerateArray().Select(number => number.GetDouble())];

    public double[] Numbers(string name) => Numbers(Facts.GetProperty(name));

    /// <summary>Numbers of the golden file as a tensor in the caller's dispose scope.</summary>
    public static Tensor Floats(IEnumerable<double> numbers) => tensor(numbers.Select(number => (float)number).ToArray());

    /// <summary>Asserts that what is given of each trained tensor is the golden tensor.</summary>
    public void AssertEqual(string prefix, Adapter adapter, Func<TrainableTensor, Tensor> actual)
    {
        var compared = adapter.Trainable.Where(tensor => _tensors.Entries.ContainsKey(prefix + tensor.Name)).ToList();
        Assert.Equal(42, compared.Count);
        Assert.All(compared, tensor => Assert.True(
            Models.Numbers.RelativeError(actual(tensor), _tensors.Read(prefix + tensor.Name)) <= 1e-5,
            $"{tensor.Name}: {Models.Numbers.RelativeError(actual(tensor), _tensors.Read(prefix + tensor.Name)):E2}"));
    }

    public void Dispose()
    {
        _facts.Dispose();
        _tensors.Dispose();
    }
}

/// <summary>Equal to a share of the number, or of 1.</summary>
internal sealed class Near(double tolerance) : IEqualityComparer<double>
{
    public bool Equals(double x, double y) => Math.Abs(x - y) <= tolerance * Math.Max(1, Math.Abs(x));

    public int GetHashCode(double number) => 0;
}
