using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Numerics;
using System.Text.Json.Serialization;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Quantization;

/// <summary>In how few bits the frozen weights of the linear layers are held.</summary>
/// <remarks>
/// Dettmers et al. 2023, QLoRA, arXiv:2305.14314, §2 and §3. A weight is cut, row by row, into blocks; a block is its largest absolute value
/// and, for each number, the place of the nearest value of a code book in [-1, 1]. The output head, the embedding, the norms and the biases
/// stay as they are.
/// </remarks>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(Nf4Config), "nf4")]
[JsonDerivedType(typeof(Int8Config), "int8")]
public abstract record QuantizationConfig : IValidatableObject
{
    protected QuantizationConfig(bool doubleQuantization) => DoubleQuantization = doubleQuantization;

    [Description("Numbers that share one scale; a power of two."), Range(32, 4096)]
    public int BlockSize { get; init; } = 64;

    [Description("Hold the scales in 8 bits, too, less their mean and in blocks of 256.")]
    public bool DoubleQuantization { get; init; }

    /// <summary>What a spec calls it.</summary>
    internal abstract string Name { get; }

    internal abstract CodeBook CodeBook { get; }

    /// <summary>Whether a weight of a model is held in codes: that of each linear layer but the output head.</summary>
    public static bool Covers(WeightShape weight) => weight.IsLinear && weight.Name != CheckpointNames.HeadName;

    /// <summary>Turns a weight into codes.</summary>
    /// <param name="weight">Any shape and number format; stays the caller's.</param>
    /// <param name="name">Of the weight, for messages.</param>
    /// <returns>The caller's to dispose, on the weight's device.</returns>
    /// <exception cref="TrainingException">The weight holds a number that is not finite.</exception>
    public QuantizedTensor Quantize(Tensor weight, string name) =>
        QuantizedTensor.Of(weight, CodeBook, BlockSize, DoubleQuantization) ?? throw TrainingException.InvalidData(
            $"Tensor {name} holds numbers that are not finite, so it cannot be quantised; the checkpoint is damaged.", name);

    /// <summary>Bytes that a weight of so many numbers takes.</summary>
    public long BytesOf(long count) => QuantizedTensor.BytesOf(count, CodeBook.Bits, BlockSize, DoubleQuantization);

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (!BitOperations.IsPow2(BlockSize))
        {
            yield return new($"is {BlockSize}; it must be a power of two, such as 64.", [nameof(BlockSize)]);
        }
    }
}
