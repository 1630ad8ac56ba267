using System.Text.Json;

namespace TrainingService.Bench;

/// <summary>One measured number.</summary>
/// <param name="Name">What it is.</param>
/// <param name="Conditions">Of what, in which amounts.</param>
internal sealed record Figure(string Name, double Value, string Unit, string Conditions)
{
    public static readonly JsonSerializerOptions Json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    public void Print() => Console.WriteLine(JsonSerializer.Serialize(this, Json));

    /// <summary>The value below which this share of all lies.</summary>
    public static double Quantile(IEnumerable<double> values, double share)
    {
        var ordered = values.Order().ToList();
        return ordered[(int)Math.Min(ordered.Count - 1, Math.Floor(share * ordered.Count))];
    }
}
