using System.Globalization;
using System.Text.Json;
using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>Numbers of PEFT 0.20.0 on the tiny Llama: the adapter that it saved is the starting point, and everything is compared.</summary>
internal static class PeftGolden
{
    private const double Tolerance = 1e-5;

    public static string Folder(string method) => SharedData.Path("golden", "peft", method, "adapter");

    public static SafeTensorsFile Open(string method) => SafeTensorsFile.Open(SharedData.Path("golden", "peft", method, "tensors.safetensors"));

    /// <summary>Logits, loss, gradients, merged weights and three steps of both optimizers from the saved adapter.</summary>
    /// <param name="mergedTolerance">Of the merged weights, where PEFT's own merge differs from its forward pass.</param>
    /// <param name="gradientTolerance">Of the gradients and of three steps of AdamW, where rounding errors grow in the update.</param>
    /// <param name="descentTolerance">Of the tensors after three steps of gradient descent.</param>
    public static void Holds(
        string method, AdapterConfig config, double mergedTolerance = Tolerance, double gradientTolerance = Tolerance, double descentTolerance = Tolerance)
    {
        using var scope = NewDisposeScope();
        using var golden = Open(method);
        using var facts = JsonDocument.Parse(File.ReadAllText(SharedData.Path("golden", "peft", method, "golden.json")));
        var from = config with { From = Folder(method) };
        var (ids, labels) = TinyModel.Batch();
        using (var model = TinyModel.Load())
        {
            using var adapter = from.Attach(model, seed: 0);
            var expected = golden.Read("logits|state0");
            var logits = TinyModel.Logits(model, ids);
            Near(logits.narrow(1, logits.shape[1] - expected.shape[1], expected.shape[1]), expected, "logits");

            var loss = TinyModel.Loss(model, ids, labels);
            using var regulariser = adapter.Regulariser();
            (regulariser is null ? loss : loss + regulariser).backward();

            Assert.Equal(facts.RootElement.GetProperty("loss").GetDouble(), (regulariser is null ? loss : loss + regulariser).item<float>(), 1e-4);
            Assert.Equal(facts.RootElement.GetProperty("trainable_parameters").GetInt64(), adapter.Trainable.Sum(tensor => tensor.Parameter.numel()));
            Assert.All(adapter.Trainable, tensor => Near(tensor.Parameter.grad!, golden.Read(Key(golden, "grad|" + tensor.Name)!), "grad|" + tensor.Name, gradientTolerance));
        }

        foreach (var prefix in (string[])["sgd3|", "adamw3|"])
        {
            using var model = TinyModel.Load();
            using var adapter = from.Attach(model, seed: 0);
            var parameters = adapter.Trainable.Select(tensor => tensor.Parameter).ToArray();
            using optim.Optimizer optimizer = prefix == "sgd3|"
                ? optim.SGD(parameters, learningRate: 0.1)
                : optim.AdamW(parameters, lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01);
            for (var step = 0; step < 3; step++)
            {
                optimizer.zero_grad();
                var loss = TinyModel.Loss(model, ids, labels);
                (adapter.Regulariser() is { } regulariser ? loss + regulariser : loss).backward();
                optimizer.step();
            }

            var compared = adapter.Trainable.Where(tensor => Key(golden, prefix + tensor.Name) is not null).ToList();
            Assert.NotEmpty(compared);
            var tolerance = prefix == "sgd3|" ? descentTolerance : gradientTolerance;
            Assert.All(compared, tensor => Near(tensor.Parameter, golden.Read(Key(golden, prefix + tensor.Name)!), prefix + tensor.Name, tolerance));
        }

        using (var model = TinyModel.Load())
        {
            using var adapter = from.Attach(model, seed: 0);
            adapter.MergeIntoModel();
            var weights = model.NamedWeights().ToDictionary(weight => "merged|" + weight.Name, weight => weight.Parameter);
            var compared = golden.Entries.Keys.Where(weights.ContainsKey).ToList();
            Assert.NotEmpty(compared);
            Assert.All(compared, name => Near(weights[name], golden.Read(name), name, mergedTolerance));
        }
    }

    /// <summary>Keys, values and configuration fields of what is saved.</summary>
    /// <param name="isCopy">Keys of PEFT's file that repeat another one.</param>
    public static void IsSavedAlike(string method, AdapterConfig config, Func<string, bool>? isCopy = null)
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = (config with { From = Folder(method) }).Attach(model, seed: 0);
        var folder = TinyModel.NewFolder();

        adapter.Save(folder, new ModelCard("models/llama_untied"));

        using var ours = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors"));
        using var theirs = SafeTensorsFile.Open(Path.Combine(Folder(method), "adapter_model.safetensors"));
        Assert.Equal(theirs.Entries.Keys.Where(key => isCopy?.Invoke(key) != true).Order(), ours.Entries.Keys.Order());
        Assert.Equal("pt", ours.Metadata["format"]);
        Assert.All(ours.Entries.Keys, key => Assert.True(ours.Read(key).equal(theirs.Read(key)).all().item<bool>(), key));

        using var written = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "adapter_config.json")));
        using var reference = JsonDocument.Parse(File.ReadAllText(Path.Combine(Folder(method), "adapter_config.json")));
        Assert.Equal(
            reference.RootElement.EnumerateObject().Select(field => field.Name),
            written.RootElement.EnumerateObject().Select(field => field.Name));
        Assert.All(reference.RootElement.EnumerateObject(), field =>
            Assert.Equal(Text(field.Name, field.Value), Text(field.Name, written.RootElement.GetProperty(field.Name))));
    }

    // PEFT takes the ending off some names when it saves.
    private static string? Key(SafeTensorsFile golden, string name) =>
        ((string[])[name, name + ".weight"]).FirstOrDefault(golden.Entries.ContainsKey);

    // PEFT writes a set of target modules, in any order.
    private static string Text(string name, JsonElement value) => name + ": " + (name == "target_modules"
        ? string.Join(' ', value.EnumerateArray().Select(module => module.GetString()).Order())
        : value.ValueKind == JsonValueKind.Number ? value.GetDouble().ToString(CultureInfo.InvariantCulture) : value.GetRawText());

    private static void Near(Tensor actual, Tensor expected, string name, double tolerance = Tolerance)
    {
        var error = Numbers.RelativeError(actual, expected);
        Assert.True(error <= tolerance, $"{name}: relative error {error:G3}");
    }
}
