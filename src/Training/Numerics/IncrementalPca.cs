using static TorchSharp.torch;

namespace TrainingService.Training.Numerics;

/// <summary>Principal components of rows that come in portions: what came before is kept as its leading components alone.</summary>
/// <remarks>
/// Ross et al. 2008, Incremental Learning for Robust Visual Tracking, §3.1, as in scikit-learn's <c>IncrementalPCA</c>: exact while all rows
/// together have no more directions than are kept. Its tensors belong to the dispose scope that it is made in.
/// </remarks>
internal sealed class IncrementalPca
{
    private readonly Generator _generator;
    private readonly Tensor _mean;
    private readonly Tensor _scaled;   // diag(S)·Vᵀ
    private double _spread;

    /// <param name="width">Numbers in a row.</param>
    /// <param name="count">Components that are kept, at most <paramref name="width"/>.</param>
    /// <param name="generator">On the CPU; starts the decomposition of large portions.</param>
    public IncrementalPca(long width, long count, Device device, Generator generator)
    {
        _generator = generator;
        _mean = zeros(width, dtype: ScalarType.Float32, device: device);
        _scaled = zeros(count, width, dtype: ScalarType.Float32, device: device);
    }

    /// <summary>Rows that there were.</summary>
    public long Rows { get; private set; }

    /// <summary>Adds rows.</summary>
    /// <param name="rows">[N, width].</param>
    public void Add(Tensor rows)
    {
        using var scope = NewDisposeScope();
        var wide = rows.to_type(ScalarType.Float32);
        var count = wide.shape[0];
        var mean = wide.mean([0L]);
        var centred = wide - mean;
        var shift = (_mean - mean) * Math.Sqrt((double)Rows * count / (Rows + count));   // what the two means differ in, as one more row
        var (_, values, right) = SingularVectors.Leading(cat([_scaled, centred, shift.unsqueeze(0)], 0), _scaled.shape[0], _generator);
        _scaled.copy_(values.unsqueeze(1) * right);
        _spread += centred.square().sum().item<float>() + shift.square().sum().item<float>();
        _mean.add_(mean - _mean, alpha: (double)count / (Rows + count));
        Rows += count;
    }

    /// <summary>The components, one to a row and of length one, in descending order of what they explain: [count, width], in the caller's dispose scope.</summary>
    public Tensor Components()
    {
        using var scope = NewDisposeScope();
        return (_scaled / _scaled.norm(1, true, 2).clamp_min(1e-30)).MoveToOuterDisposeScope();
    }

    /// <summary>The share of the rows' variance that each component explains.</summary>
    public double[] Shares()
    {
        using var scope = NewDisposeScope();
        return _scaled.square().sum(dim: 1).cpu().data<float>().Select(square => square / _spread).ToArray();
    }
}
