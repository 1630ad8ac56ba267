using System.Text.Json;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Data.Tokenizing;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using TrainingService.Training.Scoring;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Dmoe;

/// <summary>An answer to score, as tokens.</summary>
/// <param name="Ids">Prompt and answer.</param>
/// <param name="PromptTokens">How many of them the router sees.</param>
public sealed record RoutedAnswer(int[] Ids, int PromptTokens);

/// <summary>A reward, and the category whose experts gave it: rewards of different categories do not compare.</summary>
public sealed record RoutedReward(double Reward, string Category);

/// <summary>Scores answers with the artifact of a run of <see cref="Objectives.DmoeRewardConfig"/>.</summary>
/// <remarks>Runs n + 1 passes per answer. Each call attaches the adapters that it needs one after the other, so many answers at a time cost the least.</remarks>
public sealed class DmoeScorer : IDisposable
{
    /// <summary>Says that a folder holds such an artifact, and which experts each category has.</summary>
    public const string FileName = "dmoe.json";

    internal const string AggregationFile = "aggregation.safetensors";

    private readonly string _folder;
    private readonly int _batchSize;
    private readonly CausalLm? _router;   // with one category there is nothing to choose
    private readonly CausalLm _body;
    private readonly Layout _layout;
    private readonly Dictionary<string, DmoeAggregation> _aggregations = [];

    /// <param name="folder">The folder <c>adapter</c> of the artifact.</param>
    /// <param name="model">Folder of the base model.</param>
    /// <exception cref="TrainingException">One of them cannot be used.</exception>
    public DmoeScorer(string folder, string model, ScalarType dtype, Device device, int batchSize = 16)
    {
        (_folder, _batchSize) = (folder, batchSize);
        _layout = ReadLayout(folder);
        var quantization = QuantizedBase.Of(Experts(_layout.Order[0])[0]);
        _router = _layout.Order.Count == 1 ? null : CausalLm.Load(model, dtype, device, quantization, score: ScoreHead.Of(Router));
        _body = CausalLm.Load(model, dtype, device, quantization, score: new ScoreHead());
        using var file = SafeTensorsFile.Open(Path.Combine(folder, AggregationFile));
        foreach (var category in _layout.Categories.Keys)
        {
            _aggregations[category] = DmoeAggregation.Read(file, category + ".", device);
        }
    }

    /// <summary>Whether a folder holds an artifact of such a run.</summary>
    public static bool IsIn(string folder) => File.Exists(Path.Combine(folder, FileName));

    /// <summary>Rewards of answers, in their order.</summary>
    public IReadOnlyList<RoutedReward> Score(IReadOnlyList<RoutedAnswer> answers, CancellationToken ct = default)
    {
        var names = _layout.Order;
        var routed = _router is null
            ? new int[answers.Count]
            : DmoeExperts.Route(_router, Router, [.. answers.Select(answer => answer.Ids[..answer.PromptTokens])], _batchSize, ct);
        var rewards = new RoutedReward[answers.Count];
        foreach (var group in routed.Index().GroupBy(answer => names[answer.Item], answer => answer.Index))
        {
            using var noGrad = no_grad();
            using var scope = NewDisposeScope();
            var z = DmoeExperts.HiddenStates(_body, Experts(group.Key), [.. group.Select(index => answers[index].Ids)], _batchSize, progress: null, ct);
            var values = _aggregations[group.Key].Rewards(z.to(_body.Device)).cpu().data<float>().ToArray();
            foreach (var (index, value) in group.Zip(values))
            {
                rewards[index] = new(value, group.Key);
            }
        }

        return rewards;
    }

    /// <summary>Rewards of answers to a prompt, as plain text.</summary>
    public IReadOnlyList<RoutedReward> Score(Tokenizer tokenizer, string prompt, IReadOnlyList<string> answers) =>
        Score(tokenizer, [.. answers.Select(answer => new PromptAndCompletion(prompt, answer))]);

    /// <summary>Rewards of answers that end conversations.</summary>
    public IReadOnlyList<RoutedReward> Score(Tokenizer tokenizer, IReadOnlyList<IReadOnlyList<ChatMessage>> conversations) =>
        Score(tokenizer, [.. conversations.Select(messages => new Conversation(
            [.. messages.Select((message, index) => new Turn(message, Trained: index == messages.Count - 1))], Tools: null))]);

    /// <summary>Scores of every answer of some rows; the answers to one prompt go to the same experts, so their rewards compare.</summary>
    /// <returns>For each row, in order, a score for each answer.</returns>
    /// <exception cref="TrainingException">An answer cannot be rendered or is too long; nothing is scored.</exception>
    public IReadOnlyList<IReadOnlyList<AnswerScore>> Score(Tokenizer tokenizer, IReadOnlyList<ScoreInput> rows, CancellationToken ct = default)
    {
        var encoder = new SampleEncoder(tokenizer, everyToken: false);
        List<RoutedAnswer> answers = [.. rows.SelectMany(row => row.Answers.Zip(row.Places, (answer, place) => Encode(encoder, answer, place)))];
        var scores = new Queue<AnswerScore>(Score(answers, ct).Zip(
            answers, (scored, answer) => new AnswerScore((float)scored.Reward, Percentile: null, Disagreement: null, answer.Ids.Length) { Category = scored.Category }));
        return [.. rows.Select(row => (IReadOnlyList<AnswerScore>)[.. row.Answers.Select(_ => scores.Dequeue())])];
    }

    private RoutedAnswer Encode(SampleEncoder encoder, Sample answer, string place)
    {
        try
        {
            var (ids, labels) = encoder.Encode(answer);
            return ids.Count > 0 && ids.Count <= _body.MostTokens ? new([.. ids], DmoePhase.PromptTokens([.. labels])) : throw TrainingException.InvalidData(
                $"{place} has {ids.Count} tokens with its prompt, and this model takes {_body.MostTokens} at most; shorten it.", place);
        }
        catch (RowException broken)
        {
            throw TrainingException.InvalidData($"{place} cannot be rendered: {broken.Message}.", place, broken);
        }
    }

    public void Dispose()
    {
        foreach (var aggregation in _aggregations.Values)
        {
            aggregation.Dispose();
        }

        _body.Dispose();
        _router?.Dispose();
    }

    private string Router => Path.Combine(_folder, "router");

    private IReadOnlyList<string> Experts(string category) =>
        [.. _layout.Categories[category].Select(capability => Path.Combine(_folder, "experts", category, capability))];

    private IReadOnlyList<RoutedReward> Score(Tokenizer tokenizer, IReadOnlyList<Sample> answers)
    {
        var encoder = new SampleEncoder(tokenizer, everyToken: false);
        return Score([.. answers.Select(encoder.Encode).Select(encoded => new RoutedAnswer([.. encoded.Ids], DmoePhase.PromptTokens([.. encoded.Labels])))]);
    }

    internal static void WriteLayout(string folder, IReadOnlyList<string> order, IReadOnlyDictionary<string, IReadOnlyList<string>> categories) =>
        File.WriteAllText(Path.Combine(folder, FileName), JsonSerializer.Serialize(new Layout(order, categories), SpecJson.Options) + "\n");

    private static Layout ReadLayout(string folder)
    {
        var path = Path.Combine(folder, FileName);
        try
        {
            return File.Exists(path) && JsonSerializer.Deserialize<Layout>(File.ReadAllText(path), SpecJson.Options) is { Order: { Count: > 0 } order, Categories: { } categories } layout
                && order.All(categories.ContainsKey)
                ? layout
                : throw TrainingException.InvalidData($"The folder has no {FileName} that can be read; give the folder adapter of a dmoe_reward run.", FileName);
        }
        catch (JsonException error)
        {
            throw TrainingException.InvalidData($"{FileName} is not what a run wrote ({error.Message.TrimEnd('.')}).", FileName, error);
        }
    }

    /// <param name="Order">Categories by the number that the router gives them.</param>
    /// <param name="Categories">Capabilities of each, in the order in which their states stand side by side.</param>
    private sealed record Layout(IReadOnlyList<string> Order, IReadOnlyDictionary<string, IReadOnlyList<string>> Categories);
}
