using System.Text.Json.Serialization;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Data.Rows;
using TrainingService.Training.Data.Tokenizing;
using TrainingService.Training.Dmoe;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Scoring;

/// <summary>Where a model that scores lies.</summary>
/// <param name="Model">Base model, or a model with a score head of its own.</param>
/// <param name="Adapter">Adapter with its score head; null: none.</param>
public sealed record ScorerSource(string Model, string? Adapter);

/// <summary>What a model says of one answer.</summary>
/// <param name="Percentile">Where the reward stands among those of the validation rows, 0 to 100; null: the run had none.</param>
/// <param name="Disagreement">Standard deviation of the rewards of an ensemble's members; null: there is one.</param>
/// <param name="Tokens">Tokens of prompt and answer together.</param>
public sealed record AnswerScore(float Reward, double? Percentile, float? Disagreement, int Tokens)
{
    /// <summary>The category whose experts gave the reward, where the model is a mixture of them; rewards of different categories do not compare.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Category { get; init; }

    /// <summary>The critique that the model wrote before it scored, where it is of that kind.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Critique { get; init; }
}

/// <summary>A model with a score head, in float32 and without dropout: gives rewards to answers as they were given in training.</summary>
public sealed class Scorer : IDisposable
{
    private const int RowsPerBatch = 64;
    private const int TokensPerBatch = 16_384;
    private const int CritiqueTokens = 256;

    private readonly CausalLm _model;
    private readonly Adapter? _adapter;
    private readonly Tokenizer? _tokenizer;
    private readonly SampleEncoder? _encoder;
    private readonly ObjectiveConfig _objective;
    private readonly RewardDistribution? _distribution;
    private readonly int _padId;

    private Scorer(CausalLm model, Adapter? adapter, Tokenizer? tokenizer, ObjectiveConfig objective, RewardDistribution? distribution)
    {
        (_model, _adapter, _tokenizer, _objective, _distribution) = (model, adapter, tokenizer, objective, distribution);
        _encoder = tokenizer is null ? null : new(tokenizer, everyToken: false);
        _padId = (tokenizer?.PadId ?? model.Config.PadId) is { } id && id >= 0 && id < model.Config.VocabularySize ? id : 0;
    }

    /// <summary>Longest prompt and answer together, in tokens.</summary>
    public int MostTokens => _model.MostTokens;

    /// <summary>Reads a model that scores.</summary>
    /// <exception cref="TrainingException">It has no score head, or cannot be used.</exception>
    public static Scorer Load(ScorerSource source, CancellationToken ct = default)
    {
        var config = ConfigOf(source);
        var quantization = source.Adapter is null ? null : QuantizedBase.Of(source.Adapter);
        var tokenizer = Tokenizer.IsIn(source.Model) ? Tokenizer.Load(source.Model) : null;
        var weights = source.Adapter ?? source.Model;
        var objective = SavedObjective.Read(weights) ?? new RewardConfig();
        var distribution = RewardDistribution.Read(weights);
        var model = CausalLm.Load(source.Model, ScalarType.Float32, cuda.is_available() ? CUDA : CPU, quantization, config.Score, ct: ct);
        try
        {
            var adapter = source.Adapter is null ? null : AdapterConfig.Saved(source.Adapter).Reading(tokenizer).Attach(model, seed: 0);
            adapter?.SetTraining(false);
            return new(model, adapter, tokenizer, objective, distribution);
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Memory that the weights take, in bytes. Loads no libtorch.</summary>
    /// <exception cref="TrainingException">The model has no score head, or cannot be read.</exception>
    public static long BytesOf(ScorerSource source)
    {
        var config = ConfigOf(source);
        var quantization = source.Adapter is null ? null : QuantizedBase.Of(source.Adapter);
        var own = config.Weights.Sum(weight =>
            quantization is not null && QuantizationConfig.Covers(weight) ? quantization.BytesOf(weight.Count) : weight.Count * sizeof(float));
        return own + (source.Adapter is null ? 0 : new FileInfo(Path.Combine(source.Adapter, PeftFolder.WeightsFile)).Length);
    }

    private static ModelConfig ConfigOf(ScorerSource source)
    {
        var config = HuggingFaceFolder.ReadConfig(source.Model);
        if (DmoeScorer.IsIn(source.Adapter ?? source.Model))
        {
            throw TrainingException.InvalidData(
                "The model is a mixture of experts (objective dmoe_reward), whose rewards of different categories do not compare; score it with the verb score, which names the category.", "model");
        }

        if (source.Adapter is not null)
        {
            PeftFolder.Open(source.Adapter);   // says what is missing
        }

        var head = (source.Adapter is null ? null : ScoreHead.Of(source.Adapter)) ?? config.Score;
        return head is not null ? config with { Score = head } : throw TrainingException.InvalidData(
            "The model has no score head, so it gives no rewards; use one that was trained with objective reward or regression.", "model");
    }

    /// <summary>Scores every answer of some rows.</summary>
    /// <returns>For each row, in order, a score for each answer.</returns>
    /// <exception cref="TrainingException">A row cannot be encoded or is too long; nothing is scored.</exception>
    public IReadOnlyList<IReadOnlyList<AnswerScore>> Score(IReadOnlyList<ScoreInput> rows, CancellationToken ct = default)
    {
        var scores = new Queue<AnswerScore>(Score([.. rows.SelectMany(Encode)], ct));
        return [.. rows.Select(row => (IReadOnlyList<AnswerScore>)[.. row.Answers.Select(_ => scores.Dequeue())])];
    }

    /// <summary>The tokens of each answer of a row with its prompt, as training sees them.</summary>
    /// <exception cref="TrainingException">It cannot be encoded or is too long.</exception>
    public IReadOnlyList<IReadOnlyList<int>> Encode(ScoreInput row)
    {
        var encoder = _encoder ?? throw TrainingException.InvalidData("The model has no tokenizer, so it scores no text.", "model");
        return
        [
            .. row.Answers.Zip(row.Places, (answer, place) =>
            {
                try
                {
                    var ids = _objective is CritiqueRewardConfig ? encoder.BeforeCritique(answer) : encoder.Encode(answer).Ids;
                    return ids.Count <= MostTokens - (_objective is CritiqueRewardConfig ? 1 : 0) && ids.Count > 0
                        ? ids
                        : throw TrainingException.InvalidData(
                            $"{place} has {ids.Count} tokens with its prompt, and this model takes {MostTokens} at most; shorten it.", place);
                }
                catch (RowException broken)
                {
                    throw TrainingException.InvalidData($"{place} cannot be rendered: {broken.Message}.", place, broken);
                }
            }),
        ];
    }

    /// <summary>Scores of token sequences, each of one to <see cref="MostTokens"/> tokens.</summary>
    public IReadOnlyList<AnswerScore> Score(IReadOnlyList<IReadOnlyList<int>> answers, CancellationToken ct = default)
    {
        using var noGrad = no_grad();
        var scores = new AnswerScore[answers.Count];
        foreach (var places in Batches(answers))
        {
            ct.ThrowIfCancellationRequested();
            var batch = places.Select(place => answers[place]).ToList();
            foreach (var (place, score) in places.Zip(_objective is CritiqueRewardConfig ? AfterCritiques(batch) : Direct(batch)))
            {
                scores[place] = score;
            }
        }

        return scores;
    }

    private List<AnswerScore> Direct(List<IReadOnlyList<int>> answers)
    {
        using var scope = NewDisposeScope();
        var examples = answers.Select((ids, index) => new Example([.. ids], [.. ids], index + 1)).ToList();
        var plan = BatchPlan.ForEvaluation(examples, examples.Count, _padId);
        var batch = plan.Collate(plan.ForEpoch(0)[0]);
        using var seen = _adapter?.BeginBatch(batch);
        var read = _objective.Read(BatchInput.Scores(_model, batch, _model.Device));
        var rewards = read.Rewards.cpu().data<float>().ToArray();
        var disagreements = read.Disagreement?.cpu().data<float>().ToArray();
        return [.. rewards.Select((reward, index) => Of(reward, disagreements?[index], answers[index].Count))];
    }

    private IEnumerable<AnswerScore> AfterCritiques(List<IReadOnlyList<int>> answers)
    {
        var stops = new HashSet<int>(_model.Config.EosIds);
        if (_tokenizer?.EosId is { } end)
        {
            stops.Add(end);
        }

        return new CritiqueScorer(_model, stops, CritiqueTokens).Score(answers)
            .Zip(answers, (scored, answer) => Of((float)scored.Reward, null, answer.Count) with { Critique = _tokenizer?.Decode(scored.Critique).Trim() });
    }

    private AnswerScore Of(float reward, float? disagreement, int tokens) => new(reward, _distribution?.PercentileOf(reward), disagreement, tokens);

    /// <summary>Neighbours of equal length waste no padding; a batch holds a bounded number of tokens, padding included.</summary>
    private static IEnumerable<List<int>> Batches(IReadOnlyList<IReadOnlyList<int>> answers)
    {
        var batch = new List<int>();
        foreach (var place in Enumerable.Range(0, answers.Count).OrderByDescending(place => answers[place].Count))
        {
            if (batch.Count > 0 && (batch.Count == RowsPerBatch || (batch.Count + 1) * answers[batch[0]].Count > TokensPerBatch))
            {
                yield return batch;
                batch = [];
            }

            batch.Add(place);
        }

        if (batch.Count > 0)
        {
            yield return batch;
        }
    }

    public void Dispose()
    {
        _adapter?.Dispose();
        _model.Dispose();
    }
}
