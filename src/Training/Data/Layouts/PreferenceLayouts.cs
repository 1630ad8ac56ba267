using System.Text.Json;
using TrainingService.Training.Data.Rows;

namespace TrainingService.Training.Data.Layouts;

/// <summary>Rows whose answers are judged: pairs, single verdicts, grades.</summary>
/// <remarks>
/// <c>margin</c> says how much better the chosen answer is, <c>category</c> (or <c>subset</c>) what kind of row it is; any of the layouts may
/// have them.
/// </remarks>
internal static class PreferenceLayouts
{
    /// <summary>Name of the layout of more than two answers in an order.</summary>
    public const string Ranked = "ranked_answers";

    private const string Chosen = "chosen";
    private const string Rejected = "rejected";
    private static readonly string[] Beside = ["margin", Category, Subset, "tools"];

    /// <summary>The columns that name a row's category.</summary>
    public const string Category = "category";

    /// <inheritdoc cref="Category"/>
    public const string Subset = "subset";

    /// <summary>Two answers, the more telling columns first.</summary>
    public static IReadOnlyList<RowLayout> Pairs { get; } =
    [
        Pair("openai_preference", ["input", "preferred_output", "non_preferred_output"], [], ReadOpenAi),
        Pair("sharegpt_preference", ["conversations", Chosen, Rejected], ["system"], ReadShareGpt),
        Pair("messages_preference", ["messages", Chosen, Rejected], [], ReadMessages),
        Pair("prompt_preference", ["prompt", Chosen, Rejected], [], fields => ReadPrompt(fields, Chosen, Rejected)),
        Pair("alpaca_preference", ["instruction", Chosen, Rejected], ["input", "system"], fields => ReadTask(fields, "instruction", Chosen, Rejected)),
        Pair("question_preference", ["question", Chosen, Rejected], ["system"], fields => ReadTask(fields, "question", Chosen, Rejected)),
        Pair("input_preference", ["input", Chosen, Rejected], ["system"], fields => ReadTask(fields, "input", Chosen, Rejected)),
        Pair("prompt_responses", ["prompt", "chosen_response", "rejected_response"], [], fields => ReadPrompt(fields, "chosen_response", "rejected_response")),
        Pair(
            "instruction_responses", ["instruction", "chosen_response", "rejected_response"], ["input", "system"],
            fields => ReadTask(fields, "instruction", "chosen_response", "rejected_response")),
        Pair(Ranked, ["prompt", "answers"], [], ReadRanked),
        Pair("labelled_outputs", ["input", "output_1", "output_2", "label"], [], ReadLabelled),
        Pair("implicit_preference", [Chosen, Rejected], [], ReadImplicit),
    ];

    /// <summary>One answer and whether it is good; pairs give one of each.</summary>
    public static IReadOnlyList<RowLayout> Verdicts { get; } =
    [
        new(
            "unpaired_preference", DataFormat.Unpaired, ["prompt", "completion", "label"], [Category, Subset, "tools"],
            fields => new JudgedAnswers([TextLayouts.ReadPromptCompletion(fields)], Flag(fields, "label"))),
        new(
            "alpaca_verdict", DataFormat.Unpaired, ["instruction", "output", "kto_tag"], ["input", "system", "history", Category, Subset],
            fields => new JudgedAnswers([TextLayouts.ReadAlpaca(fields)], Flag(fields, "kto_tag"))),
        new(
            "sharegpt_verdict", DataFormat.Unpaired, ["conversations", "kto_tag"], ["system", "tools", Category, Subset],
            fields => new JudgedAnswers([LastAnswer((Conversation)ConversationLayouts.ReadShareGpt(fields), "conversations")], Flag(fields, "kto_tag"))),
        new(
            "messages_verdict", DataFormat.Unpaired, ["messages", "label"], ["tools", Category, Subset],
            fields => new JudgedAnswers([LastAnswer((Conversation)ConversationLayouts.ReadMessages(fields), "messages")], Flag(fields, "label"))),
        .. Pairs.Select(pair => pair with { Read = fields => Split(pair.Read(fields)) }),
    ];

    /// <summary>One answer and a number.</summary>
    public static IReadOnlyList<RowLayout> Scores { get; } =
    [
        .. Scored("prompt_completion", ["prompt", "completion"], ["tools"], TextLayouts.ReadPromptCompletion),
        .. Scored("messages", ["messages"], ["tools"], fields => LastAnswer((Conversation)ConversationLayouts.ReadMessages(fields), "messages")),
        .. Scored("alpaca", ["instruction", "output"], ["input", "system", "history"], TextLayouts.ReadAlpaca),
        .. Scored("text", ["text"], [], fields => new PlainText(fields.Text("text"))),
        new("stepwise", DataFormat.Scored, ["prompt", "completions", "labels"], [Category, Subset], ReadStepwise),
    ];

    private static RowLayout Pair(string name, IReadOnlyList<string> required, IReadOnlyList<string> optional, Func<Fields, Sample> read) =>
        new(name, DataFormat.Preference, required, [.. optional, .. Beside], read);

    private static IEnumerable<RowLayout> Scored(
        string name, IReadOnlyList<string> required, IReadOnlyList<string> optional, Func<Fields, Sample> read) =>
        new[] { "score", "label", "reward" }.Select(column => new RowLayout(
            $"{name}_{column}", DataFormat.Scored, [.. required, column], [.. optional, Category, Subset],
            fields => new JudgedAnswers([read(fields)], Number(fields[column], column))));

    private static JudgedAnswers PairOf(Fields fields, Sample chosen, Sample rejected) =>
        new([chosen, rejected], fields.Has("margin") ? Number(fields["margin"], "margin") : null);

    private static JudgedAnswers ReadPrompt(Fields fields, string chosen, string rejected)
    {
        var prompt = fields["prompt"];
        if (prompt.ValueKind == JsonValueKind.Array)
        {
            var before = Given(ConversationLayouts.Messages(fields.List("prompt"), "prompt"));
            return PairOf(fields, Answered(before, fields, chosen), Answered(before, fields, rejected));
        }

        // Some sets repeat the prompt as the first message of whole conversations.
        return fields[chosen].ValueKind == JsonValueKind.Array
            ? ImplicitMessages(fields, chosen, rejected)
            : PairOf(
                fields, new PromptAndCompletion(fields.Text("prompt"), fields.Text(chosen)), new PromptAndCompletion(fields.Text("prompt"), fields.Text(rejected)));
    }

    private static JudgedAnswers ReadTask(Fields fields, string question, string chosen, string rejected)
    {
        var input = question == "instruction" ? fields.OptionalText("input") : "";
        InstructionTask Task(string answer) => new(fields.OptionalText("system"), [], fields.Text(question), input, fields.Text(answer));
        return PairOf(fields, Task(chosen), Task(rejected));
    }

    private static JudgedAnswers ReadOpenAi(Fields fields)
    {
        var input = fields.Object("input");
        var before = Given(ConversationLayouts.Messages(input.List("messages"), "input.messages"));
        var tools = ConversationLayouts.Tools(input, "tools");
        Conversation Answer(string column) => new([.. before, .. ConversationLayouts.Messages(fields.List(column), column)], tools);
        return PairOf(fields, LastAnswer(Answer("preferred_output"), "preferred_output"), LastAnswer(Answer("non_preferred_output"), "non_preferred_output"));
    }

    private static JudgedAnswers ReadShareGpt(Fields fields)
    {
        var conversation = (Conversation)ConversationLayouts.ReadShareGpt(fields);
        Conversation Answer(string column) => conversation with
        {
            Turns = [.. Given(conversation.Turns), ConversationLayouts.ShareGptTurn(fields[column], column)],
        };
        return PairOf(fields, LastAnswer(Answer(Chosen), Chosen), LastAnswer(Answer(Rejected), Rejected));
    }

    private static JudgedAnswers ReadMessages(Fields fields)
    {
        var before = Given(ConversationLayouts.Messages(fields.List("messages"), "messages"));
        return PairOf(fields, Answered(before, fields, Chosen), Answered(before, fields, Rejected));
    }

    /// <summary>Whole texts or conversations: the prompt is what both begin with.</summary>
    private static JudgedAnswers ReadImplicit(Fields fields)
    {
        if (fields[Chosen].ValueKind == JsonValueKind.Array)
        {
            return ImplicitMessages(fields, Chosen, Rejected);
        }

        var (chosen, rejected) = (fields.Text(Chosen), fields.Text(Rejected));
        var end = PromptEnd(chosen, rejected);
        return PairOf(
            fields, new PromptAndCompletion(chosen[..end], chosen[end..]), new PromptAndCompletion(rejected[..end], rejected[end..]));
    }

    private static JudgedAnswers ImplicitMessages(Fields fields, string chosen, string rejected)
    {
        var (better, worse) = (ConversationLayouts.Messages(fields.List(chosen), chosen), ConversationLayouts.Messages(fields.List(rejected), rejected));

        // What is judged is the last message of each; it belongs to no prompt, even where both are equal.
        var most = Math.Min(better.Count, worse.Count) - 1;
        var shared = 0;
        while (shared < most && better[shared].Message.Role == worse[shared].Message.Role && better[shared].Message.Content == worse[shared].Message.Content)
        {
            shared++;
        }

        if (shared == 0)
        {
            throw new RowException(
                "no_common_prompt", $"{chosen} and {rejected} begin with different messages; both must begin with the same prompt", chosen);
        }

        Conversation Answer(IReadOnlyList<Turn> turns) => new([.. Given(turns.Take(shared)), .. turns.Skip(shared)], ConversationLayouts.Tools(fields, "tools"));
        return PairOf(fields, Answer(better), Answer(worse));
    }

    /// <summary>All pairs of answers whose ranks differ; 1 is the best rank.</summary>
    private static Judgements ReadRanked(Fields fields)
    {
        var prompt = fields.Text("prompt");
        var answers = fields.List("answers").Select((value, index) =>
        {
            var answer = Fields.Object(value, $"answers[{index}]");
            return (Text: answer.Text("answer"), Rank: Number(answer["rank"], $"answers[{index}].rank"));
        }).ToList();
        var pairs = new List<JudgedAnswers>();
        foreach (var better in answers)
        {
            pairs.AddRange(answers.Where(worse => worse.Rank > better.Rank).Select(worse => PairOf(
                fields, new PromptAndCompletion(prompt, better.Text), new PromptAndCompletion(prompt, worse.Text))));
        }

        return pairs.Count > 0
            ? new(pairs)
            : throw new RowException("no_difference", "must hold at least two answers of different rank", "answers");
    }

    private static JudgedAnswers ReadLabelled(Fields fields)
    {
        Sample Answer(string column) => new InstructionTask("", [], fields.Text("input"), "", fields.Text(column));
        return Number(fields["label"], "label") switch
        {
            1 => PairOf(fields, Answer("output_1"), Answer("output_2")),
            2 => PairOf(fields, Answer("output_2"), Answer("output_1")),
            var other => throw new RowException("wrong_value", $"must be 1 or 2, the number of the better output, found {other}", "label"),
        };
    }

    /// <summary>Every step of a solution with its own label: the solution up to there is the answer.</summary>
    private static Judgements ReadStepwise(Fields fields)
    {
        var (prompt, steps, labels) = (fields.Text("prompt"), fields.List("completions"), fields.List("labels"));
        if (steps.Count != labels.Count || steps.Count == 0)
        {
            throw new RowException("wrong_length", $"has {labels.Count} elements and completions {steps.Count}; they must be as many, and at least one", "labels");
        }

        var text = "";
        return new([.. steps.Select((step, index) =>
        {
            text += Fields.Text(step, $"completions[{index}]") + "\n";
            return new JudgedAnswers([new PromptAndCompletion(prompt + "\n", text)], Number(labels[index], $"labels[{index}]"));
        })]);
    }

    private static Judgements Split(Sample row)
    {
        var pairs = row is Judgements many ? many.All : [(JudgedAnswers)row];
        return new([.. pairs.SelectMany(pair => pair.Answers.Select((answer, part) => new JudgedAnswers([answer], part == 0 ? 1 : 0)))]);
    }

    private static Conversation Answered(IReadOnlyList<Turn> before, Fields fields, string column)
    {
        var value = fields[column];
        var answer = value.ValueKind == JsonValueKind.Object ? [value] : fields.List(column);
        return LastAnswer(new([.. before, .. ConversationLayouts.Messages(answer, column)], ConversationLayouts.Tools(fields, "tools")), column);
    }

    private static IReadOnlyList<Turn> Given(IEnumerable<Turn> turns) => [.. turns.Select(turn => turn with { Trained = false })];

    /// <summary>Only the last turn is judged.</summary>
    internal static Conversation LastAnswer(Conversation conversation, string field) => conversation.Turns is [.., { IsAssistant: true } last]
        ? conversation with { Turns = [.. Given(conversation.Turns.SkipLast(1)), last with { Trained = true }] }
        : throw new RowException("no_answer", "must end with a message of the assistant, which is what is judged", field);

    /// <summary>Where the prompt ends that two texts share: after the last mark of an answer, else at the last space before they differ.</summary>
    private static int PromptEnd(string chosen, string rejected)
    {
        var shared = chosen.AsSpan().CommonPrefixLength(rejected);
        const string Mark = "Assistant:";
        if (chosen.AsSpan(0, shared).LastIndexOf(Mark) is >= 0 and var at)
        {
            return at + Mark.Length;
        }

        // The space belongs to the answer: word-initial tokens carry it.
        return Math.Max(0, chosen.AsSpan(0, Math.Min(shared, Math.Min(chosen.Length, rejected.Length) - 1)).LastIndexOfAny(' ', '\n'));
    }

    /// <summary>1 or 0.</summary>
    public static float Flag(Fields fields, string column) => fields[column].ValueKind switch
    {
        JsonValueKind.True => 1,
        JsonValueKind.False => 0,
        JsonValueKind.Number when fields[column].TryGetInt32(out var number) && number is 0 or 1 => fields[column].GetInt32(),
        JsonValueKind.String when bool.TryParse(fields[column].GetString(), out var flag) => flag ? 1 : 0,
        _ => throw new RowException("wrong_type", $"must be true or false, found {Fields.Describe(fields[column])}", column),
    };

    private static float Number(JsonElement value, string field) => value.ValueKind switch
    {
        JsonValueKind.Number when float.IsFinite(value.GetSingle()) => value.GetSingle(),
        JsonValueKind.True => 1,
        JsonValueKind.False => 0,
        JsonValueKind.String when float.TryParse(
            value.GetString(), System.Globalization.CultureInfo.InvariantCulture, out var number) && float.IsFinite(number) => number,
        _ => throw new RowException("wrong_type", $"must be a number, found {Fields.Describe(value)}", field),
    };
}
