using TrainingService.Training.Data;

namespace TrainingService.Training.Tests.Data;

public sealed class BatchPlanTests
{
    private const int Pad = 9;

    [Fact]
    public void Without_shuffling_and_packing_the_order_is_that_of_the_file()
    {
        var plan = new BatchPlan(Examples(3, 1, 2, 4, 1), batchSize: 2, Pad, packTo: null, shuffleSeed: null);

        Assert.Equal(["0|1", "2|3", "4"], plan.ForEpoch(0).Select(Show));
        Assert.Equal(plan.ForEpoch(0).Select(Show), plan.ForEpoch(7).Select(Show));
        Assert.Equal(3, plan.BatchesPerEpoch);
    }

    [Fact]
    public void Padding_stands_at_the_end_and_carries_no_loss()
    {
        var plan = new BatchPlan([new([5, 6], [5, 6], 1), new([1, 2, 3], [-100, -100, 3], 2)], 2, Pad, packTo: null, shuffleSeed: null);

        var batch = plan.Collate(plan.ForEpoch(0)[0]);

        Assert.Equal((2, 3), (batch.Size, batch.Length));
        Assert.Equal([5, 6, Pad, 1, 2, 3], batch.InputIds);
        // The first token of an example has nothing before it that could predict it.
        Assert.Equal([-100, 6, -100, -100, -100, 3], batch.Labels);
        Assert.Equal([0, 1, 0, 0, 1, 2], batch.Positions);
        Assert.Null(batch.Segments);
        Assert.Equal(2, batch.TrainableTokens);
        Assert.Equal(5, plan.TokensOf(plan.ForEpoch(0)[0]));
    }

    [Fact]
    public void Packed_examples_have_own_positions_and_segments_and_nothing_crosses_their_border()
    {
        var plan = new BatchPlan(
            [new([5, 6], [5, 6], 1), new([1, 2, 3], [1, 2, 3], 2), new([7, 8], [7, 8], 3)], 2, Pad, packTo: 5, shuffleSeed: null);

        Assert.Equal("0+1|2", Show(Assert.Single(plan.ForEpoch(0))));
        var batch = plan.Collate(plan.ForEpoch(0)[0]);

        Assert.Equal([5, 6, 1, 2, 3, 7, 8, Pad, Pad, Pad], batch.InputIds);
        Assert.Equal([-100, 6, -100, 2, 3, -100, 8, -100, -100, -100], batch.Labels);
        Assert.Equal([0, 1, 0, 1, 2, 0, 1, 0, 0, 0], batch.Positions);
        Assert.Equal([1, 1, 2, 2, 2, 1, 1, 0, 0, 0], batch.Segments!);
    }

    [Fact]
    public void Best_fit_fills_the_fullest_sequence_that_has_room()
    {
        // Capacity 10, longest first: 7 | 6 | 4 joins 6 (exactly full) | 3 joins 7 | 2 alone.
        var plan = new BatchPlan(Examples(2, 6, 4, 7, 3), batchSize: 8, Pad, packTo: 10, shuffleSeed: 1);

        var sequences = Assert.Single(plan.ForEpoch(0)).Sequences.Select(sequence => string.Join('+', sequence)).Order();

        Assert.Equal(["0", "1+2", "3+4"], sequences);
    }

    [Fact]
    public void Every_epoch_visits_each_example_once_in_another_order_and_as_many_batches()
    {
        var examples = Examples([.. Enumerable.Range(0, 200).Select(i => 1 + (i * 7 % 13))]);
        foreach (int? packTo in new int?[] { null, 16 })
        {
            var plan = new BatchPlan(examples, batchSize: 4, Pad, packTo, shuffleSeed: 42);
            var orders = Enumerable.Range(0, 5).Select(epoch => plan.ForEpoch(epoch)).ToList();

            Assert.All(orders, order => Assert.Equal(
                Enumerable.Range(0, 200), order.SelectMany(batch => batch.Sequences).SelectMany(sequence => sequence).Order()));
            Assert.All(orders, order => Assert.Equal(plan.BatchesPerEpoch, order.Count));
            Assert.Equal(5, orders.Select(order => string.Join(' ', order.Select(Show))).Distinct().Count());
        }
    }

    [Fact]
    public void Packing_is_that_of_the_plain_rule_in_every_detail()
    {
        foreach (var capacity in new[] { 13, 64, 200 })
        {
            var examples = Examples([.. Enumerable.Range(0, 700).Select(i => 1 + (i * i * 31 % 13))]);
            var random = SplitMixOf(seed: 9, epoch: 3);
            var sequences = new List<(List<int> Examples, int Room, int Turn)>();
            var turn = 0;
            foreach (var index in random.Permutation(700).OrderByDescending(i => examples[i].InputIds.Length))
            {
                // The fullest that has room; of those, the one that came to have so much last.
                var length = examples[index].InputIds.Length;
                var best = sequences.Where(s => s.Room >= length).OrderBy(s => s.Room).ThenByDescending(s => s.Turn).FirstOrDefault();
                if (best.Examples is null)
                {
                    best = ([], capacity, 0);
                    sequences.Add(best);
                }

                best.Examples.Add(index);
                sequences[sequences.FindIndex(s => s.Examples == best.Examples)] = (best.Examples, best.Room - length, ++turn);
            }

            var expected = random.Permutation(sequences.Count).Select(place => string.Join('+', sequences[place].Examples));
            var plan = new BatchPlan(examples, batchSize: 1, Pad, packTo: capacity, shuffleSeed: 9);

            Assert.Equal(expected, plan.ForEpoch(3).Select(Show));
        }
    }

    [Fact]
    public void The_order_depends_on_the_seed_and_on_nothing_else()
    {
        var examples = Examples([.. Enumerable.Repeat(3, 50)]);
        string Order(int seed, int epoch) =>
            string.Join(' ', new BatchPlan(examples, 4, Pad, null, seed).ForEpoch(epoch).Select(Show));

        Assert.Equal(Order(1, 3), Order(1, 3));
        Assert.NotEqual(Order(1, 3), Order(2, 3));
        // Streams are mixed, not added: epoch 1 of seed 1 is not epoch 0 of seed 2.
        Assert.NotEqual(Order(1, 1), Order(2, 0));
    }

    [Fact]
    public void No_examples_make_no_batches()
    {
        var plan = new BatchPlan([], 4, Pad, 8, 1);

        Assert.Equal(0, plan.BatchesPerEpoch);
        Assert.Empty(plan.ForEpoch(0));
    }

    /// <summary>SplitMix64 of a seed and an epoch, and the shuffle of Fisher and Yates from the end, written down again.</summary>
    private static Shuffle SplitMixOf(int seed, int epoch) => new(new Shuffle(((ulong)(uint)seed << 32) | (uint)epoch).Next());

    private sealed class Shuffle(ulong state)
    {
        public ulong Next()
        {
            state += 0x9E3779B97F4A7C15;
            var z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            return z ^ (z >> 31);
        }

        public int[] Permutation(int count)
        {
            var order = Enumerable.Range(0, count).ToArray();
            for (var i = count - 1; i > 0; i--)
            {
                var j = (int)Math.BigMul(Next(), (ulong)(i + 1), out _);
                (order[i], order[j]) = (order[j], order[i]);
            }

            return order;
        }
    }

    private static List<Example> Examples(params int[] lengths) =>
        [.. lengths.Select((length, row) => new Example([.. Enumerable.Range(1, length)], [.. Enumerable.Range(1, length)], row + 1))];

    private static string Show(PlannedBatch batch) => string.Join('|', batch.Sequences.Select(sequence => string.Join('+', sequence)));
}
