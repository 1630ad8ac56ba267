using TrainingService.Training.Data;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Data;

/// <summary>Which text a row becomes, and which part of it carries loss. In the expected texts, loss is on what stands in [brackets].</summary>
public sealed class LayoutTests
{
    [Theory]
    [InlineData("text", """{"text": "ab"}""", "[ab</s>]")]
    [InlineData("prompt_completion", """{"prompt": "ab", "completion": "cd"}""", "ab[cd</s>]")]
    [InlineData("prompt_completion", """{"prompt": "", "completion": "cd"}""", "[cd</s>]")]
    [InlineData(
        "alpaca", """{"instruction": "Add.", "input": "", "output": "3"}""",
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        + "### Instruction:\nAdd.\n\n### Response:\n[3</s>]")]
    [InlineData(
        "alpaca", """{"instruction": "Add.", "input": "1 2", "output": "3", "text": "rendered"}""",
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        + "Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n[3</s>]")]
    [InlineData(
        "alpaca", """{"instruction": "Again.", "output": "4", "system": "Be brief.", "history": [["Add.", "3"]]}""",
        "Be brief.\n\nBelow is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        + "### Instruction:\nAdd.\n\n### Response:\n[3</s>]\n\n### Instruction:\nAgain.\n\n### Response:\n[4</s>]")]
    [InlineData(
        "open_orca", """{"id": "x", "system_prompt": "", "question": "Add.", "response": "3"}""",
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        + "### Instruction:\nAdd.\n\n### Response:\n[3</s>]")]
    [InlineData("question_answer", """{"question": "q", "answer": "a"}""", "User: q\nAssistant:[ a</s>]")]
    [InlineData(
        "messages",
        """{"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}]}""",
        "System: s\nUser: q\nAssistant:[ a</s>]\nUser: r\n")]
    [InlineData(
        "sharegpt", """{"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}""",
        "System: s\nUser: q\nAssistant:[ a</s>]")]
    [InlineData(
        "prompt_completion", """{"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}""",
        "User: q\nAssistant:[ a</s>]")]
    public void Without_a_chat_template_rows_become_plain_text(string layout, string row, string expected)
    {
        using var file = new TextFile("a.jsonl", row);

        var data = file.Prepare();

        Assert.Equal(layout, data.Report.Train.Layout);
        Assert.Equal(expected, Show(data));
    }

    [Theory]
    [InlineData("""{"instruction": "i", "input": "x", "output": "o", "history": [["h", "g"]]}""",
        "(user)h</s>\n(assistant)[g</s>]\n(user)i\nx</s>\n(assistant)[o</s>]\n")]
    [InlineData("""{"question": "q", "answer": "a"}""", "(user)q</s>\n(assistant)[a</s>]\n")]
    [InlineData("""{"system_prompt": "s", "question": "q", "response": "a"}""", "(system)s</s>\n(user)q</s>\n(assistant)[a</s>]\n")]
    [InlineData(
        """{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}, {"role": "tool", "content": "t", "tool_call_id": "1"}, {"role": "assistant", "content": "b", "weight": 1}]}""",
        "(user)q</s>\n(assistant)a</s>\n(tool)t</s>\n(assistant)[b</s>]\n")]
    [InlineData(
        """{"messages": [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}""",
        "(assistant)[hello</s>]\n(user)q</s>\n(assistant)[a</s>]\n")]
    [InlineData(
        """{"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "{f}"}, {"from": "observation", "value": "o"}, {"from": "gpt", "value": "a"}], "tools": "[{\"n\":1}]"}""",
        "(tools)[{\"n\":1}](user)q</s>\n(assistant)[{f}</s>]\n(tool)o</s>\n(assistant)[a</s>]\n")]
    [InlineData(
        """{"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "r"}], "completion": [{"role": "assistant", "content": "a"}]}""",
        "(user)q</s>\n(assistant)x</s>\n(user)r</s>\n(assistant)[a</s>]\n")]
    [InlineData("""{"prompt": "p", "completion": "c"}""", "p[c</s>]")]
    [InlineData("""{"text": "t"}""", "[t</s>]")]
    public void With_a_chat_template_assistant_turns_carry_loss_to_their_end_token(string row, string expected)
    {
        using var file = new TextFile("a.jsonl", row);

        var data = file.Prepare(tokenizer: new CharacterTokenizer(template: new BracketTemplate()));

        Assert.Equal(expected, Show(data));
    }

    [Fact]
    public void A_template_that_marks_generated_text_says_itself_what_carries_loss()
    {
        using var file = new TextFile(
            "a.jsonl",
            """{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]}""");
        var template = new JinjaChatTemplate(
            "{% for m in messages %}({{ m.role }}){% if m.role == 'assistant' %}{% generation %} {{ m.content }}{% endgeneration %}"
            + "{% else %}{{ m.content }}{% endif %};{% endfor %}",
            new Dictionary<string, string>(), TimeProvider.System);

        Assert.Equal("(user)q;(assistant) a;(user)r;(assistant)[ b];", Show(file.Prepare(tokenizer: new CharacterTokenizer(template: template))));
    }

    [Fact]
    public void A_template_that_hides_its_turns_is_an_error_of_the_row()
    {
        using var file = new TextFile("a.jsonl", """{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}""");
        var template = new JinjaChatTemplate(
            "{% for m in messages %}{{ loop.revindex }}{{ m.content | upper }}{% endfor %}", new Dictionary<string, string>(), TimeProvider.System);

        var error = Assert.Single(file.Validate(tokenizer: new CharacterTokenizer(template: template), vocabulary: 256).Errors);

        Assert.Equal((1, "messages[1]", "template_hides_turn"), (error.Row, error.Field, error.Code));
    }

    [Theory]
    [InlineData("""{"prompt": "ab", "completion": "cd"}""")]
    [InlineData("""{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}""")]
    public void Pretraining_and_train_on_prompt_put_loss_on_every_token(string row)
    {
        using var file = new TextFile("a.jsonl", row);

        var sft = Assert.Single(file.Prepare(new() { Train = "", TrainOnPrompt = true }).Train);
        var pretraining = Assert.Single(file.Prepare(use: RowUse.Text).Train);

        Assert.Equal(sft.InputIds, sft.Labels);
        Assert.Equal(sft.InputIds, pretraining.Labels);
        Assert.Equal(sft.InputIds.Length - 1, sft.TrainableTokens);
    }

    [Theory]
    [InlineData("""{"prompt": "p", "completion": ""}""", "completion", "no_trainable_tokens")]
    [InlineData("""{"text": ""}""", "text", "no_trainable_tokens")]
    [InlineData("""{"instruction": "i", "output": ""}""", "output", "no_trainable_tokens")]
    [InlineData("""{"question": "q", "answer": ""}""", "answer", "no_trainable_tokens")]
    [InlineData("""{"messages": [{"role": "user", "content": "q"}]}""", "messages", "no_trainable_tokens")]
    [InlineData("""{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}""", "messages", "no_trainable_tokens")]
    [InlineData("""{"input_ids": [1, 2], "labels": [-100, -100]}""", null, "no_trainable_tokens")]
    [InlineData("""{"input_ids": [1]}""", null, "no_trainable_tokens")]
    [InlineData("""{"input_ids": []}""", "input_ids", "no_trainable_tokens")]
    [InlineData("""{"input_ids": [1, 2], "labels": [1]}""", "labels", "wrong_length")]
    [InlineData("""{"input_ids": [1, 2.5]}""", "input_ids[1]", "wrong_type")]
    [InlineData("""{"input_ids": [1, 256]}""", "input_ids[1]", "token_out_of_vocabulary")]
    [InlineData("""{"input_ids": [1, -1]}""", "input_ids[1]", "token_out_of_vocabulary")]
    [InlineData("""{"input_ids": [1, 2], "labels": [-100, 999]}""", "labels[1]", "token_out_of_vocabulary")]
    [InlineData("""{"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}""", "attention_mask[1]", "wrong_value")]
    [InlineData("""{"messages": []}""", "messages", "empty_conversation")]
    [InlineData("""{"messages": [{"role": "narrator", "content": "q"}]}""", "messages[0].role", "unknown_role")]
    [InlineData("""{"messages": [{"role": "user"}]}""", "messages[0].content", "missing_column")]
    [InlineData("""{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}""", "messages[0].content[0].type", "unsupported_content")]
    [InlineData("""{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}""", "messages[0].weight", "wrong_value")]
    [InlineData("""{"messages": "hello"}""", "messages", "wrong_type")]
    [InlineData("""{"conversations": [{"from": "human", "value": 5}]}""", "conversations[0].value", "wrong_type")]
    [InlineData("""{"instruction": "i", "output": "o", "history": [["only"]]}""", "history[0]", "wrong_length")]
    [InlineData("""{"prompt": "p", "completion": [{"role": "assistant", "content": "a"}]}""", "prompt", "wrong_type")]
    [InlineData("""{"prompt": [{"role": "user", "content": "refuse me"}], "completion": [{"role": "assistant", "content": "a"}]}""", null, "template_error")]
    public void A_row_that_cannot_be_trained_on_says_which_field_is_at_fault(string row, string? field, string code)
    {
        using var file = new TextFile("a.jsonl", row);

        var report = file.Validate(tokenizer: new CharacterTokenizer(template: new BracketTemplate()), vocabulary: 256);

        var error = Assert.Single(report.Errors);
        Assert.Equal((1, field, code), (error.Row, error.Field, error.Code));
    }

    [Fact]
    public void Tokenised_rows_need_no_tokenizer_and_lose_only_their_padding()
    {
        using var file = new TextFile("a.jsonl", """
            {"input_ids": [5, 6, 7]}
            {"input_ids": [5, 6, 7], "labels": [-100, 6, -100]}
            {"input_ids": [0, 5, 6, 0, 0], "labels": [-100, 5, 6, -100, -100], "attention_mask": [0, 1, 1, 0, 0]}
            """);

        var data = DataSets.Prepare(
            new() { Train = file.Path }, use: RowUse.Answers, tokenizer: null, modelVocabulary: 8, seed: 1, progress: null,
            TestContext.Current.CancellationToken);

        Assert.Equal([[5, 6, 7], [5, 6, 7], [5, 6]], data.Train.Select(example => example.InputIds));
        Assert.Equal([[5, 6, 7], [-100, 6, -100], [5, 6]], data.Train.Select(example => example.Labels));
        Assert.Equal([1, 2, 3], data.Train.Select(example => example.Row));
    }

    [Fact]
    public void Tokenised_rows_can_stand_in_a_table()
    {
        using var file = new TextFile("a.csv", "input_ids,labels\n\"[5, 6]\",\"[-100, 6]\"\n");

        var example = Assert.Single(file.Prepare().Train);

        Assert.Equal([5, 6], example.InputIds);
        Assert.Equal([-100, 6], example.Labels);
    }

    [Theory]
    [InlineData("prompt,completed", "auto", "the nearest is prompt_completion, which lacks column 'completion'")]
    [InlineData("txt", "auto", "the nearest is text, which lacks column 'text'")]
    [InlineData("mesages", "auto", "the nearest is messages, which lacks column 'messages'")]
    [InlineData("text", "messages", "do not fit data.format; the nearest is messages")]
    [InlineData("prompt,chosen,rejected", "auto", "hold preference pairs")]
    public void Columns_that_fit_no_layout_are_answered_with_the_nearest(string columns, string format, string message)
    {
        using var file = new TextFile("a.csv", columns + "\n" + string.Join(',', columns.Split(',').Select(_ => "x")) + "\n");
        var config = new DataConfig { Train = "", Format = Enum.Parse<DataFormat>(format, ignoreCase: true) };

        var error = Assert.Throws<TrainingException>(() => file.Prepare(config));

        Assert.Equal((FailureCode.InvalidData, "data.train"), (error.Code, error.Param));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Renamed_columns_decide_the_layout()
    {
        using var file = new TextFile("a.csv", "mr,ref,prompt\nab,cd,unused\n");
        var names = new Dictionary<string, string> { ["mr"] = "prompt", ["ref"] = "completion" };

        Assert.Equal("ab[cd</s>]", Show(file.Prepare(new() { Train = "", Columns = names })));
    }

    [Fact]
    public void Renaming_a_column_that_does_not_exist_is_an_error()
    {
        using var file = new TextFile("a.csv", "mr,ref\nab,cd\n");
        var names = new Dictionary<string, string> { ["prompt"] = "mr", ["completion"] = "ref" };

        var error = Assert.Throws<TrainingException>(() => file.Prepare(new() { Train = "", Columns = names }));

        Assert.Contains("renames 'prompt', but the file's columns are 'mr', 'ref'; the file's own name comes first", error.Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void The_format_asked_for_wins_over_the_columns()
    {
        using var file = new TextFile("a.jsonl", """{"prompt": "ab", "completion": "cd", "text": "whole"}""");

        var byColumns = file.Prepare();
        var asked = file.Prepare(new() { Train = "", Format = DataFormat.Text });

        Assert.Equal("ab[cd</s>]", Show(byColumns));
        Assert.Contains(byColumns.Report.Warnings, warning => warning.Contains("also fit text", StringComparison.Ordinal));
        Assert.Equal("[whole</s>]", Show(asked));
        Assert.DoesNotContain(asked.Report.Warnings, warning => warning.Contains("also fit", StringComparison.Ordinal));
    }

    /// <summary>The only example as text without BOS, loss in brackets.</summary>
    private static string Show(PreparedData data)
    {
        var example = Assert.Single(data.Train);
        var tokenizer = new CharacterTokenizer();
        Assert.Equal(CharacterTokenizer.Bos == example.InputIds[0], data.Report.Preview[0].Text!.StartsWith("<s>", StringComparison.Ordinal));
        var text = "";
        var trained = false;
        foreach (var (id, label) in example.InputIds.Zip(example.Labels).SkipWhile(pair => pair.First == CharacterTokenizer.Bos))
        {
            Assert.True(label == Example.Ignored || label == id);
            if (trained != (label == id))
            {
                text += trained ? "]" : "[";
                trained = !trained;
            }

            text += tokenizer.Decode([id], skipSpecialTokens: false);
        }

        return text + (trained ? "]" : "");
    }
}
