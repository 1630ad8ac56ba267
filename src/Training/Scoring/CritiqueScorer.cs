using TrainingService.Training.Data;
using TrainingService.Training.Data.Layouts;
using TrainingService.Training.Data.Tokenizing;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Scoring;

/// <summary>The reward of an answer, and the critique that it was given after.</summary>
public sealed record CritiquedScore(double Reward, string Critique);

/// <summary>Scores answers as a model of <see cref="CritiqueRewardConfig"/> does in use: it writes a critique of each, greedily, and scores after it.</summary>
/// <param name="model">With a score head and an output head; its adapter, if any, is attached.</param>
/// <param name="stopIds">A critique ends after one of these.</param>
/// <param name="maxCritiqueTokens">Longest critique; it is shorter where the model's longest sequence is reached.</param>
public sealed class CritiqueScorer(CausalLm model, IReadOnlySet<int> stopIds, int maxCritiqueTokens)
{
    /// <summary>Rewards of answers that are token sequences, up to where their critiques begin.</summary>
    /// <param name="answers">At least one token each, and fewer than <see cref="CausalLm.MostTokens"/>; they run as one batch.</param>
    /// <returns>For each its reward and the tokens of its critique.</returns>
    public IReadOnlyList<(double Reward, int[] Critique)> Score(IReadOnlyList<IReadOnlyList<int>> answers)
    {
        if (answers.Count == 0)
        {
            return [];
        }

        if (answers.Any(answer => answer.Count >= model.MostTokens))
        {
            throw TrainingException.InvalidData(
                $"An answer with its prompt has {answers.Max(answer => answer.Count)} tokens, and the model's {model.MostTokens} must leave room for a critique; shorten it.");
        }

        var critiques = Generation.GreedyBatch(model, answers, maxCritiqueTokens, stopIds);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var wasTraining = model.training;
        model.eval();
        try
        {
            var examples = answers.Zip(critiques, (answer, critique) => Of([.. answer, .. critique])).ToList();
            var plan = BatchPlan.ForEvaluation(examples, examples.Count, padId: 0);
            var rewards = BatchInput.Scores(model, plan.Collate(plan.ForEpoch(0)[0]), model.Device).squeeze(1).cpu().data<float>().ToArray();
            return [.. rewards.Zip(critiques, (reward, critique) => ((double)reward, critique))];
        }
        finally
        {
            model.train(wasTraining);
        }
    }

    /// <summary>Rewards of one answer or several to a prompt, each as plain text.</summary>
    public IReadOnlyList<CritiquedScore> Score(Tokenizer tokenizer, string prompt, IReadOnlyList<string> answers) =>
        Score(tokenizer, [.. answers.Select(answer => new PromptAndCompletion(prompt, answer))]);

    /// <summary>Rewards of answers that end conversations.</summary>
    public IReadOnlyList<CritiquedScore> Score(Tokenizer tokenizer, IReadOnlyList<IReadOnlyList<ChatMessage>> conversations) =>
        Score(tokenizer, [.. conversations.Select(messages => new Conversation(
            [.. messages.Select((message, index) => new Turn(message, Trained: index == messages.Count - 1))], Tools: null))]);

    private IReadOnlyList<CritiquedScore> Score(Tokenizer tokenizer, IReadOnlyList<Sample> answers)
    {
        var encoder = new SampleEncoder(tokenizer, everyToken: false);
        return
        [
            .. Score([.. answers.Select(encoder.BeforeCritique)])
                .Select(scored => new CritiquedScore(scored.Reward, tokenizer.Decode(scored.Critique).Trim())),
        ];
    }

    private static Example Of(int[] ids) => new(ids, ids, Row: 1);
}
