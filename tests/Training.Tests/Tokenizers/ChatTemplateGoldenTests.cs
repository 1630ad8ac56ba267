using System.Text.Json;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Tokenizers;

/// <summary>Renderings by Jinja itself; Golden/reference/chat_templates.py makes them.</summary>
public class ChatTemplateGoldenTests
{
    public static TheoryData<string> Names() => [.. Cases().Select(golden => golden.GetProperty("name").GetString()!)];

    [Theory]
    [MemberData(nameof(Names))]
    public void A_template_renders_as_in_jinja(string name)
    {
        var golden = Cases().Single(golden => golden.GetProperty("name").GetString() == name);
        string Render() => new JinjaChatTemplate(
                golden.GetProperty("template").GetString()!,
                new Dictionary<string, string> { ["bos_token"] = "<s>", ["eos_token"] = "</s>" },
                new FixedClock(new DateTimeOffset(2024, 7, 26, 9, 5, 3, TimeSpan.Zero)))
            .Render(
                Messages(golden.GetProperty("messages")), golden.GetProperty("add_generation_prompt").GetBoolean(), golden.GetProperty("tools"));

        if (golden.TryGetProperty("fails", out _))
        {
            var refused = Assert.Throws<TrainingException>(Render);
            Assert.Equal(FailureCode.InvalidData, refused.Code);
        }
        else
        {
            Assert.Equal(golden.GetProperty("text").GetString(), Render());
        }
    }

    private static IReadOnlyList<JsonElement> Cases()
    {
        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "Golden", "chat-templates.json")));
        return [.. document.RootElement.GetProperty("cases").EnumerateArray().Select(golden => golden.Clone())];
    }

    private static List<ChatMessage> Messages(JsonElement messages) =>
        [.. messages.EnumerateArray().Select(message => new ChatMessage(
            message.GetProperty("role").GetString()!,
            message.GetProperty("content").GetString()!,
            message.EnumerateObject().Where(member => member.Name is not ("role" or "content")).ToDictionary(member => member.Name, member => member.Value)))];
}
