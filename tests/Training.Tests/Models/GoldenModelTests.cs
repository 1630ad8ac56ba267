using System.Text.Json;
using TorchSharp;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Models;

/// <summary>Numbers of other implementations (Hugging Face transformers 4.48; numpy in float64 for stories260K).</summary>
public class GoldenModelTests
{
    private const double Tolerance = 1e-5;

    [Theory]
    [InlineData("llama_untied", "lm")]
    [InlineData("llama_untied", "lm_pad")]
    [InlineData("qwen2", "lm")]
    [InlineData("qwen2", "lm_pad")]
    public void Logits_and_loss_equal_the_reference(string id, string batch)
    {
        using var scope = NewDisposeScope();
        using var model = LoadGolden(id);
        var rows = ReadBatch(batch);
        var ids = rows.Select(row => row.Ids).ToArray();
        using var expected = SafeTensorsFile.Open(SharedData.Path("golden", "base", id, "tensors.safetensors"));

        var logits = model.Forward(Matrix(ids), Positions(ids.Length, ids[0].Length));

        var wanted = expected.Read($"logits|{batch}");
        var seen = logits.narrow(1, logits.shape[1] - wanted.shape[1], wanted.shape[1]);
        for (var row = 0; row < rows.Length; row++)
        {
            // Logits at padding mean nothing, here or there.
            var real = Math.Max(0, rows[row].RealLength - (ids[row].Length - (int)wanted.shape[1]));
            Assert.InRange(Numbers.RelativeError(seen[row].narrow(0, 0, real), wanted[row].narrow(0, 0, real)), 0, Tolerance);
        }

        var golden = ReadJson("golden", "base", id, "golden.json");
        var loss = Numbers.MeanLoss(logits, Matrix([.. rows.Select(row => row.Labels)])).item<float>();
        Assert.Equal(golden.GetProperty($"loss_{batch}").GetDouble(), loss, Tolerance * loss);
    }

    [Theory]
    [InlineData("llama_untied")]
    [InlineData("qwen2")]
    public void Hidden_states_after_the_last_norm_equal_the_reference(string id)
    {
        using var scope = NewDisposeScope();
        using var model = LoadGolden(id);
        var ids = ReadBatch("lm").Select(row => row.Ids).ToArray();
        using var expected = SafeTensorsFile.Open(SharedData.Path("golden", "base", id, "tensors.safetensors"));

        var hidden = model.HiddenStates(Matrix(ids), Positions(ids.Length, ids[0].Length));

        Assert.InRange(Numbers.RelativeError(hidden, expected.Read("hidden|3")), 0, Tolerance);
    }

    [Theory]
    [InlineData("llama_untied")]
    [InlineData("qwen2")]
    public void Gradients_equal_the_reference(string id)
    {
        using var scope = NewDisposeScope();
        using var model = LoadGolden(id);
        var rows = ReadBatch("lm");
        using var expected = SafeTensorsFile.Open(SharedData.Path("golden", "base", id, "tensors.safetensors"));
        foreach (var (_, parameter) in model.NamedWeights())
        {
            parameter.requires_grad = true;
        }

        var logits = model.Forward(Matrix([.. rows.Select(row => row.Ids)]), Positions(rows.Length, rows[0].Ids.Length));
        Numbers.MeanLoss(logits, Matrix([.. rows.Select(row => row.Labels)])).backward();

        var compared = 0;
        var squares = 0.0;
        foreach (var (name, parameter) in model.NamedWeights())
        {
            squares += Math.Pow(parameter.grad!.norm().item<float>(), 2);

            // A key bias shifts every score of a row alike, so its gradient is zero but for rounding.
            if (expected.Entries.ContainsKey($"grad|{name}") && !name.EndsWith("k_proj.bias", StringComparison.Ordinal))
            {
                var error = Numbers.RelativeError(parameter.grad!, expected.Read($"grad|{name}"));
                Assert.True(error <= Tolerance, $"{name}: {error}");
                compared++;
            }
        }

        Assert.True(compared >= 21, $"only {compared} gradients were compared");
        var golden = ReadJson("golden", "base", id, "golden.json").GetProperty("grad_global_norm").GetDouble();
        Assert.Equal(golden, Math.Sqrt(squares), Tolerance * golden);
    }

    [Fact]
    public void Stories260K_logits_and_losses_equal_float64()
    {
        using var scope = NewDisposeScope();
        using var model = LoadStories();
        var golden = ReadJson("data", "models", "stories260K", "golden.json");
        var prompt = Ints(golden.GetProperty("prompt_token_ids"));
        var text = Ints(golden.GetProperty("loss").GetProperty("token_ids"));

        var logits = model.Forward(Matrix([prompt]), Positions(1, prompt.Length));
        var textLogits = model.Forward(Matrix([text]), Positions(1, text.Length));

        Assert.InRange(
            Numbers.RelativeError(logits[0, 0], tensor(Floats(golden.GetProperty("logits_first_position")))), 0, Tolerance);
        Assert.InRange(
            Numbers.RelativeError(logits[0, -1], tensor(Floats(golden.GetProperty("logits_last_prompt_position")))), 0, Tolerance);
        var losses = nn.functional.cross_entropy(
            textLogits[0].narrow(0, 0, text.Length - 1), Matrix([text])[0].narrow(0, 1, text.Length - 1), reduction: nn.Reduction.None);
        Assert.InRange(
            Numbers.RelativeError(losses, tensor(Floats(golden.GetProperty("loss").GetProperty("per_token_nll")))), 0, Tolerance);
    }

    [Fact]
    public void Stories260K_gradient_norms_equal_float64()
    {
        using var scope = NewDisposeScope();
        using var model = LoadStories();
        var golden = ReadJson("data", "models", "stories260K", "golden-training.json");
        var text = Ints(golden.GetProperty("token_ids"));
        foreach (var (_, parameter) in model.NamedWeights())
        {
            parameter.requires_grad = true;
        }

        var loss = Numbers.MeanLoss(model.Forward(Matrix([text]), Positions(1, text.Length)), Matrix([text]));
        loss.backward();

        var sgd = golden.GetProperty("sgd");
        var firstLoss = sgd.GetProperty("losses")[0].GetDouble();
        Assert.Equal(firstLoss, loss.item<float>(), Tolerance * firstLoss);
        var norms = sgd.GetProperty("first_gradient_norms");
        Assert.Equal(norms.EnumerateObject().Count(), model.NamedWeights().Count());
        foreach (var (name, parameter) in model.NamedWeights())
        {
            var expected = norms.GetProperty(name).GetDouble();
            Assert.Equal(expected, parameter.grad!.norm().item<float>(), Tolerance * expected);
        }
    }

    internal static CausalLm LoadStories() =>
        CausalLm.Load(SharedData.Path("data", "models", "stories260K"), ScalarType.Float32, CPU);

    internal static CausalLm LoadGolden(string id) =>
        CausalLm.Load(SharedData.Path("golden", "models", id), ScalarType.Float32, CPU);

    internal static JsonElement ReadJson(params string[] parts)
    {
        using var document = JsonDocument.Parse(File.ReadAllText(SharedData.Path(parts)));
        return document.RootElement.Clone();
    }

    internal static int[] Ints(JsonElement array) => [.. array.EnumerateArray().Select(item => item.GetInt32())];

    internal static Tensor Matrix(int[][] rows) =>
        tensor(rows.SelectMany(row => row.Select(id => (long)id)).ToArray(), [rows.Length, rows[0].Length], ScalarType.Int64);

    internal static Tensor Positions(int rows, int length) =>
        arange(length, dtype: ScalarType.Int64).unsqueeze(0).expand(rows, length).contiguous();

    private static float[] Floats(JsonElement array) => [.. array.EnumerateArray().Select(item => item.GetSingle())];

    private static (int[] Ids, int[] Labels, int RealLength)[] ReadBatch(string name)
    {
        var batch = ReadJson("golden", "inputs.json").GetProperty("batches").GetProperty(name);
        var ids = batch.GetProperty("input_ids").EnumerateArray().Select(Ints).ToArray();
        var labels = batch.GetProperty("labels").EnumerateArray().Select(Ints).ToArray();
        var lengths = batch.TryGetProperty("attention_mask", out var mask)
            ? mask.EnumerateArray().Select(row => Ints(row).Sum()).ToArray()
            : [.. ids.Select(row => row.Length)];
        return [.. ids.Select((row, index) => (row, labels[index], lengths[index]))];
    }
}
