using System.Text.Json;
using TorchSharp;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Numerics;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Runs;

[Collection(nameof(RandomNumbers))]
public sealed class ActivationCheckpointingTests
{
    private static readonly IReadOnlyList<Example> Examples = [.. new[] { 9, 4, 12, 6, 3 }.Select((length, row) =>
    {
        var ids = Enumerable.Range(0, length).Select(t => 3 + (row * 31 + t * 17) % 240).ToArray();
        return new Example(ids, ids, row + 1);
    })];

    private static readonly LoraConfig Dropping = new() { Rank = 4, Dropout = 0.4 };

    public static TheoryData<string, int, int?> Cases => new()
    {
        { "full", 1, null }, { "full", 2, 16 },
        { "lora", 1, null }, { "lora", 2, null }, { "lora", 1, 16 },
        { "lora on the last layer", 1, 16 },
        { "lora and the embedding", 1, null },
        { "prompt", 1, null }, { "prompt", 2, 16 },
        { "prefix", 1, null }, { "prefix", 2, 16 },
    };

    [Theory, MemberData(nameof(Cases))]
    public void Loss_and_gradient_are_those_of_the_plain_way_to_the_bit(string adapter, int every, int? packTo)
    {
        using var plain = new Steps(Config(adapter), ActivationCheckpointing.Off);
        using var again = new Steps(Config(adapter), ActivationCheckpointing.EveryNth(every));

        Assert.Equal(plain.Run(packTo), again.Run(packTo));
    }

    [Fact]
    public void Random_numbers_after_a_step_are_those_of_the_plain_way()
    {
        using var plain = new Steps(Dropping, ActivationCheckpointing.Off);
        using var again = new Steps(Dropping, ActivationCheckpointing.Full);
        plain.Run(packTo: null);
        var expected = Draw();
        again.Run(packTo: null);

        Assert.Equal(expected, Draw());

        static float[] Draw()
        {
            using var scope = NewDisposeScope();
            return [.. rand(8).data<float>()];
        }
    }

    [Fact]
    public void Nothing_is_left_behind()
    {
        using var steps = new Steps(Dropping, ActivationCheckpointing.Full);
        steps.Run(packTo: 16);
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        steps.Run(packTo: 16);
        steps.Run(packTo: null);

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void What_fails_in_the_second_computation_is_thrown_where_the_pass_was_started()
    {
        using var scope = NewDisposeScope();
        var pass = new BackwardPass();
        var weight = ones(2, requires_grad: true);
        var calls = 0;
        var result = Recomputed.Run((input, _) => ++calls == 2 ? throw new InvalidDataException("lost") : input * weight, ones(2), [], pass);

        Assert.Equal("lost", Assert.Throws<InvalidDataException>(() => pass.Run(result.sum())).Message);
        Assert.Equal(2, calls);
        pass.Run((weight * 3).sum());   // the next pass is not burdened with it
        Assert.Equal([3f, 3f], weight.grad!.data<float>());
    }

    [Theory]
    [InlineData("\"off\"", 0), InlineData("\"full\"", 1), InlineData("1", 1), InlineData("3", 3)]
    public void The_wire_knows_words_and_numbers(string wire, int every)
    {
        var read = JsonSerializer.Deserialize<ActivationCheckpointing>(wire, SpecJson.Options)!;

        Assert.Equal(every, read.Every);
        Assert.Equal(read, JsonSerializer.Deserialize<ActivationCheckpointing>(JsonSerializer.Serialize(read, SpecJson.Options), SpecJson.Options));
    }

    [Theory]
    [InlineData("0"), InlineData("-1"), InlineData("10001"), InlineData("1.5"), InlineData("\"some\""), InlineData("true"), InlineData("[]")]
    public void Anything_else_is_refused(string wire) =>
        Assert.Throws<JsonException>(() => JsonSerializer.Deserialize<ActivationCheckpointing>(wire, SpecJson.Options));

    [Fact]
    public void A_stopped_run_may_go_on_with_less_memory_to_the_same_bytes()
    {
        using var folder = new RunFolder();
        var spec = new TrainingSpec
        {
            Model = SharedData.Path("golden", "models", "llama_untied"),
            Data = new() { Train = folder.TokenRows("rows.jsonl", 12), MaxLength = 32 },
            Adapter = Dropping,
            Schedule = new() { MaxSteps = 4, BatchSize = 2 },
            Checkpoints = new() { EverySteps = 2 },
            Spectra = new() { Enabled = false },
        };
        folder.Run(spec, "plain");
        var control = new RunControl();
        Assert.Throws<RunStoppedException>(() => folder.Run(spec, "both", control, report =>
        {
            if (report is StepReport { Step: 2 })
            {
                control.RequestCheckpointAndStop();
            }
        }));
        folder.Run(spec with { ActivationCheckpointing = ActivationCheckpointing.Full }, "both");

        Assert.Equal(
            File.ReadAllBytes(folder.In("plain", "adapter", "adapter_model.safetensors")),
            File.ReadAllBytes(folder.In("both", "adapter", "adapter_model.safetensors")));
    }

    private static AdapterConfig Config(string adapter) => adapter switch
    {
        "full" => new FullConfig(),
        "prompt" => new PromptConfig { NumVirtualTokens = 5 },
        "prefix" => new PrefixConfig { NumVirtualTokens = 5 },
        "lora" => Dropping,
        "lora on the last layer" => Dropping with { TargetModules = ModuleSelector.OfPattern(@".*layers\.2\..*") },
        _ => Dropping with { ModulesToSave = ["embed_tokens", "lm_head"] },
    };

    private sealed class Steps : IDisposable
    {
        private readonly CausalLm _model;
        private readonly Adapter _adapter;
        private readonly FlatParameters _parameters;

        public Steps(AdapterConfig adapter, ActivationCheckpointing checkpointing)
        {
            set_num_threads(1);
            _model = CausalLm.Load(SharedData.Path("golden", "models", "llama_untied"), ScalarType.Float32, CPU);
            _model.Checkpointing = checkpointing;
            _adapter = adapter.Attach(_model, 1);
            _parameters = new FlatParameters([.. _adapter.Trainable.Select(tensor => tensor.Parameter)]);
            using var noGrad = no_grad();
            using var scope = NewDisposeScope();
            foreach (var (name, parameter) in _adapter.Trainable)
            {
                if (name.EndsWith("lora_B.weight", StringComparison.Ordinal))
                {
                    parameter.copy_((arange(parameter.numel(), ScalarType.Float32) * 0.7).sin().mul(0.1).view(parameter.shape));   // or A gets no gradient
                }
            }
        }

        /// <summary>Loss and gradient of two batches.</summary>
        public float[] Run(int? packTo)
        {
            Seed.Torch(1, 1);
            var plan = new BatchPlan(Examples, batchSize: 3, padId: 0, packTo, shuffleSeed: null);
            var result = TrainingStep.Backward(_model, _adapter, new SftConfig(), _parameters, [.. plan.ForEpoch(0).Select(plan.Collate)], CPU);
            using var scope = NewDisposeScope();
            return [(float)result.Loss, .. _adapter.Trainable.SelectMany(tensor => tensor.Parameter.grad!.data<float>().ToArray())];
        }

        public void Dispose()
        {
            _parameters.Dispose();
            _adapter.Dispose();
            _model.Dispose();
        }
    }
}
