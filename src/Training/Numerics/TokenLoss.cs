using TrainingService.Training.Data;

namespace TrainingService.Training.Numerics;

/// <summary>What a next-token prediction is measured against.</summary>
public static class TokenLoss
{
    /// <summary>Labels moved to the positions that predict them: the logits of position t - 1 predict the label of t.</summary>
    /// <param name="labels">[B, T], row-major, <see cref="Example.Ignored"/> where there is no loss.</param>
    /// <returns>[B, T]; the last position of each row predicts nothing.</returns>
    public static long[] Targets(ReadOnlySpan<long> labels, int length)
    {
        var targets = new long[labels.Length];
        for (var start = 0; start < labels.Length; start += length)
        {
            labels.Slice(start + 1, length - 1).CopyTo(targets.AsSpan(start));
            targets[start + length - 1] = Example.Ignored;
        }

        return targets;
    }
}
