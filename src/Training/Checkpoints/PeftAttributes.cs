namespace TrainingService.Training.Checkpoints;

/// <summary>The method as Hugging Face PEFT calls it in <c>peft_type</c>. Methods without it are unknown to PEFT.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class PeftTypeAttribute(string name) : Attribute
{
    public string Name { get; } = name;
}

/// <summary>The field of PEFT's configuration that a member stands for, where it is not called the same; null: PEFT has no such field.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class PeftNameAttribute(string? name) : Attribute
{
    public string? Name { get; } = name;
}

/// <summary>A field of PEFT's configuration that has one value here. A saved adapter with another one is refused.</summary>
/// <param name="json">The value, as JSON.</param>
[AttributeUsage(AttributeTargets.Class, AllowMultiple = true)]
public sealed class PeftConstantAttribute(string name, string json) : Attribute
{
    public string Name { get; } = name;

    public string Json { get; } = json;
}
