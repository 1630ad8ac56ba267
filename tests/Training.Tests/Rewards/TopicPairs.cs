namespace TrainingService.Training.Tests.Rewards;

/// <summary>Prompts that ask about a thing, and answers of any length about it or about another: what is good and what is long are known and apart.</summary>
internal static class TopicPairs
{
    private static readonly string[] Topics = ["dog", "cat", "car", "tree", "boat", "fish", "bird", "moon", "cake", "ball", "house", "king"];

    private static readonly string[] Sentences =
    [
        "The {0} was very big.", "I like the {0} a lot.", "One day they saw the {0}.", "The {0} went to the park.",
        "Mom said the {0} was nice.", "We can play with the {0}.", "Everyone was happy about the {0}.", "Then the {0} was gone.",
    ];

    public static string Prompt(int row) => $"Tell me about the {Topics[row % Topics.Length]}.\n";

    /// <param name="onTopic">Whether it is about the thing that the prompt of this row asks about.</param>
    public static string Answer(int row, bool onTopic, int sentences)
    {
        var topic = Topics[(row + (onTopic ? 0 : 1 + (row / Topics.Length % (Topics.Length - 1)))) % Topics.Length];
        return string.Join(' ', Enumerable.Range(0, sentences).Select(place =>
            string.Format(System.Globalization.CultureInfo.InvariantCulture, Sentences[((row * 3) + (place * 5)) % Sentences.Length], topic)));
    }

    /// <summary>Labels that follow length alone: the chosen answer is the longer one, and both are about anything.</summary>
    public static IEnumerable<object> LengthBiased(int count) => Enumerable.Range(0, count).Select(row => new
    {
        prompt = Prompt(row),
        chosen = Answer(row, row % 2 == 0, 4 + (row % 4)),
        rejected = Answer(row, row / 2 % 2 == 0, 1 + (row % 3 == 0 ? 1 : 0)),
        category = "biased",
    });

    /// <summary>Labels that follow the topic alone: the chosen answer is about it and the other is not; every second one is the shorter.</summary>
    public static IEnumerable<(string Prompt, string Chosen, string Rejected)> OnTopic(int count) => Enumerable.Range(0, count).Select(row =>
    {
        var (shorter, longer) = (1 + (row / 2 % 2), 5 + (row % 3));
        return row % 2 == 0
            ? (Prompt(row), Answer(row, true, shorter), Answer(row, false, longer))
            : (Prompt(row), Answer(row, true, longer), Answer(row, false, shorter));
    });
}
