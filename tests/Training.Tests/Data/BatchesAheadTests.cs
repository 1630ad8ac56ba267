using TrainingService.Training.Data;

namespace TrainingService.Training.Tests.Data;

/// <summary>The batches that are made while a step trains.</summary>
public sealed class BatchesAheadTests
{
    [Fact]
    public void They_are_those_of_the_plan_wherever_it_is_entered()
    {
        using var ahead = new BatchesAhead(Plan(Examples));
        var plan = Plan(Examples);

        foreach (var step in new[] { 0, 1, 2, 7, 8, 3, 4, plan.TotalSteps - 1 })
        {
            var (expected, actual) = (plan.BatchesOf(step), ahead.Take(step));

            Assert.Equal(expected.Tokens, actual.Tokens);
            Assert.Equal(expected.Batches.SelectMany(batch => batch.InputIds), actual.Batches.SelectMany(batch => batch.InputIds));
        }
    }

    [Fact]
    public void What_fails_on_the_other_thread_is_thrown_by_the_step_that_needs_it()
    {
        var ahead = new BatchesAhead(Plan(new BrokenFrom(2)));
        ahead.Take(0);
        ahead.Take(1);   // step 2 fails meanwhile

        Assert.Throws<IOException>(() => ahead.Take(2));
        ahead.Dispose();
    }

    [Fact]
    public void A_failure_that_nobody_waits_for_does_not_disturb_the_end()
    {
        var ahead = new BatchesAhead(Plan(new BrokenFrom(1)));
        ahead.Take(0);

        ahead.Dispose();
    }

    private static readonly Example[] Examples =
        [.. Enumerable.Range(0, 40).Select(row => new Example([.. Enumerable.Range(row, 3)], [.. Enumerable.Range(row, 3)], row + 1))];

    private static StepPlan Plan(IReadOnlyList<Example> examples) => new(
        new BatchPlan(examples, batchSize: 2, padId: 0, packTo: null, shuffleSeed: examples is BrokenFrom ? null : 5),
        new() { Epochs = 2, GradientAccumulationSteps = 2 });

    /// <summary>Four examples a step; those from a step on cannot be read.</summary>
    private sealed class BrokenFrom(int step) : IExamples
    {
        public int Count => 40;

        public Example this[int index] => index < 4 * step ? Examples[index] : throw new IOException("the disk is gone");

        public int LengthOf(int index) => 3;

        public IEnumerator<Example> GetEnumerator() => Enumerable.Range(0, Count).Select(index => this[index]).GetEnumerator();

        System.Collections.IEnumerator System.Collections.IEnumerable.GetEnumerator() => GetEnumerator();
    }
}
