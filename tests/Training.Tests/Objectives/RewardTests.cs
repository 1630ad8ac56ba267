using System.Text.Json;
using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Rewards, losses, gradients and steps of TRL's reward trainer on the tiny Llama with a score head.</summary>
public class RewardTests
{
    private static readonly float[] Margins = [0f, 0.5f, 1f, -0.25f];

    private static string AdapterFolder => SharedData.Path("golden", "reward", "adapter");

    [Theory]
    [InlineData(1.2f, 0.3f, 0f, 0.0, 0.341154)]
    [InlineData(1.2f, 0.3f, 0.5f, 0.0, 0.513015)]
    [InlineData(1.2f, 0.3f, 0f, 0.01, 0.341154 + 0.0225)]
    [InlineData(0f, 0f, 0f, 0.0, 0.693147)]
    public void The_loss_of_a_pair(float chosen, float rejected, float margin, double centring, double expected)
    {
        using var scope = NewDisposeScope();
        var loss = BradleyTerry.Losses(tensor(new[] { chosen }), tensor(new[] { rejected }), tensor(new[] { margin }), centring);

        Assert.Equal(expected, loss.item<float>(), 1e-6);
    }

    [Theory]
    [InlineData("plain", 0.0)]
    [InlineData("margin", 0.0)]
    [InlineData("centered_0.01", 0.01)]
    public void Losses_and_gradients_are_those_of_TRL(string variant, double centring)
    {
        using var scope = NewDisposeScope();
        using var facts = Facts();
        using var golden = Tensors();
        using var model = Load();
        using var adapter = new LoraConfig { From = AdapterFolder }.Attach(model, seed: 0);
        using var parameters = new FlatParameters(adapter.Trainable);
        var objective = new RewardConfig { CenterRewardsCoefficient = centring };
        var batch = GoldenPairs.Batch(variant == "margin" ? Margins : null);

        var step = TrainingStep.Backward(model, adapter, objective, parameters, [batch], CPU);

        var expected = facts.RootElement.GetProperty("lora_" + variant);
        Assert.Equal(expected.GetProperty("loss").GetDouble(), step.Loss, 1e-5);
        Assert.Equal(Expected(expected).Take(4).Zip(Expected(expected).Skip(4)).Count(pair => pair.First > pair.Second) / 4.0, step.Accuracy);
        Assert.Equal(Expected(expected).Take(4).Average() - Expected(expected).Skip(4).Average(), step.Figures[0], 1e-5);
        using (no_grad())
        {
            Assert.Equal(Expected(expected), BatchInput.Scores(model, batch, CPU).squeeze(1).data<float>().Select(reward => (double)reward), new Near(2e-5));
        }

        var compared = adapter.Trainable.Where(tensor => golden.Entries.ContainsKey(Key($"grad_{variant}|", tensor))).ToList();
        Assert.Equal(variant == "plain" ? 43 : 15, compared.Count);
        Assert.All(compared, tensor => Assert.True(
            Numbers.RelativeError(tensor.Parameter.grad!, golden.Read(Key($"grad_{variant}|", tensor))) <= 1e-5, tensor.Name));
    }

    [Theory]
    [InlineData("sgd")]
    [InlineData("adamw")]
    public void Three_steps_are_those_of_TRL(string kind)
    {
        using var scope = NewDisposeScope();
        using var facts = Facts();
        using var golden = Tensors();
        using var model = Load();
        using var adapter = new LoraConfig { From = AdapterFolder }.Attach(model, seed: 0);
        using var parameters = new FlatParameters(adapter.Trainable);
        OptimizerConfig config = kind == "sgd" ? new SgdConfig { LearningRate = 0.1 } : new AdamWConfig { LearningRate = 1e-3, WeightDecay = 0.01 };
        using var optimizer = config.Create(parameters);
        var losses = new List<double>();
        for (var step = 0; step < 4; step++)
        {
            losses.Add(TrainingStep.Backward(model, adapter, new RewardConfig(), parameters, [GoldenPairs.Batch()], CPU).Loss);
            if (step < 3)
            {
                optimizer.Step(config.LearningRate);
            }
        }

        Assert.Equal(facts.RootElement.GetProperty($"lora_losses_{kind}").EnumerateArray().Select(loss => loss.GetDouble()), losses, new Near(2e-5));
        var compared = adapter.Trainable.Where(tensor => golden.Entries.ContainsKey(Key($"{kind}3|", tensor))).ToList();
        Assert.NotEmpty(compared);
        Assert.All(compared, tensor => Assert.True(
            Numbers.RelativeError(tensor.Parameter, golden.Read(Key($"{kind}3|", tensor))) <= 1e-5, tensor.Name));
    }

    [Fact]
    public void The_score_head_is_saved_with_the_adapter_as_PEFT_saves_it()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using (var model = Load())
        {
            using var adapter = new LoraConfig { From = AdapterFolder }.Attach(model, seed: 0);
            adapter.Save(folder.Path, new ModelCard("models/llama_rm"));
        }

        using var ours = SafeTensorsFile.Open(Path.Combine(folder.Path, "adapter_model.safetensors"));
        using var theirs = SafeTensorsFile.Open(Path.Combine(AdapterFolder, "adapter_model.safetensors"));
        using var config = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder.Path, "adapter_config.json")));
        Assert.Equal(theirs.Entries.Keys.Order(), ours.Entries.Keys.Order());
        Assert.All(ours.Entries.Keys, key => Assert.True(ours.Read(key).equal(theirs.Read(key)).all().item<bool>(), key));
        Assert.Equal("SEQ_CLS", config.RootElement.GetProperty("task_type").GetString());
        Assert.Equal(["classifier", "score"], config.RootElement.GetProperty("modules_to_save").EnumerateArray().Select(name => name.GetString()));
    }

    [Theory]
    [InlineData(ScoreLayers.Linear, 64)]
    [InlineData(ScoreLayers.Mlp, (64 * 64) + 64 + 64 + 1)]
    public void A_decoder_gets_a_new_head_that_every_adapter_trains(ScoreLayers layers, int numbers)
    {
        using var scope = NewDisposeScope();
        var folder = SharedData.Path("golden", "models", "llama_untied");
        var head = new ScoreHead(layers);
        using var model = CausalLm.Load(folder, ScalarType.Float32, CPU, score: head, seed: 5);
        using var again = CausalLm.Load(folder, ScalarType.Float32, CPU, score: head, seed: 5);
        var batch = GoldenPairs.Batch();

        using var adapter = new LoraConfig { Rank = 2 }.Attach(model, seed: 1);
        var plain = new LoraConfig { Rank = 2 }.Count(HuggingFaceFolder.ReadConfig(folder));

        Assert.Equal(numbers, new LoraConfig { Rank = 2 }.Count(model.Config).Total - plain.Total);
        Assert.Equal(numbers, adapter.Trainable.Where(tensor => tensor.Name.Contains(".score.", StringComparison.Ordinal)).Sum(tensor => tensor.Parameter.numel()));
        Assert.True(BatchInput.Scores(model, batch, CPU).equal(BatchInput.Scores(again, batch, CPU)).all().item<bool>());
    }

    public static TheoryData<string> Adapters => [.. MethodCatalogue.All.Where(method => method.Family == "adapter").Select(method => method.Name)];

    [Theory, MemberData(nameof(Adapters))]
    public void Every_adapter_trains_the_head_or_says_that_it_cannot(string name)
    {
        var model = HuggingFaceFolder.ReadConfig(SharedData.Path("golden", "models", "llama_untied"));
        var settings = name switch { "kind" => ", \"classes\": [\"a\", \"b\"]", "atlas" => ", \"task_vectors\": [\"there\"]", "vblora" => ", \"vector_length\": 4", _ => "" };
        var spec = SpecJson.Parse($$"""
            { "model": "m", "data": { "train": "t" }, "objective": { "type": "reward" }, "adapter": { "type": "{{name}}"{{settings}} } }
            """).Spec!;

        var errors = SpecChecks.AgainstModel(spec, model);

        if (name is "prompt" or "prefix")
        {
            Assert.Contains("a new score head has to train too", Assert.Single(errors).Message, StringComparison.Ordinal);
            return;
        }

        if (errors.Count == 0)
        {
            Assert.Contains(spec.Adapter.Trained(spec.Objective.On(model)), shape => shape.Role == TensorRole.Head && shape.Count == model.HiddenSize);
        }
        else
        {
            Assert.All(errors, error => Assert.StartsWith("adapter.", error.Path, StringComparison.Ordinal));   // a setting made for larger models
        }
    }

    private static CausalLm Load() => CausalLm.Load(SharedData.Path("golden", "models", "llama_rm"), ScalarType.Float32, CPU);

    private static JsonDocument Facts() => JsonDocument.Parse(File.ReadAllText(SharedData.Path("golden", "reward", "golden.json")));

    private static SafeTensorsFile Tensors() => SafeTensorsFile.Open(SharedData.Path("golden", "reward", "tensors.safetensors"));

    private static IEnumerable<double> Expected(JsonElement variant) => variant.GetProperty("rewards").EnumerateArray().Select(reward => reward.GetDouble());

    // The numbers were taken from the running model, where PEFT puts a saved module under another name.
    private static string Key(string prefix, TrainableTensor tensor) =>
        prefix + tensor.Name.Replace(".score.", ".score.modules_to_save.", StringComparison.Ordinal);

    private sealed class Near(double tolerance) : IEqualityComparer<double>
    {
        public bool Equals(double x, double y) => Math.Abs(x - y) <= tolerance * Math.Max(1, Math.Abs(x));

        public int GetHashCode(double number) => 0;
    }
}
