using System.Text.Json;
using TorchSharp;
using TorchSharp.Modules;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>Numbers of PEFT 0.20.0 on a tiny Llama: the saved adapter at which they were measured is the starting point here.</summary>
public class LoraGoldenTests
{
    private const double Tolerance = 1e-5;

    private static string AdapterFolder => SharedData.Path("golden", "peft", "lora", "adapter");

    private static LoraConfig FromGolden => new() { From = AdapterFolder };

    [Fact]
    public void A_saved_adapter_gives_its_logits()
    {
        using var scope = NewDisposeScope();
        using var golden = Golden();
        using var model = TinyModel.Load();
        using var adapter = FromGolden.Attach(model, seed: 0);
        var expected = golden.Read("logits|state0");

        var logits = TinyModel.Logits(model, TinyModel.Batch().Ids);

        Assert.InRange(Numbers.RelativeError(logits.narrow(1, logits.shape[1] - expected.shape[1], expected.shape[1]), expected), 0, Tolerance);
    }

    [Fact]
    public void Loss_and_gradients_equal_those_of_peft()
    {
        using var scope = NewDisposeScope();
        using var golden = Golden();
        using var model = TinyModel.Load();
        using var adapter = FromGolden.Attach(model, seed: 0);
        var (ids, labels) = TinyModel.Batch();

        var loss = TinyModel.Loss(model, ids, labels);
        loss.backward();

        Assert.Equal(5.916577339172363, loss.item<float>(), Tolerance * 5.9);
        Assert.Equal(42, adapter.Trainable.Count);
        Assert.All(adapter.Trainable, tensor =>
            Assert.InRange(Numbers.RelativeError(tensor.Parameter.grad!, golden.Read("grad|" + tensor.Name)), 0, Tolerance));
    }

    [Theory]
    [InlineData("sgd3|")]
    [InlineData("adamw3|")]
    public void Three_steps_end_where_those_of_peft_end(string prefix)
    {
        using var scope = NewDisposeScope();
        using var golden = Golden();
        using var model = TinyModel.Load();
        using var adapter = FromGolden.Attach(model, seed: 0);
        var parameters = adapter.Trainable.Select(tensor => tensor.Parameter).ToArray();
        using optim.Optimizer optimizer = prefix == "sgd3|"
            ? optim.SGD(parameters, learningRate: 0.1)
            : optim.AdamW(parameters, lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01);
        var (ids, labels) = TinyModel.Batch();

        for (var step = 0; step < 3; step++)
        {
            optimizer.zero_grad();
            TinyModel.Loss(model, ids, labels).backward();
            optimizer.step();
        }

        var compared = adapter.Trainable.Where(tensor => golden.Entries.ContainsKey(prefix + tensor.Name)).ToList();
        Assert.NotEmpty(compared);
        Assert.All(compared, tensor =>
            Assert.InRange(Numbers.RelativeError(tensor.Parameter, golden.Read(prefix + tensor.Name)), 0, Tolerance));
    }

    [Fact]
    public void Merged_weights_equal_those_of_peft()
    {
        using var scope = NewDisposeScope();
        using var golden = Golden();
        using var model = TinyModel.Load();
        using var adapter = FromGolden.Attach(model, seed: 0);

        adapter.MergeIntoModel();

        var weights = model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter);
        foreach (var name in (string[])["model.layers.0.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"])
        {
            Assert.InRange(Numbers.RelativeError(weights[name], golden.Read("merged|" + name)), 0, Tolerance);
        }
    }

    [Fact]
    public void What_is_saved_has_the_keys_values_and_fields_of_peft()
    {
        using var scope = NewDisposeScope();
        using var model = TinyModel.Load();
        using var adapter = FromGolden.Attach(model, seed: 0);
        var folder = TinyModel.NewFolder();

        adapter.Save(folder, new ModelCard("models/llama_untied"));

        using var ours = SafeTensorsFile.Open(Path.Combine(folder, "adapter_model.safetensors"));
        using var theirs = SafeTensorsFile.Open(Path.Combine(AdapterFolder, "adapter_model.safetensors"));
        Assert.Equal(theirs.Entries.Keys.Order(), ours.Entries.Keys.Order());
        Assert.Equal("pt", ours.Metadata["format"]);
        Assert.All(theirs.Entries.Keys, key => Assert.True(ours.Read(key).equal(theirs.Read(key)).all().item<bool>(), key));

        using var written = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "adapter_config.json")));
        using var reference = JsonDocument.Parse(File.ReadAllText(Path.Combine(AdapterFolder, "adapter_config.json")));
        Assert.Equal(
            reference.RootElement.EnumerateObject().Select(field => field.Name),
            written.RootElement.EnumerateObject().Select(field => field.Name));
        foreach (var field in reference.RootElement.EnumerateObject())
        {
            var value = written.RootElement.GetProperty(field.Name);
            if (field.Name == "target_modules")   // PEFT writes a set, in any order
            {
                Assert.Equal(
                    field.Value.EnumerateArray().Select(name => name.GetString()).Order(),
                    value.EnumerateArray().Select(name => name.GetString()).Order());
            }
            else
            {
                Assert.Equal(field.Value.GetRawText(), value.GetRawText());
            }
        }
    }

    private static SafeTensorsFile Golden() => SafeTensorsFile.Open(SharedData.Path("golden", "peft", "lora", "tensors.safetensors"));
}
