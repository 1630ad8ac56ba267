namespace TrainingService.Training.Numerics;

/// <summary>One choice of each class so that the sizes keep to a budget and the costs have the smallest sum: an integer linear program, solved exactly.</summary>
/// <remarks>
/// Dynamic programming over the undominated partial choices (Nemhauser and Ullmann 1969), class by class. A partial choice is dropped when its cost
/// and the linear program's bound for the classes that are left (Sinha and Zoltners 1979) reach what a whole choice is known to cost.
/// </remarks>
internal static class MultipleChoiceKnapsack
{
    /// <param name="sizes">By class and choice, not negative.</param>
    /// <param name="costs">By class and choice, finite.</param>
    /// <returns>The choice of each class; null: even the smallest choices are over the budget.</returns>
    public static int[]? Solve(IReadOnlyList<long[]> sizes, IReadOnlyList<double[]> costs, long budget)
    {
        var classes = sizes.Zip(costs, Undominated).ToList();
        var rest = Enumerable.Range(0, classes.Count + 1).Select(from => new Rest(classes[from..])).ToList();
        if (rest[0].Smallest > budget)
        {
            return null;
        }

        List<Partial> partials = [new(0, 0, 0, null)];
        Partial? best = null;
        for (var place = 0; place < classes.Count; place++)
        {
            var after = rest[place + 1];
            var reached = new List<Partial>();
            foreach (var partial in partials)
            {
                reached.AddRange(classes[place].Select(choice => new Partial(partial.Size + choice.Size, partial.Cost + choice.Cost, choice.Index, partial))
                    .Where(next => next.Size + after.Smallest <= budget));
            }

            partials = Undominated(reached);

            // A good whole choice early drops most others: the partial choice with the lowest bound, completed greedily.
            var bounds = partials.ConvertAll(partial => partial.Cost + after.Bound(budget - partial.Size));
            best = Cheaper(best, Completed(partials[bounds.IndexOf(bounds.Min())], classes[(place + 1)..], rest, place + 1, budget));
            partials = [.. partials.Where((_, index) => bounds[index] < best.Cost)];
            if (partials.Count == 0)
            {
                break;
            }
        }

        var choices = new int[classes.Count];
        var last = best;
        for (var place = classes.Count - 1; place >= 0; place--)
        {
            choices[place] = last!.Choice;
            last = last.Before;
        }

        return choices;
    }

    private static Partial Cheaper(Partial? known, Partial other) => known is null || other.Cost < known.Cost ? other : known;

    private static Partial Completed(Partial partial, List<List<Choice>> classes, List<Rest> rest, int place, long budget)
    {
        foreach (var choices in classes)
        {
            var after = rest[++place];
            var next = choices.Where(choice => partial.Size + choice.Size + after.Smallest <= budget)
                .MinBy(choice => choice.Cost + after.Bound(budget - partial.Size - choice.Size))!;
            partial = new(partial.Size + next.Size, partial.Cost + next.Cost, next.Index, partial);
        }

        return partial;
    }

    // By size, each cheaper than all that are smaller.
    private static List<Choice> Undominated(long[] sizes, double[] costs)
    {
        var kept = new List<Choice>();
        foreach (var choice in sizes.Select((size, index) => new Choice(size, costs[index], index)).OrderBy(choice => choice.Size).ThenBy(choice => choice.Cost))
        {
            if (kept.Count == 0 || choice.Cost < kept[^1].Cost)
            {
                kept.Add(choice);
            }
        }

        return kept;
    }

    private static List<Partial> Undominated(List<Partial> partials)
    {
        var kept = new List<Partial>();
        foreach (var partial in partials.OrderBy(partial => partial.Size).ThenBy(partial => partial.Cost))
        {
            if (kept.Count == 0 || partial.Cost < kept[^1].Cost)
            {
                kept.Add(partial);
            }
        }

        return kept;
    }

    private sealed record Choice(long Size, double Cost, int Index);

    private sealed record Partial(long Size, double Cost, int Choice, Partial? Before);

    /// <summary>The linear program of the classes that are left: the smallest choices, then the steps along each class's convex hull, the best first.</summary>
    private sealed class Rest
    {
        private readonly long[] _sizes;
        private readonly double[] _costs;

        public Rest(List<List<Choice>> classes)
        {
            Smallest = classes.Sum(choices => choices[0].Size);
            var steps = classes.SelectMany(Steps).OrderByDescending(step => step.Saving / step.Size).ToList();
            _sizes = new long[steps.Count + 1];
            _costs = new double[steps.Count + 1];
            (_sizes[0], _costs[0]) = (Smallest, classes.Sum(choices => choices[0].Cost));
            for (var i = 0; i < steps.Count; i++)
            {
                (_sizes[i + 1], _costs[i + 1]) = (_sizes[i] + steps[i].Size, _costs[i] - steps[i].Saving);
            }
        }

        public long Smallest { get; }

        /// <summary>No choice of these classes within the budget costs less.</summary>
        /// <param name="budget">At least <see cref="Smallest"/>.</param>
        public double Bound(long budget)
        {
            var found = Array.BinarySearch(_sizes, budget);
            if (found >= 0)
            {
                return _costs[found];
            }

            var next = ~found;
            if (next == _sizes.Length)
            {
                return _costs[^1];
            }

            var share = (budget - _sizes[next - 1]) / (double)(_sizes[next] - _sizes[next - 1]);
            return _costs[next - 1] + (share * (_costs[next] - _costs[next - 1]));
        }

        private static IEnumerable<(long Size, double Saving)> Steps(List<Choice> choices)
        {
            var at = 0;
            while (at < choices.Count - 1)
            {
                var from = choices[at];
                var next = Enumerable.Range(at + 1, choices.Count - at - 1)
                    .MaxBy(index => (from.Cost - choices[index].Cost) / (choices[index].Size - from.Size));
                yield return (choices[next].Size - from.Size, from.Cost - choices[next].Cost);
                at = next;
            }
        }
    }
}
