namespace TrainingService.Training;

/// <summary>One thing that is wrong with a spec.</summary>
/// <param name="Path">JSON path of the member, such as <c>adapter.rank</c> or <c>optimizer.betas[1]</c>; empty for the document as a whole.</param>
/// <param name="Message">One sentence: the member, the value seen, the rule, the fix.</param>
/// <param name="Code">One of <see cref="SpecErrorCodes"/>.</param>
public sealed record SpecError(string Path, string Message, string Code);

/// <summary>A spec that was read, or everything that is wrong with it.</summary>
/// <param name="Spec">Null exactly when there are errors.</param>
/// <param name="Errors">In the order of the document; at most <see cref="SpecJson.MaxErrors"/>.</param>
public sealed record SpecResult(TrainingSpec? Spec, IReadOnlyList<SpecError> Errors);

/// <summary>Kinds of <see cref="SpecError"/>, for programs.</summary>
public static class SpecErrorCodes
{
    /// <summary>Not JSON, nested too deeply, or text that is not Unicode.</summary>
    public const string MalformedJson = "malformed_json";
    public const string DuplicateMember = "duplicate_member";
    public const string UnknownMember = "unknown_member";

    /// <summary>A <c>type</c> that its family does not have.</summary>
    public const string UnknownType = "unknown_type";
    public const string MissingRequired = "missing_required";

    /// <summary>Another kind of JSON value than the member has.</summary>
    public const string WrongKind = "wrong_kind";
    public const string NotAnInteger = "not_an_integer";
    public const string OutOfRange = "out_of_range";

    /// <summary>A text that is not one of those allowed.</summary>
    public const string UnknownValue = "unknown_value";
    public const string NullNotAllowed = "null_not_allowed";
    public const string InvalidValue = "invalid_value";

    /// <summary>Members that are right alone and wrong together.</summary>
    public const string Conflict = "conflict";

    /// <summary>A module that the base model does not have.</summary>
    public const string UnknownModule = "unknown_module";
    public const string RankTooLarge = "rank_too_large";
    public const string TooLong = "too_long";
    public const string TooLarge = "too_large";
}
