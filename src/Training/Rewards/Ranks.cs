namespace TrainingService.Training.Rewards;

/// <summary>Correlations of two columns of numbers.</summary>
public static class Ranks
{
    /// <summary>Pearson's correlation; null when there are fewer than two numbers or one of the columns is constant.</summary>
    public static double? Pearson(IReadOnlyList<double> x, IReadOnlyList<double> y)
    {
        if (x.Count < 2)
        {
            return null;
        }

        var (meanX, meanY) = (x.Average(), y.Average());
        var (xx, yy, xy) = (0.0, 0.0, 0.0);
        for (var i = 0; i < x.Count; i++)
        {
            var (a, b) = (x[i] - meanX, y[i] - meanY);
            (xx, yy, xy) = (xx + (a * a), yy + (b * b), xy + (a * b));
        }

        return xx == 0 || yy == 0 ? null : Math.Clamp(xy / Math.Sqrt(xx * yy), -1, 1);
    }

    /// <summary>Spearman's: Pearson's of the ranks, equal numbers sharing the mean of theirs.</summary>
    public static double? Spearman(IReadOnlyList<double> x, IReadOnlyList<double> y) => Pearson(Of(x), Of(y));

    /// <summary>Ranks from 1, equal numbers sharing the mean of theirs.</summary>
    public static double[] Of(IReadOnlyList<double> numbers)
    {
        var order = Enumerable.Range(0, numbers.Count).ToArray();
        Array.Sort(order, (a, b) => numbers[a].CompareTo(numbers[b]));
        var ranks = new double[order.Length];
        for (var first = 0; first < order.Length;)
        {
            var end = first + 1;
            while (end < order.Length && numbers[order[end]].CompareTo(numbers[order[first]]) == 0)
            {
                end++;
            }

            for (var i = first; i < end; i++)
            {
                ranks[order[i]] = (first + 1 + end) / 2.0;
            }

            first = end;
        }

        return ranks;
    }
}
