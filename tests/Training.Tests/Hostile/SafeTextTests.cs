namespace TrainingService.Training.Tests.Hostile;

/// <summary>Names of strangers stand in messages, and messages in logs and on terminals.</summary>
public class SafeTextTests
{
    [Fact]
    public void A_message_is_one_line_that_steers_nothing()
    {
        var error = TrainingException.InvalidData("no column 'a\r\nerror: forged \u001B[2J\u0085\u2028\u202Ex'", "data.train\n");

        Assert.Equal(@"no column 'a\u000D\u000Aerror: forged \u001B[2J\u0085\u2028\u202Ex'", error.Message);
        Assert.Equal(@"data.train\u000A", error.Param);
    }

    [Theory]
    [InlineData("")]
    [InlineData("Grüße, 你好, 💥, naïve — “x”")]
    public void Other_text_is_left_as_it_is(string text) => Assert.Same(text, SafeText.Escape(text));
}
