namespace TrainingService.Training.Adapters;

/// <summary>How many numbers an adapter trains.</summary>
/// <param name="Added">In tensors of its own, which are float32.</param>
/// <param name="InPlace">In weights of the base model, which keep the model's number format.</param>
public readonly record struct TrainedCounts(long Added, long InPlace)
{
    public long Total => Added + InPlace;
}
