namespace TrainingService.Training.Throughput;

/// <summary>The middle of a list of figures: one slow step among many leaves it where it is.</summary>
public static class Median
{
    /// <param name="values">At least one; the lower one of two middles counts.</param>
    public static double Of(IEnumerable<double> values)
    {
        var ordered = values.Order().ToList();
        return ordered[(ordered.Count - 1) / 2];
    }
}
