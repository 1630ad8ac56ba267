using TorchSharp;

namespace TrainingService.Training.Checkpoints;

/// <summary>Number formats of a safetensors file that libtorch holds as they are.</summary>
public enum SafeTensorType
{
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

/// <summary>What a number format is called and how many bytes one number takes.</summary>
public static class SafeTensorTypes
{
    /// <summary>The format called <paramref name="name"/> in a header; null when it is unknown here (float8 and the like).</summary>
    public static SafeTensorType? Parse(string name) => name switch
    {
        "BOOL" => SafeTensorType.Bool,
        "U8" => SafeTensorType.U8,
        "I8" => SafeTensorType.I8,
        "I16" => SafeTensorType.I16,
        "I32" => SafeTensorType.I32,
        "I64" => SafeTensorType.I64,
        "F16" => SafeTensorType.F16,
        "BF16" => SafeTensorType.BF16,
        "F32" => SafeTensorType.F32,
        "F64" => SafeTensorType.F64,
        _ => null,
    };

    /// <summary>Name in a header.</summary>
    public static string WireName(this SafeTensorType type) => type.ToString().ToUpperInvariant();

    /// <summary>Bytes of one number.</summary>
    public static int Size(this SafeTensorType type) => type switch
    {
        SafeTensorType.Bool or SafeTensorType.U8 or SafeTensorType.I8 => 1,
        SafeTensorType.I16 or SafeTensorType.F16 or SafeTensorType.BF16 => 2,
        SafeTensorType.I32 or SafeTensorType.F32 => 4,
        SafeTensorType.I64 or SafeTensorType.F64 => 8,
    };

    /// <summary>The libtorch dtype with the same bits.</summary>
    public static torch.ScalarType ToScalarType(this SafeTensorType type) => type switch
    {
        SafeTensorType.Bool => torch.ScalarType.Bool,
        SafeTensorType.U8 => torch.ScalarType.Byte,
        SafeTensorType.I8 => torch.ScalarType.Int8,
        SafeTensorType.I16 => torch.ScalarType.Int16,
        SafeTensorType.I32 => torch.ScalarType.Int32,
        SafeTensorType.I64 => torch.ScalarType.Int64,
        SafeTensorType.F16 => torch.ScalarType.Float16,
        SafeTensorType.BF16 => torch.ScalarType.BFloat16,
        SafeTensorType.F32 => torch.ScalarType.Float32,
        SafeTensorType.F64 => torch.ScalarType.Float64,
    };

    /// <summary>The format that holds <paramref name="type"/> without change.</summary>
    /// <exception cref="ArgumentException">Safetensors has no such format (complex, quantised).</exception>
    public static SafeTensorType FromScalarType(torch.ScalarType type) =>
        Enum.GetValues<SafeTensorType>().Where(each => each.ToScalarType() == type).Cast<SafeTensorType?>().SingleOrDefault()
        ?? throw new ArgumentException($"Safetensors cannot hold {type}; convert the tensor first.", nameof(type));

    /// <summary>Whether the format holds real numbers (and so can be a weight).</summary>
    public static bool IsFloat(this SafeTensorType type) =>
        type is SafeTensorType.F16 or SafeTensorType.BF16 or SafeTensorType.F32 or SafeTensorType.F64;
}
