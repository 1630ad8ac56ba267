namespace TrainingService.Training.Quantization;

/// <summary>4-bit NormalFloat: the code book has a sixteenth of a normal distribution beside each of its values, and an exact zero.</summary>
/// <remarks>Dettmers et al. 2023, arXiv:2305.14314, §3 and appendix E.</remarks>
[Method(
    "NF4",
    "Holds the frozen linear layers in 4-bit NormalFloat: 4.13 bits per weight instead of 16 or 32.",
    "LoRA on a base model that does not fit otherwise (QLoRA): an eighth of the memory of float32 weights, for a little time per step.",
    Paper = "Dettmers et al. 2023, QLoRA: Efficient Finetuning of Quantized LLMs",
    Arxiv = "2305.14314")]
public sealed record Nf4Config : QuantizationConfig
{
    private static readonly CodeBook Book = new(Values);

    public Nf4Config()
        : base(doubleQuantization: true)
    {
    }

    /// <summary>The code book, as the appendix lists it.</summary>
    public static ReadOnlySpan<float> Values =>
    [
        -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
        -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
        0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
        0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f,
    ];

    internal override string Name => "nf4";

    internal override CodeBook CodeBook => Book;
}
