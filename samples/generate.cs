// Writes the sample world: a pretraining corpus, a tokenizer trained on it, and the fine-tuning rows.
//
//   dotnet run samples/generate.cs -- FOLDER
//
// FOLDER/corpus.jsonl            text rows: order messages, small talk about them, questions and answers
// FOLDER/base/tokenizer.json     byte-level BPE trained on the corpus; tokenizer_config.json and config.json beside it
// FOLDER/data/train.jsonl        prompt/completion rows: an order message and its record
// FOLDER/data/validation.jsonl   the same, other orders
// FOLDER/data/preferences.jsonl  prompt/chosen/rejected rows: of two replies to a message, the one that states more of the order is better
// FOLDER/data/preferences-validation.jsonl   the same, other messages
//
// The corpus never shows a record, so the base model knows the words and can look things up, but not the task.
// Everything follows from one seed: two runs write the same bytes.
#:property PublishAot=false
#:property TreatWarningsAsErrors=false

using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

const int CorpusRows = 24_000;
const int TrainRows = 1_600;
const int ValidationRows = 200;
const int PreferenceRows = 800;
const int PreferenceValidationRows = 200;
const int VocabularySize = 400;   // small, so that names and colors are several tokens and copying them is learned early

var folder = args is [var path] ? path : throw new ArgumentException("usage: dotnet run samples/generate.cs -- FOLDER");
Directory.CreateDirectory(Path.Combine(folder, "base"));
Directory.CreateDirectory(Path.Combine(folder, "data"));

var random = new SplitMix64(20_261);
var corpus = Enumerable.Range(0, CorpusRows).Select(_ => Corpus.Text(random)).ToList();
JsonLines.Write(Path.Combine(folder, "corpus.jsonl"), corpus.Select(text => new JsonObject { ["text"] = text }));

var seen = new HashSet<string>();
var rows = new List<JsonObject>();
while (rows.Count < TrainRows + ValidationRows)
{
    var order = Order.Draw(random);
    var message = order.Message(random);
    if (seen.Add(message))
    {
        rows.Add(new JsonObject { ["prompt"] = $"Message: {message}\nRecord:", ["completion"] = " " + order.Record() });
    }
}

JsonLines.Write(Path.Combine(folder, "data", "train.jsonl"), rows.Take(TrainRows));
JsonLines.Write(Path.Combine(folder, "data", "validation.jsonl"), rows.Skip(TrainRows));

// Numbers of their own, so that the rows above stay as they are.
var choices = new SplitMix64(20_262);
var pairs = new List<JsonObject>();
while (pairs.Count < PreferenceRows + PreferenceValidationRows)
{
    var order = Order.Draw(choices);
    var message = order.Message(choices);
    if (seen.Add(message))
    {
        pairs.Add(Replies.Pair(order, message, choices));
    }
}

JsonLines.Write(Path.Combine(folder, "data", "preferences.jsonl"), pairs.Take(PreferenceRows));
JsonLines.Write(Path.Combine(folder, "data", "preferences-validation.jsonl"), pairs.Skip(PreferenceRows));

// The record's punctuation must be in the tokenizer's reach; bytes alone already guarantee that, so it trains on the corpus only.
BytePairTokenizer.Train(corpus.Take(6_000), VocabularySize).Write(Path.Combine(folder, "base"));
JsonFile.Write(Path.Combine(folder, "base", "config.json"), new JsonObject
{
    ["architectures"] = new JsonArray("LlamaForCausalLM"),
    ["model_type"] = "llama",
    ["vocab_size"] = VocabularySize,
    ["hidden_size"] = 128,
    ["intermediate_size"] = 352,
    ["num_hidden_layers"] = 4,
    ["num_attention_heads"] = 4,
    ["num_key_value_heads"] = 2,
    ["head_dim"] = 32,
    ["hidden_act"] = "silu",
    ["max_position_embeddings"] = 512,
    ["rms_norm_eps"] = 1e-5,
    ["rope_theta"] = 10000.0,
    ["rope_scaling"] = null,
    ["attention_bias"] = false,
    ["mlp_bias"] = false,
    ["attention_dropout"] = 0.0,
    ["initializer_range"] = 0.05,
    ["tie_word_embeddings"] = true,
    ["bos_token_id"] = 0,
    ["eos_token_id"] = 1,
    ["pad_token_id"] = 2,
    ["torch_dtype"] = "float32",
    ["use_cache"] = true,
});

Console.WriteLine($"{CorpusRows} corpus rows, {TrainRows} training rows, {ValidationRows} validation rows, {pairs.Count} pairs in {folder}");

/// <summary>One order of the sample world.</summary>
internal sealed record Order(string Customer, string City, int Quantity, string Color, string Item, string Day)
{
    public static readonly string[] Customers =
    [
        "Ada", "Ben", "Clara", "David", "Elena", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Klara", "Leo", "Maria", "Nils", "Olga",
        "Paul", "Rosa", "Sam", "Tara", "Victor", "Wanda", "Yuri", "Zoe", "Anton", "Bella", "Carl", "Dora", "Emil", "Fiona", "Gustav",
    ];

    public static readonly string[] Cities =
    [
        "Lisbon", "Oslo", "Prague", "Vienna", "Dublin", "Athens", "Zurich", "Madrid", "Warsaw", "Turin", "Lyon", "Porto", "Bergen",
        "Ghent", "Basel", "Krakow", "Malmo", "Seville", "Bremen", "Naples",
    ];

    public static readonly string[] Colors =
        ["red", "blue", "green", "black", "white", "yellow", "orange", "purple", "brown", "silver", "golden", "grey"];

    public static readonly string[] Items =
    [
        "lamp", "chair", "table", "clock", "basket", "kettle", "mirror", "blanket", "bottle", "candle", "carpet", "drum", "guitar",
        "helmet", "jacket", "ladder", "pillow", "ribbon", "scarf", "teapot", "umbrella", "wallet", "bucket", "hammer",
    ];

    public static readonly string[] Days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

    public static Order Draw(SplitMix64 random) => new(
        random.Pick(Customers), random.Pick(Cities), 2 + random.Below(48), random.Pick(Colors), random.Pick(Items), random.Pick(Days));

    private string Goods => $"{Quantity} {Color} {Item}s";

    /// <summary>The order in a customer's or a clerk's words.</summary>
    public string Message(SplitMix64 random) => random.Below(8) switch
    {
        0 => $"{Customer} from {City} wants {Goods} by {Day}.",
        1 => $"Please send {Goods} to {Customer} in {City} before {Day}.",
        2 => $"Hello, this is {Customer}. I need {Goods} here in {City} on {Day}.",
        3 => $"On {Day} we ship {Goods} to {City}, for {Customer}.",
        4 => $"{Goods}, please, for {Customer} in {City}. {Day} is fine.",
        5 => $"{City} called: {Customer} asks for {Goods} until {Day}.",
        6 => $"By {Day}, {Customer} must have {Goods}. The address is in {City}.",
        _ => $"Can {City} get {Goods} by {Day}? The customer is {Customer}.",
    };

    /// <summary>What fine-tuning teaches: the order as a line of fields.</summary>
    /// <remarks>Only punctuation that the corpus has: a frozen output head cannot tell tokens apart that it never saw.</remarks>
    public string Record() =>
        $"customer: {Customer}, city: {City}, quantity: {Quantity}, color: {Color}, item: {Item}, day: {Day}";
}

/// <summary>What the base model reads: messages, and talk about them that makes it look things up.</summary>
internal static class Corpus
{
    public static string Text(SplitMix64 random)
    {
        var order = Order.Draw(random);
        var text = new StringBuilder("Message: ").Append(order.Message(random)).Append('\n');
        if (random.Below(2) == 0)
        {
            text.Append("In other words: ").Append(order.Message(random)).Append('\n');
        }

        foreach (var question in random.Shuffle([0, 1, 2, 3, 4, 5]))
        {
            text.Append(Ask(question, order, random)).Append('\n');
        }

        return text.ToString().TrimEnd();
    }

    private static string Ask(int question, Order order, SplitMix64 random) => (question, random.Below(2)) switch
    {
        (0, 0) => $"Who is the customer? {order.Customer}.",
        (0, _) => $"The order is for {order.Customer}.",
        (1, 0) => $"Which city is it? {order.City}.",
        (1, _) => $"It goes to {order.City}.",
        (2, 0) => $"How many are there? {order.Quantity}.",
        (2, _) => $"The quantity is {order.Quantity}.",
        (3, 0) => $"What color are they? {order.Color}.",
        (3, _) => $"The color is {order.Color}.",
        (4, 0) => $"What is the item? A {order.Item}.",
        (4, _) => $"Each item is a {order.Item}.",
        (_, 0) => $"On which day? {order.Day}.",
        (_, _) => $"The day is {order.Day}.",
    };
}

/// <summary>Replies to a message. Each sentence states a part of the order or asks for it; how many sentences there are says nothing of how good a reply is.</summary>
internal static class Replies
{
    /// <summary>Two replies, of which the chosen one states more parts of the order. <c>category</c>: close where it is one more, else clear.</summary>
    public static JsonObject Pair(Order order, string message, SplitMix64 random)
    {
        var more = 1 + random.Below(3);
        var fewer = random.Below(more);
        return new JsonObject
        {
            ["prompt"] = $"Message: {message}\nReply:",
            ["chosen"] = Text(order, more, random),
            ["rejected"] = Text(order, fewer, random),
            ["category"] = more - fewer == 1 ? "close" : "clear",
        };
    }

    private static string Text(Order order, int statements, SplitMix64 random)
    {
        var sentences = 3 + random.Below(2);
        var parts = random.Shuffle([0, 1, 2, 3, 4, 5]);
        var states = random.Shuffle([.. Enumerable.Range(0, sentences).Select(index => index < statements)]);
        return string.Concat(Enumerable.Range(0, sentences).Select(index => " " + (states[index] ? Statement(parts[index], order) : Question(parts[index]))));
    }

    private static string Statement(int part, Order order) => part switch
    {
        0 => $"The order is for {order.Customer}.",
        1 => $"It goes to {order.City}.",
        2 => $"The quantity is {order.Quantity}.",
        3 => $"The color is {order.Color}.",
        4 => $"Each item is a {order.Item}.",
        _ => $"The day is {order.Day}.",
    };

    private static string Question(int part) => part switch
    {
        0 => "Who is the customer?",
        1 => "Which city is it?",
        2 => "How many are there?",
        3 => "What color are they?",
        4 => "What is the item?",
        _ => "On which day?",
    };
}

/// <summary>Byte-level byte-pair encoding, trained greedily by pair frequency.</summary>
internal sealed partial class BytePairTokenizer(List<string> vocabulary, List<(string Left, string Right)> merges)
{
    private static readonly string[] SpecialTokens = ["<|begin|>", "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"];

    public static BytePairTokenizer Train(IEnumerable<string> texts, int vocabularySize)
    {
        var words = new Dictionary<string, int>();
        foreach (Match match in texts.SelectMany(text => Words().Matches(text)))
        {
            var word = string.Concat(Encoding.UTF8.GetBytes(match.Value).Select(value => ByteCharacters[value]));
            words[word] = words.GetValueOrDefault(word) + 1;
        }

        var sequences = words.OrderBy(word => word.Key, StringComparer.Ordinal)
            .Select(word => (Pieces: word.Key.Select(piece => piece.ToString()).ToList(), Count: word.Value)).ToList();
        var vocabulary = SpecialTokens.Concat(ByteCharacters.Select(piece => piece.ToString()).Order(StringComparer.Ordinal)).ToList();
        var merges = new List<(string Left, string Right)>();
        while (vocabulary.Count < vocabularySize)
        {
            var pairs = new Dictionary<(string, string), int>();
            foreach (var (pieces, count) in sequences)
            {
                for (var index = 1; index < pieces.Count; index++)
                {
                    pairs[(pieces[index - 1], pieces[index])] = pairs.GetValueOrDefault((pieces[index - 1], pieces[index])) + count;
                }
            }

            if (pairs.Count == 0)
            {
                throw new InvalidOperationException($"The corpus is too small for a vocabulary of {vocabularySize}.");
            }

            var (left, right) = pairs
                .OrderByDescending(pair => pair.Value)
                .ThenBy(pair => pair.Key.Item1, StringComparer.Ordinal)
                .ThenBy(pair => pair.Key.Item2, StringComparer.Ordinal)
                .First().Key;
            merges.Add((left, right));
            vocabulary.Add(left + right);
            foreach (var (pieces, _) in sequences)
            {
                for (var index = 1; index < pieces.Count; index++)
                {
                    if (pieces[index - 1] == left && pieces[index] == right)
                    {
                        pieces[index - 1] = left + right;
                        pieces.RemoveAt(index);
                    }
                }
            }
        }

        return new BytePairTokenizer(vocabulary, merges);
    }

    public void Write(string folder)
    {
        var added = new JsonArray();
        foreach (var (token, id) in SpecialTokens.Select((token, id) => (token, id)))
        {
            added.Add(new JsonObject
            {
                ["id"] = id,
                ["content"] = token,
                ["single_word"] = false,
                ["lstrip"] = false,
                ["rstrip"] = false,
                ["normalized"] = false,
                ["special"] = true,
            });
        }

        var ids = new JsonObject(vocabulary.Select((token, id) => KeyValuePair.Create<string, JsonNode?>(token, id)));
        var begin = new JsonObject { ["SpecialToken"] = new JsonObject { ["id"] = SpecialTokens[0], ["type_id"] = 0 } };
        JsonFile.Write(Path.Combine(folder, "tokenizer.json"), new JsonObject
        {
            ["version"] = "1.0",
            ["truncation"] = null,
            ["padding"] = null,
            ["added_tokens"] = added,
            ["normalizer"] = null,
            ["pre_tokenizer"] = new JsonObject
            {
                ["type"] = "ByteLevel",
                ["add_prefix_space"] = false,
                ["trim_offsets"] = true,
                ["use_regex"] = true,
            },
            ["post_processor"] = new JsonObject
            {
                ["type"] = "TemplateProcessing",
                ["single"] = new JsonArray(begin, new JsonObject { ["Sequence"] = new JsonObject { ["id"] = "A", ["type_id"] = 0 } }),
                ["pair"] = new JsonArray(
                    begin.DeepClone(),
                    new JsonObject { ["Sequence"] = new JsonObject { ["id"] = "A", ["type_id"] = 0 } },
                    new JsonObject { ["Sequence"] = new JsonObject { ["id"] = "B", ["type_id"] = 1 } }),
                ["special_tokens"] = new JsonObject
                {
                    [SpecialTokens[0]] = new JsonObject
                    {
                        ["id"] = SpecialTokens[0],
                        ["ids"] = new JsonArray(0),
                        ["tokens"] = new JsonArray(SpecialTokens[0]),
                    },
                },
            },
            ["decoder"] = new JsonObject
            {
                ["type"] = "ByteLevel",
                ["add_prefix_space"] = true,
                ["trim_offsets"] = true,
                ["use_regex"] = true,
            },
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["dropout"] = null,
                ["unk_token"] = null,
                ["continuing_subword_prefix"] = null,
                ["end_of_word_suffix"] = null,
                ["fuse_unk"] = false,
                ["byte_fallback"] = false,
                ["ignore_merges"] = false,
                ["vocab"] = ids,
                ["merges"] = new JsonArray(merges.Select(merge => (JsonNode)new JsonArray(merge.Left, merge.Right)).ToArray()),
            },
        });
        JsonFile.Write(Path.Combine(folder, "tokenizer_config.json"), new JsonObject
        {
            ["tokenizer_class"] = "PreTrainedTokenizerFast",
            ["bos_token"] = SpecialTokens[0],
            ["eos_token"] = SpecialTokens[1],
            ["pad_token"] = SpecialTokens[2],
            ["clean_up_tokenization_spaces"] = false,
            ["model_max_length"] = 512,
            ["chat_template"] =
                "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        });
    }

    // GPT-2's own pattern, as its tokenizer file means by "use_regex".
    [GeneratedRegex(@"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")]
    private static partial Regex Words();

    /// <summary>GPT-2's printable stand-in for each byte.</summary>
    private static readonly char[] ByteCharacters = StandIns();

    private static char[] StandIns()
    {
        var characters = new char[256];
        var next = 256;
        for (var value = 0; value < 256; value++)
        {
            characters[value] = value is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF) ? (char)value : (char)next++;
        }

        return characters;
    }
}

/// <summary>Steele, Lea and Flood 2014: the same numbers on every machine and runtime.</summary>
internal sealed class SplitMix64(ulong state)
{
    private ulong _state = state;

    public int Below(int bound)
    {
        _state += 0x9E3779B97F4A7C15;
        var mixed = (_state ^ (_state >> 30)) * 0xBF58476D1CE4E5B9;
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB;
        return (int)((mixed ^ (mixed >> 31)) % (ulong)bound);
    }

    public T Pick<T>(T[] items) => items[Below(items.Length)];

    public T[] Shuffle<T>(T[] items)
    {
        for (var index = items.Length - 1; index > 0; index--)
        {
            var other = Below(index + 1);
            (items[index], items[other]) = (items[other], items[index]);
        }

        return items;
    }
}

internal static class JsonLines
{
    private static readonly JsonSerializerOptions Options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static void Write(string path, IEnumerable<JsonObject> rows) =>
        File.WriteAllText(path, string.Concat(rows.Select(row => row.ToJsonString(Options) + "\n")));
}

internal static class JsonFile
{
    private static readonly JsonSerializerOptions Options =
        new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, WriteIndented = true };

    public static void Write(string path, JsonObject content) => File.WriteAllText(path, content.ToJsonString(Options) + "\n");
}
