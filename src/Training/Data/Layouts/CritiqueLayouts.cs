using TrainingService.Training.Data.Rows;

namespace TrainingService.Training.Data.Layouts;

/// <summary>Pairs of answers with a critique of each.</summary>
/// <remarks>
/// Beside the columns of any pair stand <c>chosen_critique</c> and <c>rejected_critique</c>; <c>is_tie</c> says that neither answer is better.
/// </remarks>
internal static class CritiqueLayouts
{
    private const string Chosen = "chosen_critique";
    private const string Rejected = "rejected_critique";
    private const string Tie = "is_tie";

    /// <summary>The layouts of pairs whose rows hold two answers; a ranking has no two to criticise.</summary>
    public static IReadOnlyList<RowLayout> All { get; } =
    [
        .. PreferenceLayouts.Pairs.Where(pair => pair.Name != PreferenceLayouts.Ranked).Select(pair => pair with
        {
            Name = pair.Name + "_critiqued",
            Required = [.. pair.Required, Chosen, Rejected],
            Optional = [.. pair.Optional, Tie],
            Read = fields => Read(fields, (JudgedAnswers)pair.Read(fields)),
        }),
    ];

    private static JudgedAnswers Read(Fields fields, JudgedAnswers pair) => pair with
    {
        Answers = [new CritiquedAnswer(pair.Answers[0], fields.Text(Chosen)), new CritiquedAnswer(pair.Answers[1], fields.Text(Rejected))],
        IsTie = fields.Has(Tie) && PreferenceLayouts.Flag(fields, Tie) == 1,
    };
}
