using TrainingService.Training.Numerics;
using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>silu(gate) · up as one node of the graph: the gate's activation is computed again for the gradient and not kept.</summary>
/// <remarks>Shazeer 2020, arXiv:2002.05202, eq. 6.</remarks>
internal sealed class GatedSilu : autograd.SingleTensorFunction<GatedSilu>
{
    /// <summary>aten's own gradient of silu, which TorchSharp does not bind.</summary>
    private const string Script = """
        def silu_backward(gradient, gate):
            return torch.silu_backward(gradient, gate)

        """;

    private static readonly Lazy<jit.CompilationUnit> Compiled = new(() => jit.compile(Script));

    private const string Call = "call";

    public override string Name => nameof(GatedSilu);

    /// <summary>Two tensors of one shape to a third, in the caller's dispose scope.</summary>
    public static Tensor Run(Tensor gate, Tensor up)
    {
        using var scope = NewDisposeScope();
        return apply(gate, up).MoveToOuterDisposeScope();
    }

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        using var scope = NewDisposeScope();
        var (gate, up) = ((Tensor)vars[0], (Tensor)vars[1]);
        ctx.save_for_backward([gate, up]);
        ctx.save_data(Call, BackwardPass.OfThisThread);
        ctx.set_materialize_grads(false);
        return nn.functional.silu(gate).mul_(up).MoveToOuterDisposeScope();
    }

    public override List<Tensor?> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var pass = (BackwardPass)ctx.get_data(Call);
        return pass.Compute([grad_output], count: 2, () =>
        {
            var saved = ctx.get_saved_variables();
            var (gate, up) = (saved[0], saved[1]);
            var ofUp = nn.functional.silu(gate).mul_(grad_output);
            var ofGate = Compiled.Value.invoke<Tensor>("silu_backward", grad_output * up, gate);
            return [ofGate, ofUp];
        });
    }
}
