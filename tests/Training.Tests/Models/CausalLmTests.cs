using System.Text.Json.Nodes;
using TorchSharp;
using TrainingService.Training.Models;
using static TorchSharp.torch;
using static TrainingService.Training.Tests.Models.GoldenModelTests;

namespace TrainingService.Training.Tests.Models;

public class CausalLmTests
{
    private const double Tolerance = 1e-5;

    public CausalLmTests() => set_num_threads(1);

    [Fact]
    public void Packed_examples_equal_separate_rows_and_padding_is_no_number_trap()
    {
        using var scope = NewDisposeScope();
        using var model = TinyLlama.Create();
        int[] first = [5, 9, 17, 3], second = [8, 8, 2], third = [30];
        var ids = Matrix([[.. first, .. second, .. third, 0, 0]]);
        var positions = Matrix([[0, 1, 2, 3, 0, 1, 2, 0, 0, 0]]);
        var segments = Matrix([[1, 1, 1, 1, 2, 2, 2, 3, 0, 0]]).to(ScalarType.Int32);
        foreach (var (_, parameter) in model.NamedWeights())
        {
            parameter.requires_grad = true;
        }

        var packed = model.Forward(ids, positions, segments);

        Assert.InRange(Numbers.RelativeError(packed[0].narrow(0, 0, 4), Alone(first)), 0, Tolerance);
        Assert.InRange(Numbers.RelativeError(packed[0].narrow(0, 4, 3), Alone(second)), 0, Tolerance);
        Assert.InRange(Numbers.RelativeError(packed[0].narrow(0, 7, 1), Alone(third)), 0, Tolerance);
        packed.narrow(1, 0, 8).square().mean().backward();
        Assert.All(model.NamedWeights(), weight => Assert.True(weight.Parameter.grad!.isfinite().all().item<bool>(), weight.Name));

        Tensor Alone(int[] tokens) => model.Forward(Matrix([tokens]), Positions(1, tokens.Length))[0];
    }

    [Fact]
    public void Padding_at_the_end_changes_no_real_token()
    {
        using var scope = NewDisposeScope();
        using var model = TinyLlama.Create();
        int[] tokens = [5, 9, 17];
        var alone = model.Forward(Matrix([tokens]), Positions(1, 3))[0];

        var padded = model.Forward(Matrix([[.. tokens, 0, 0], [1, 2, 3, 4, 5]]), Positions(2, 5))[0].narrow(0, 0, 3);
        var marked = model.Forward(Matrix([[.. tokens, 7, 7]]), Positions(1, 5), Matrix([[1, 1, 1, 0, 0]]).to(ScalarType.Int32))[0];

        Assert.InRange(Numbers.RelativeError(padded, alone), 0, Tolerance);
        Assert.InRange(Numbers.RelativeError(marked.narrow(0, 0, 3), alone), 0, Tolerance);
        Assert.True(marked.isfinite().all().item<bool>());
    }

    [Fact]
    public void A_later_token_changes_nothing_before_it()
    {
        using var scope = NewDisposeScope();
        using var model = TinyLlama.Create();

        var one = model.Forward(Matrix([[1, 2, 3, 4]]), Positions(1, 4));
        var other = model.Forward(Matrix([[1, 2, 3, 30]]), Positions(1, 4));

        Assert.Equal(0, Numbers.RelativeError(one.narrow(1, 0, 3), other.narrow(1, 0, 3)));
        Assert.NotEqual(0, Numbers.RelativeError(one.narrow(1, 3, 1), other.narrow(1, 3, 1)));
    }

    [Fact]
    public void Linear_scaling_by_two_puts_even_positions_where_plain_positions_were()
    {
        using var scope = NewDisposeScope();
        using var plain = TinyLlama.Create();
        using var scaled = TinyLlama.Create(("rope_scaling", JsonNode.Parse("""{"rope_type":"linear","factor":2.0}""")));
        var ids = Matrix([[4, 5, 6, 7, 8, 9]]);

        var atPlain = plain.Forward(ids, Matrix([[0, 1, 2, 0, 1, 2]]), Matrix([[1, 1, 1, 2, 2, 2]]).to(ScalarType.Int32));
        var atDouble = scaled.Forward(ids, Matrix([[0, 2, 4, 0, 2, 4]]), Matrix([[1, 1, 1, 2, 2, 2]]).to(ScalarType.Int32));

        Assert.InRange(Numbers.RelativeError(atDouble, atPlain), 0, Tolerance);
    }

    [Fact]
    public void A_zero_layer_attention_and_a_bias_do_what_the_formula_says()
    {
        // With every projection weight zero, a layer adds o_proj's bias, then down_proj's bias; with D = 16 and all biases b,
        // h = e + 2b, and the logits are the head times h / rms(h).
        using var scope = NewDisposeScope();
        using var model = TinyLlama.Create(("attention_bias", true), ("mlp_bias", true), ("num_hidden_layers", 1), ("rms_norm_eps", 1e-12));
        var weights = model.NamedWeights().ToDictionary(weight => weight.Name, weight => weight.Parameter);
        using (no_grad())
        {
            foreach (var slot in model.Linears)
            {
                ((Linear)slot.Base).weight.zero_();
                ((Linear)slot.Base).bias!.fill_(slot.Name.EndsWith("o_proj", StringComparison.Ordinal) || slot.Name.EndsWith("down_proj", StringComparison.Ordinal) ? 0.5 : 3);
            }
        }

        var logits = model.Forward(Matrix([[7]]), Positions(1, 1))[0, 0];

        var hidden = weights["model.embed_tokens.weight"][7] + 1.0;
        var expected = weights["lm_head.weight"].matmul(hidden / hidden.square().mean().sqrt());
        Assert.InRange(Numbers.RelativeError(logits, expected), 0, Tolerance);
    }

    [Fact]
    public void A_slot_lists_every_linear_layer_but_the_head_and_takes_another_module()
    {
        using var scope = NewDisposeScope();
        using var model = TinyLlama.Create();
        Assert.Equal(
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
            model.Linears.Take(7).Select(slot => slot.Name["model.layers.0.".Length..]));
        Assert.Equal(2 * 7, model.Linears.Count);
        var (ids, positions) = (Matrix([[1, 2, 3]]), Positions(1, 3));
        var before = model.Forward(ids, positions);
        var names = model.NamedWeights().Select(weight => weight.Name).ToArray();

        foreach (var slot in model.Linears)
        {
            slot.Module = new Doubled((Linear)slot.Base);
        }

        model.eval();
        Assert.All(model.Linears, slot => Assert.False(slot.Module.training));
        model.train();
        Assert.All(model.Linears, slot => Assert.True(slot.Module.training));
        Assert.NotEqual(0, Numbers.RelativeError(model.Forward(ids, positions), before));
        Assert.Equal(names, model.NamedWeights().Select(weight => weight.Name));

        foreach (var slot in model.Linears)
        {
            slot.Module = slot.Base;
        }

        Assert.Equal(0, Numbers.RelativeError(model.Forward(ids, positions), before));
    }

    [Fact]
    public void New_weights_follow_the_seed_and_the_configured_deviation()
    {
        using var scope = NewDisposeScope();
        (string, JsonNode?)[] wide = [("vocab_size", 4096), ("initializer_range", 0.05), ("attention_bias", true)];
        using var model = TinyLlama.Create(wide);
        using var same = TinyLlama.Create(wide);
        using var other = CausalLm.Create(model.Config, ScalarType.Float32, CPU, seed: 8);

        foreach (var ((name, weight), (_, again), (_, different)) in model.NamedWeights().Zip(same.NamedWeights(), other.NamedWeights()))
        {
            Assert.False(weight.requires_grad);
            Assert.Equal(0, Numbers.RelativeError(weight, again));
            if (name.EndsWith("bias", StringComparison.Ordinal))
            {
                Assert.Equal(0, weight.abs().sum().item<float>());
            }
            else if (weight.shape.Length == 1)
            {
                Assert.Equal(0, (weight - 1).abs().sum().item<float>());
            }
            else
            {
                Assert.NotEqual(0, Numbers.RelativeError(weight, different));
            }
        }

        // 65,536 numbers: the deviation's own standard error is 0.05 / √131072 = 0.00014.
        var embedding = model.NamedWeights().First().Parameter;
        Assert.Equal(0.05, embedding.std().item<float>(), 0.001);
        Assert.Equal(0, embedding.mean().item<float>(), 0.001);
    }

    [Fact]
    public void A_model_in_bfloat16_is_close_to_float32()
    {
        using var scope = NewDisposeScope();
        using var wide = TinyLlama.Create();
        using var narrow = CausalLm.Create(wide.Config, ScalarType.BFloat16, CPU, seed: 7);
        Assert.Equal(ScalarType.BFloat16, narrow.DType);

        var expected = wide.Forward(Matrix([[1, 2, 3, 4]]), Positions(1, 4));
        var seen = narrow.Forward(Matrix([[1, 2, 3, 4]]), Positions(1, 4));
        var masked = narrow.Forward(Matrix([[1, 2, 3, 4]]), Positions(1, 4), Matrix([[1, 1, 1, 1]]).to(ScalarType.Int32));

        Assert.Equal(ScalarType.BFloat16, seen.dtype);
        Assert.InRange(Numbers.RelativeError(seen, expected), 0, 2e-2);
        Assert.InRange(Numbers.RelativeError(masked, expected), 0, 2e-2);
    }

    [Fact]
    public void A_sequence_beyond_the_models_longest_is_refused()
    {
        using var scope = NewDisposeScope();
        using var model = TinyLlama.Create();

        var error = Assert.Throws<TrainingException>(() => model.Forward(Matrix([[.. Enumerable.Repeat(1, 33)]]), Positions(1, 33)));

        Assert.Equal("data.max_length", error.Param);
        Assert.Contains("set data.max_length to at most 32", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Steps_leave_no_tensor_behind(bool isPacked)
    {
        using var model = TinyLlama.Create();
        foreach (var (_, parameter) in model.NamedWeights())
        {
            parameter.requires_grad = true;
        }

        Step();   // gradients and rotary tables are made in the first step
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (var step = 0; step < 5; step++)
        {
            Step();
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);

        void Step()
        {
            using var scope = NewDisposeScope();
            var segments = isPacked ? Matrix([[1, 1, 2, 2, 0]]).to(ScalarType.Int32) : null;
            model.Forward(Matrix([[1, 2, 3, 4, 5]]), Positions(1, 5), segments).square().mean().backward();
        }
    }

    [Fact]
    public void A_forward_without_a_scope_leaves_only_its_result()
    {
        using var model = TinyLlama.Create();
        using var ids = Matrix([[1, 2, 3]]);
        using var positions = Positions(1, 3);
        model.Forward(ids, positions).Dispose();
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        using var logits = model.Forward(ids, positions);

        Assert.Equal(before + 1, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void A_disposed_model_frees_all_that_it_made()
    {
        TinyLlama.Create().Dispose();
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        using (var model = TinyLlama.Create())
        {
            using var scope = NewDisposeScope();
            model.Forward(Matrix([[1, 2, 3]]), Positions(1, 3));
            model.Linears[0].Module = new Doubled((Linear)model.Linears[0].Base);
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private sealed class Doubled : nn.Module<Tensor, Tensor>
    {
        private readonly Linear _layer;

        public Doubled(Linear layer)
            : base(nameof(Doubled)) => _layer = layer;

        public override Tensor forward(Tensor input) => _layer.call(input) * 2;
    }
}
