using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using System.Text;
using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Products with frozen weights, by the library that is faster on this processor.</summary>
/// <remarks>
/// libtorch multiplies float32 numbers with MKL, which takes its AVX2 path on AMD's processors and reaches less than half their rate there.
/// oneDNN, which runs its bfloat16 products, writes its code for what the processor has. A convolution of width one is a product and is the
/// way to it: the activations are not copied. Which library runs depends on the processor alone, so a run that goes on stays the same to the bit.
/// </remarks>
internal static class Products
{
    private const string Script = """
        def multiply(x, weight):
            y = torch.mkldnn_convolution(x.view(1, x.size(0), 1, x.size(1)).permute(0, 3, 1, 2), weight.unsqueeze(2).unsqueeze(3),
                                         None, [0, 0], [1, 1], [1, 1], 1)
            return y.permute(0, 2, 3, 1).reshape(x.size(0), weight.size(0))

        """;

    private static readonly Lazy<jit.CompilationUnit> Compiled = new(() => jit.compile(Script));

    /// <summary>Whether oneDNN is the faster one for float32.</summary>
    public static bool PrefersOneDnn { get; } = Avx512F.IsSupported && Vendor() == "AuthenticAMD";

    /// <summary>x·Wᵀ + b, in the caller's dispose scope; no gradients flow through it.</summary>
    /// <param name="x">[N, K].</param>
    /// <param name="weight">[M, K], in the format of <paramref name="x"/>.</param>
    /// <param name="bias">[M]; null for none.</param>
    public static Tensor Multiply(Tensor x, Tensor weight, Tensor? bias = null)
    {
        if (!ByOneDnn(x))
        {
            return bias is null ? x.mm(weight.t()) : addmm(bias, x, weight.t(), beta: 1, alpha: 1);
        }

        var product = OneDnn(x, weight);
        return bias is null ? product : product.add_(bias);
    }

    /// <summary>Adds x·Wᵀ to a sum of such products, in place; null: the first one.</summary>
    public static Tensor Add(Tensor? sum, Tensor x, Tensor weight) => sum is null
        ? Multiply(x, weight)
        : ByOneDnn(x) ? sum.add_(OneDnn(x, weight)) : sum.addmm_(x, weight.t());

    private static bool ByOneDnn(Tensor x) =>
        PrefersOneDnn && x.dtype == ScalarType.Float32 && x.device.type == TorchSharp.DeviceType.CPU;

    /// <summary>x·Wᵀ by oneDNN: float32, on a CPU.</summary>
    internal static Tensor OneDnn(Tensor x, Tensor weight)
    {
        using var scope = NewDisposeScope();
        return Compiled.Value.invoke<Tensor>("multiply", x.contiguous(), weight).MoveToOuterDisposeScope();
    }

    private static string Vendor()
    {
        var (_, first, third, second) = X86Base.CpuId(0, 0);
        return Encoding.ASCII.GetString(MemoryMarshal.AsBytes<int>([first, second, third]));
    }
}
