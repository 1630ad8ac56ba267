namespace TrainingService.Training.Data;

/// <summary>Gives each row the answer of another prompt.</summary>
/// <remarks>
/// A function of the file alone, so that a row has the same one in every epoch, whatever else is in its batch: that of the nearest row before
/// it with another prompt (before the first row stands the last one). TRL pairs the rows of each batch of the unshuffled file in the same way.
/// </remarks>
internal static class UnrelatedAnswers
{
    /// <summary>Rows of one prompt stand together; a file that has only one prompt is not searched for another.</summary>
    private const int LongestSearch = 16;

    /// <param name="maxLength">Tokens that prompt and answer may have together; the end of a longer answer is cut off.</param>
    public static IExamples AddTo(IExamples examples, int maxLength) => new ExtendedExamples(examples, (index, example) =>
    {
        var answer = AnswerOf(PartnerOf(examples, index, example));
        return example with { Unrelated = answer[..Math.Min(answer.Length, maxLength - PromptOf(example).Length)] };
    });

    /// <summary>Tokens before the answer.</summary>
    public static ReadOnlySpan<int> PromptOf(Example example) => example.InputIds.AsSpan(0, AnswerAt(example));

    private static int[] AnswerOf(Example example) => example.InputIds[AnswerAt(example)..];

    private static int AnswerAt(Example example) => Array.FindIndex(example.Labels, label => label != Example.Ignored);

    private static Example PartnerOf(IExamples examples, int index, Example example)
    {
        for (var back = 1; back <= Math.Min(LongestSearch, examples.Count - 1); back++)
        {
            var other = examples[Before(back)];
            if (!PromptOf(other).SequenceEqual(PromptOf(example)))
            {
                return other;
            }
        }

        return examples[Before(1)];

        int Before(int back) => (index - back + examples.Count) % examples.Count;
    }
}
