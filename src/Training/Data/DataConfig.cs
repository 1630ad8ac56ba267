using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace TrainingService.Training.Data;

/// <summary>Layout of the rows of a data set.</summary>
public enum DataFormat
{
    /// <summary>Decided by the column names of the first rows.</summary>
    Auto,

    /// <summary><c>text</c>.</summary>
    Text,

    /// <summary><c>prompt</c>, <c>completion</c>: both strings, or both message lists.</summary>
    PromptCompletion,

    /// <summary><c>instruction</c>, <c>input</c>, <c>output</c>, <c>system</c>, <c>history</c>.</summary>
    Alpaca,

    /// <summary><c>messages</c> of <c>role</c> and <c>content</c>.</summary>
    Messages,

    /// <summary><c>conversations</c> of <c>from</c> and <c>value</c>.</summary>
    Sharegpt,

    /// <summary><c>input_ids</c>, <c>labels</c>, <c>attention_mask</c>.</summary>
    Tokenized,

    /// <summary><c>prompt</c>, <c>chosen</c>, <c>rejected</c> and the other forms of a better and a worse answer.</summary>
    Preference,

    /// <summary><c>prompt</c>, <c>completion</c>, <c>label</c> (true or false).</summary>
    Unpaired,

    /// <summary><c>prompt</c>, <c>completion</c>, <c>score</c> (a number).</summary>
    Scored,
}

/// <summary>Which rows are trained on, and how a row becomes a token sequence.</summary>
public sealed record DataConfig : IValidatableObject
{
    /// <summary>Of <see cref="MaxLength"/>; a run lowers it to the positions that the model has.</summary>
    public const int DefaultMaxLength = 1024;

    [Description("Training rows: a file id (file-…), or a local file for the command line. JSONL, JSON array or CSV; .gz of each.")]
    [Required(AllowEmptyStrings = false)]
    public required string Train { get; init; }

    [Description("Validation rows, like train; null: validation_split decides.")]
    public string? Validation { get; init; }

    [Description("Rows that an adapter looks at before it starts, like train, for those that do; null: the training rows.")]
    public string? Calibration { get; init; }

    [Description("Share of the training rows that is set aside for validation when no validation file is given."), Range(0, 0.9)]
    public double ValidationSplit { get; init; }

    [Description("Layout of the rows; auto: decided by the column names.")]
    public DataFormat Format { get; init; } = DataFormat.Auto;

    [Description("Renames columns before the layout is decided: {\"question\": \"prompt\"} reads column question as prompt.")]
    public IReadOnlyDictionary<string, string> Columns { get; init; } = new Dictionary<string, string>();

    [Description("Longest sequence in tokens; longer rows are cut at the end."), Range(2, 1_048_576)]
    public int MaxLength { get; init; } = DefaultMaxLength;

    [Description("Whether several rows share one sequence. No row sees another: attention and positions start anew.")]
    public bool Packing { get; init; } = true;

    [Description("Whether rows are visited in a new random order, fixed by the seed, in each epoch.")]
    public bool Shuffle { get; init; } = true;

    [Description("Whether prompts (and user turns) carry loss too. Plain text always does.")]
    public bool TrainOnPrompt { get; init; }

    /// <summary>The column in which a row names its class.</summary>
    internal const string ClassColumn = "class";

    /// <summary>The classes that rows belong to, for adapters that ask; null: rows have none. See <see cref="TrainingSpec.DataForAdapter"/>.</summary>
    internal IReadOnlyList<string>? Classes { get; init; }

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        if (Validation is not null && ValidationSplit > 0)
        {
            yield return new(
                "must be 0 when data.validation is given: rows are set aside only in the absence of a validation file.",
                [nameof(ValidationSplit), nameof(Validation)]);
        }

        foreach (var column in Columns.GroupBy(pair => pair.Value).Where(group => group.Count() > 1))
        {
            yield return new(
                $"renames {string.Join(" and ", column.Select(pair => $"'{pair.Key}'"))} to '{column.Key}'; each name can be given once.",
                [nameof(Columns)]);
        }
    }
}
