using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>Continues token sequences with a model, with whatever adapters stand in its slots.</summary>
public static class Generation
{
    /// <summary>Continues one prompt by the likeliest token each time.</summary>
    /// <inheritdoc cref="GreedyBatch"/>
    public static int[] Greedy(CausalLm model, IReadOnlyList<int> prompt, int maxNewTokens, IReadOnlySet<int> stopIds) =>
        GreedyBatch(model, [prompt], maxNewTokens, stopIds)[0];

    /// <summary>Continues each prompt by the likeliest token each time; a prompt's result does not depend on its neighbours.</summary>
    /// <param name="prompts">At least one token each, of different lengths if need be.</param>
    /// <param name="maxNewTokens">Longest continuation. It ends earlier where the model's longest sequence is reached.</param>
    /// <param name="stopIds">A continuation ends after one of these.</param>
    /// <returns>The new tokens of each prompt, the stop token included.</returns>
    public static int[][] GreedyBatch(
        CausalLm model, IReadOnlyList<IReadOnlyList<int>> prompts, int maxNewTokens, IReadOnlySet<int> stopIds)
    {
        if (prompts.Count == 0)
        {
            return [];
        }

        if (prompts.Any(prompt => prompt.Count == 0))
        {
            throw new ArgumentException("A prompt is empty; begin it with the BOS token.", nameof(prompts));
        }

        var wasTraining = model.training;
        model.eval();   // dropout of adapters would make the answer random
        try
        {
            return Run(model, prompts, maxNewTokens, stopIds);
        }
        finally
        {
            model.train(wasTraining);
        }
    }

    private static int[][] Run(
        CausalLm model, IReadOnlyList<IReadOnlyList<int>> prompts, int maxNewTokens, IReadOnlySet<int> stopIds)
    {
        using var noGrad = no_grad();
        using var cache = new KeyValueCache(model.Config.LayerCount);
        var layout = new PaddedPrompts(prompts, model.MostTokens, model.Device);
        var results = prompts.Select(_ => new List<int>()).ToArray();
        var isOpen = prompts.Select(prompt => maxNewTokens > 0 && prompt.Count < model.MostTokens).ToArray();
        var next = Array.Empty<long>();
        for (var step = 0; isOpen.Contains(true); step++)
        {
            using var scope = NewDisposeScope();
            var (ids, positions, mask) = step == 0 ? layout.First() : layout.Following(step, next);
            var hidden = model.Continue(ids, positions, mask, cache);
            next = model.Head(hidden.select(1, hidden.shape[1] - 1)).argmax(-1).cpu().data<long>().ToArray();   // [B]
            for (var row = 0; row < next.Length; row++)
            {
                if (isOpen[row])
                {
                    results[row].Add((int)next[row]);
                    isOpen[row] = !stopIds.Contains((int)next[row])
                        && results[row].Count < maxNewTokens
                        && prompts[row].Count + results[row].Count < model.MostTokens;
                }
            }
        }

        return [.. results.Select(result => result.ToArray())];
    }

    /// <summary>Prompts of different lengths as rectangles.</summary>
    /// <remarks>
    /// Padding stands in front, so that the next token of every row falls into the same column. No real token sees it, and positions start
    /// at zero after it, so that a row computes what it would alone.
    /// </remarks>
    private sealed class PaddedPrompts(IReadOnlyList<IReadOnlyList<int>> prompts, int mostTokens, Device device)
    {
        private readonly int _longest = prompts.Max(prompt => prompt.Count);

        /// <summary>Ids and positions [B, T], and the mask [B, 1, T, T] if there is padding.</summary>
        public (Tensor Ids, Tensor Positions, Tensor? Mask) First()
        {
            var ids = Rows(_longest, (row, column) => column < Padding(row) ? 0 : prompts[row][column - Padding(row)]);
            var positions = Rows(_longest, (row, column) => Math.Max(0, column - Padding(row)));
            return (ids, positions, IsPadded ? LlamaModel.SegmentMask(IsReal(_longest)) : null);
        }

        /// <summary>The tokens that a step has chosen, ids and positions [B, 1], and the mask [B, 1, 1, S] if there is padding.</summary>
        public (Tensor Ids, Tensor Positions, Tensor? Mask) Following(int step, long[] chosen)
        {
            var column = _longest + step - 1;

            // A row that has ended goes on in the rectangle; its position only has to stay legal.
            var positions = Rows(1, (row, _) => Math.Min(column - Padding(row), mostTokens - 1));
            var mask = IsPadded ? IsReal(column + 1).ne(0).unsqueeze(1).unsqueeze(1) : null;
            return (Rows(1, (row, _) => chosen[row]), positions, mask);
        }

        private bool IsPadded => prompts.Any(prompt => prompt.Count < _longest);

        private int Padding(int row) => _longest - prompts[row].Count;

        private Tensor IsReal(int columns) => Rows(columns, (row, column) => column < Padding(row) ? 0 : 1);

        private Tensor Rows(int columns, Func<int, int, long> value)
        {
            var numbers = new long[prompts.Count * columns];
            for (var index = 0; index < numbers.Length; index++)
            {
                numbers[index] = value(index / columns, index % columns);
            }

            return tensor(numbers, [prompts.Count, columns], ScalarType.Int64, device);
        }
    }
}
