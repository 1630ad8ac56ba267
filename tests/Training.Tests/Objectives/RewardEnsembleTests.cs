using System.Text.Json.Nodes;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Objectives;

/// <summary>Reward heads side by side: what they share, how they are read, saved and drawn for.</summary>
public class RewardEnsembleTests
{
    [Fact]
    public void Reward_and_disagreement_are_mean_and_deviation_of_the_members()
    {
        using var scope = NewDisposeScope();

        var read = RewardEnsemble.Read(tensor(new[] { 1f, 3f, 2f, 2f }, [2, 2]));
        var alone = RewardEnsemble.Read(tensor(new[] { 1f, 3f }, [2, 1]));

        Assert.Equal([2f, 2f], read.Rewards.data<float>());
        Assert.Equal([1f, 0f], read.Disagreement!.data<float>());
        Assert.Equal([1f, 3f], alone.Rewards.data<float>());
        Assert.Null(alone.Disagreement);
    }

    // Each branch is a head of its own: with the weights of one branch alone, a head of one output gives that branch's number.
    [Fact]
    public void Branches_share_nothing_but_their_input()
    {
        using var scope = NewDisposeScope();
        const int width = 6;
        var head = ScoreHead.Ensemble(ScoreLayers.Mlp, 3);
        var weights = head.Weights(width).ToDictionary(weight => weight.Name, weight => Filled(weight.Shape));
        var hidden = Filled([4, 2, width]);

        var together = head.Run(hidden, name => new(weights[name].clone()));

        for (var member = 0; member < 3; member++)
        {
            var of = member;
            var alone = new ScoreHead(ScoreLayers.Mlp).Run(hidden, name => new((name.Contains(".0.", StringComparison.Ordinal)
                ? weights[name].narrow(0, of * width, width) : weights[name].narrow(0, of, 1)).clone()));
            Assert.True(alone.squeeze(-1).allclose(together.select(-1, member), rtol: 1e-5, atol: 1e-6));
        }
    }

    [Theory]
    [InlineData(ScoreLayers.Linear, 1)]
    [InlineData(ScoreLayers.Linear, 5)]
    [InlineData(ScoreLayers.Mlp, 1)]
    [InlineData(ScoreLayers.Mlp, 5)]
    public void Saved_weights_tell_their_head(ScoreLayers layers, int members)
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        var objective = new RewardConfig { ScoreLayers = layers, EnsembleSize = members };
        using var model = ScoredBatch.Model(objective);
        using (var adapter = new LoraConfig { Rank = 2 }.Attach(model, seed: 1))
        {
            adapter.Save(folder.Path, new ModelCard("base") { Spec = new() { Model = "m", Data = new() { Train = "t" }, Objective = objective } });
        }

        Assert.Equal(objective.Score, ScoreHead.Of(folder.Path));
        Assert.Equal(objective, SavedObjective.Read(folder.Path));

        var json = new JsonObject { ["model_type"] = "llama" };
        objective.Score.Write(json, "LlamaForCausalLM");
        Assert.Equal(members > 1 && layers == ScoreLayers.Mlp ? members : null, (int?)json["score_branches"]);
    }

    [Fact]
    public void A_damaged_word_on_the_objective_is_refused()
    {
        using var folder = new TemporaryFolder();
        Assert.Null(SavedObjective.Read(folder.Path));
        File.WriteAllText(Path.Combine(folder.Path, SavedObjective.FileName), """{ "type": "regression", "bins": 0 }""");

        Assert.Equal(SavedObjective.FileName, Assert.Throws<TrainingException>(() => SavedObjective.Read(folder.Path)).Param);
    }

    // The loss of an ensemble is the mean of its members' own losses; accuracy and margin are those of the mean reward.
    [Theory]
    [InlineData(ScoreLayers.Linear)]
    [InlineData(ScoreLayers.Mlp)]
    public void The_loss_is_the_mean_of_the_members(ScoreLayers layers)
    {
        using var scope = NewDisposeScope();
        var objective = new RewardConfig { ScoreLayers = layers, EnsembleSize = 3, CenterRewardsCoefficient = 0.01 };
        using var model = ScoredBatch.Model(objective);
        var batch = GoldenPairs.Batch([0f, 0.5f, 1f, -0.25f]);
        var rewards = ScoredBatch.Outputs(model, batch);

        var measured = objective.Measure(model, null, batch, CPU);

        float[] margins = [0, 0.5f, 1, -0.25f];
        var losses = Enumerable.Range(0, 4).SelectMany(pair => Enumerable.Range(0, 3).Select(member =>
        {
            var (chosen, rejected) = (rewards[pair][member], rewards[pair + 4][member]);
            return Math.Log(1 + Math.Exp(-(chosen - rejected - margins[pair]))) + (0.01 * Math.Pow(chosen + rejected, 2));
        }));
        Assert.Equal(losses.Sum() / 3, measured.Sum.item<float>(), 1e-4);
        var means = Enumerable.Range(0, 4).Select(pair => rewards[pair].Average() - rewards[pair + 4].Average()).ToList();
        Assert.Equal(means.Count(margin => margin > 0), measured.Correct.item<long>());
        Assert.Equal(means.Sum(), measured.Figures![0].item<float>(), 1e-4);
        var deviations = Enumerable.Range(0, 4).Sum(pair => Math.Sqrt(rewards[pair].Zip(rewards[pair + 4], (c, r) => Math.Pow(c - r - means[pair], 2)).Average()));
        Assert.Equal(deviations, measured.Figures[3].item<float>(), 1e-4);
    }

    [Fact]
    public void Draws_are_a_function_of_row_and_member_with_mean_one()
    {
        using var scope = NewDisposeScope();
        var rows = Enumerable.Range(1, 2000).Select(row => new Example([1], [1], row)).ToList();

        var draws = RewardEnsemble.Draws(rows, 4, CPU);

        Assert.Equal(draws.data<float>().ToArray(), RewardEnsemble.Draws(rows, 4, CPU).data<float>().ToArray());
        Assert.Equal(1, draws.mean().item<float>(), 0.04f);   // 8000 draws of variance 1: 0.011 each way is one deviation
        Assert.Equal(Math.Exp(-1), draws.eq(0).to_type(ScalarType.Float32).mean().item<float>(), 0.02);
        Assert.NotEqual(draws.select(1, 0).data<float>().ToArray(), draws.select(1, 1).data<float>().ToArray());
    }

    [Fact]
    public void A_bootstrap_weighs_what_is_trained_on_and_nothing_that_is_measured()
    {
        using var scope = NewDisposeScope();
        var plain = new RewardConfig { EnsembleSize = 2 };
        var drawn = plain with { EnsembleBootstrap = true };
        using var model = ScoredBatch.Model(plain);
        var batch = GoldenPairs.Batch();
        var rewards = ScoredBatch.Outputs(model, batch);

        var trained = drawn.Measure(model, null, batch, CPU).Sum.item<float>();

        var expected = Enumerable.Range(0, 4).Sum(pair => Enumerable.Range(0, 2).Sum(member =>
            RewardEnsemble.Draw(pair + 1, member) * Math.Log(1 + Math.Exp(rewards[pair + 4][member] - rewards[pair][member])))) / 2;
        Assert.Equal(expected, trained, 1e-4);
        using var off = no_grad();
        Assert.Equal(plain.Measure(model, null, batch, CPU).Sum.item<float>(), drawn.Measure(model, null, batch, CPU).Sum.item<float>());
    }

    [Fact]
    public void Members_part_and_agree_where_they_were_trained()
    {
        using var scope = NewDisposeScope();
        var objective = new RewardConfig { EnsembleSize = 4, ScoreLayers = ScoreLayers.Mlp };
        using var model = ScoredBatch.Model(objective);
        using var adapter = new LoraConfig { Rank = 2 }.Attach(model, seed: 1);
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new AdamWConfig().Create(parameters);
        var live = new List<long>();
        StepResult? last = null;
        for (var step = 0; step < 20; step++)
        {
            last = TrainingStep.Backward(model, adapter, objective, parameters, [GoldenPairs.Batch()], CPU);
            optimizer.Step(0.01);
            live.Add(TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }

        Assert.Equal(1, last!.Accuracy);
        Assert.InRange(last.Figures[3], 1e-6, last.Figures[0]);   // they differ, by less than the margin that they agree on
        Assert.Equal(live[5], live[^1]);
    }

    [Fact]
    public void A_bootstrap_needs_members() => Assert.Equal("objective.ensemble_bootstrap", Assert.Single(SpecJson.Parse(
        """{ "model": "m", "data": { "train": "t" }, "objective": { "type": "reward", "ensemble_bootstrap": true } }""").Errors).Path);

    private static Tensor Filled(long[] shape)
    {
        using var scope = NewDisposeScope();
        return arange(shape.Aggregate(1L, (a, b) => a * b), ScalarType.Float32).sin().reshape(shape).MoveToOuterDisposeScope();
    }
}
