using static TorchSharp.torch;

namespace TrainingService.Training.Quantization;

/// <summary>A weight in codes: blocks of numbers in row-major order, each with a scale. Immutable.</summary>
/// <remarks>
/// Dettmers et al. 2023, arXiv:2305.14314, §2 (blocks), §3 (double quantisation: the scales less their mean are quantised in turn, by the
/// dynamic map in blocks of 256). Layout and arithmetic are those of the authors' library, so codes and values are the same as there.
/// </remarks>
public sealed class QuantizedTensor : IDisposable
{
    private const int ScalesPerBlock = 256;

    /// <summary>Numbers that are worked on at once, so that what is needed besides stays small. A multiple of every block size.</summary>
    private const long ChunkNumbers = 1 << 22;

    // Below it a reciprocal overflows. Such a block is zero for all that is computed with it.
    private const float SmallestScale = 1.17549435e-38f;

    private static readonly CodeBook ScaleBook = new(DynamicMap.Signed);

    private readonly int _blockSize;
    private readonly int _bits;
    private readonly Tensor _codes;             // uint8; of codes in a byte the first are the high bits; three bits: eight codes in three bytes
    private readonly Tensor _table;             // see CodeBook.Table
    private readonly Tensor? _scales;           // float32, one per block; null: in codes themselves
    private readonly QuantizedTensor? _scaleCodes;
    private readonly float _scaleMean;

    private QuantizedTensor(long[] shape, Tensor codes, CodeBook book, int blockSize, Tensor scales, bool quantizeScales)
    {
        Shape = shape;
        _codes = codes.DetachFromDisposeScope();
        _bits = book.Bits;
        _blockSize = blockSize;
        _table = book.Table(codes.device).DetachFromDisposeScope();
        if (!quantizeScales)
        {
            _scales = scales.DetachFromDisposeScope();
            return;
        }

        using var scope = NewDisposeScope();
        _scaleMean = (float)scales.to_type(ScalarType.Float64).mean().item<double>();
        _scaleCodes = Of(scales - _scaleMean, ScaleBook, ScalesPerBlock, quantizeScales: false);
    }

    public long[] Shape { get; }

    /// <summary>How many numbers it stands for.</summary>
    public long Count => Shape.Aggregate(1L, (product, size) => product * size);

    /// <summary>Bytes of codes and scales.</summary>
    public long Bytes => BytesOf(Count, _bits, _blockSize, _scaleCodes is not null);

    /// <summary>The codes as they are stored, uint8; two to a byte where they have four bits, the first in the high half.</summary>
    public Tensor Codes => _codes;

    /// <summary>Quantises a tensor of any shape and number format.</summary>
    /// <returns>The caller's to dispose; null when a number is not finite.</returns>
    internal static QuantizedTensor? Of(Tensor weight, CodeBook book, int blockSize, bool quantizeScales)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var flat = weight.reshape(-1);
        var count = flat.numel();
        var scales = empty(BlocksOf(count, blockSize), dtype: ScalarType.Float32, device: weight.device);
        var codes = empty(CodeBytes(count, book.Bits), dtype: ScalarType.Byte, device: weight.device);
        for (long start = 0; start < count; start += ChunkNumbers)
        {
            using var chunkScope = NewDisposeScope();
            var part = flat.narrow(0, start, Math.Min(ChunkNumbers, count - start)).to_type(ScalarType.Float32);
            var blocks = Blocks(part, blockSize);
            var absmax = blocks.abs().amax([1L], keepdim: true);   // [n, 1]
            var nearest = book.Nearest(blocks.mul(absmax.clamp(min: SmallestScale).reciprocal())).view(-1);
            var packed = book.Bits == 8 ? nearest : Packed(nearest, book.Bits);
            var bytes = CodeBytes(part.numel(), book.Bits);
            codes.narrow(0, CodeBytes(start, book.Bits), bytes).copy_(packed.narrow(0, 0, bytes));
            scales.narrow(0, start / blockSize, absmax.numel()).copy_(absmax.squeeze(1));
        }

        return scales.isfinite().all().item<bool>()
            ? new QuantizedTensor([.. weight.shape], codes, book, blockSize, scales, quantizeScales)
            : null;
    }

    internal static long BytesOf(long count, int bits, int blockSize, bool quantizesScales)
    {
        var blocks = BlocksOf(count, blockSize);
        return CodeBytes(count, bits)
            + (quantizesScales ? blocks + (sizeof(float) * (BlocksOf(blocks, ScalesPerBlock) + 1)) : sizeof(float) * blocks);
    }

    /// <summary>The scale of each block, float32, in the caller's dispose scope.</summary>
    public Tensor Scales()
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        return (_scaleCodes is null ? _scales!.view(-1) : _scaleCodes.Dequantize(ScalarType.Float32).add_(_scaleMean)).MoveToOuterDisposeScope();
    }

    /// <summary>The numbers that the codes stand for: value of the code times scale in float32, rounded once to <paramref name="dtype"/>.</summary>
    /// <returns>A new tensor of <see cref="Shape"/> in the caller's dispose scope.</returns>
    public Tensor Dequantize(ScalarType dtype)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var result = empty(Shape, dtype: dtype, device: _codes.device);
        if (_bits is 4 or 8 && _codes.device.type == TorchSharp.DeviceType.CPU && dtype is ScalarType.Float32 or ScalarType.BFloat16)
        {
            DequantizeKernel.Run(_codes, _table, _bits, Scales(), _blockSize, result);
        }
        else
        {
            LookUp(result);
        }

        return result.MoveToOuterDisposeScope();
    }

    /// <summary><see cref="Dequantize"/> by operators of libtorch, for every device and number format.</summary>
    /// <param name="result">Of <see cref="Shape"/>; overwritten.</param>
    public void LookUp(Tensor result)
    {
        using var off = no_grad();
        using var scope = NewDisposeScope();
        var (flat, scales, count) = (result.view(-1), Scales(), Count);
        for (long start = 0; start < count; start += ChunkNumbers)
        {
            using var chunkScope = NewDisposeScope();
            var numbers = Math.Min(ChunkNumbers, count - start);
            var codes = _codes.narrow(0, CodeBytes(start, _bits), CodeBytes(numbers, _bits)).to_type(ScalarType.Int32);
            var blocks = Blocks(_table.index_select(0, _bits == 3 ? Twelves(codes) : codes).view(-1).narrow(0, 0, numbers), _blockSize);
            blocks = blocks * scales.narrow(0, start / _blockSize, blocks.shape[0]).unsqueeze(1);
            flat.narrow(0, start, numbers).copy_(blocks.view(-1).narrow(0, 0, numbers));
        }
    }

    public void Dispose()
    {
        _codes.Dispose();
        _table.Dispose();
        _scales?.Dispose();
        _scaleCodes?.Dispose();
    }

    /// <summary>A flat tensor as rows of one block each, [n, block]; the last is filled up with zeros.</summary>
    private static Tensor Blocks(Tensor flat, int blockSize)
    {
        var missing = (BlocksOf(flat.numel(), blockSize) * blockSize) - flat.numel();
        return (missing == 0 ? flat : cat([flat, zeros(missing, dtype: flat.dtype, device: flat.device)])).view(-1, blockSize);
    }

    /// <summary>Codes [n], one to a byte, as they are stored; n is a multiple of eight.</summary>
    private static Tensor Packed(Tensor codes, int bits)
    {
        if (bits == 4)
        {
            var pairs = codes.view(-1, 2);
            return pairs.select(1, 0).mul(16).add_(pairs.select(1, 1));
        }

        var group = codes.to_type(ScalarType.Int32).view(-1, bits == 2 ? 4 : 8);
        var whole = group.select(1, 0);
        for (var place = 1; place < group.shape[1]; place++)
        {
            whole = whole.mul(1 << bits).add(group.select(1, place));
        }

        return (bits == 2
            ? whole
            : stack([whole.floor_divide(1 << 16), whole.floor_divide(1 << 8).remainder(1 << 8), whole.remainder(1 << 8)], 1).view(-1)).to_type(ScalarType.Byte);
    }

    /// <summary>Three bytes to two numbers of 12 bits: [3·n] to [2·n], int32.</summary>
    private static Tensor Twelves(Tensor bytes)
    {
        var triples = bytes.view(-1, 3);
        var whole = triples.select(1, 0).mul(1 << 16).add(triples.select(1, 1).mul(1 << 8)).add(triples.select(1, 2));
        return stack([whole.floor_divide(1 << 12), whole.remainder(1 << 12)], 1).view(-1);
    }

    private static long BlocksOf(long count, int blockSize) => (count + blockSize - 1) / blockSize;

    private static long CodeBytes(long count, int bits) => bits == 3 ? (count + 7) / 8 * 3 : ((count * bits) + 7) / 8;
}
