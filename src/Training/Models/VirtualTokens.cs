using static TorchSharp.torch;

namespace TrainingService.Training.Models;

/// <summary>Tokens that a model sees before each row without being given them; a row's own positions begin after theirs.</summary>
/// <remarks>
/// Either embeddings, which run through every layer in front of the row, or for every layer keys and values, which its attention reads as
/// those of tokens before the row. Every example of a packed row sees them, and no other example: it computes what it would alone.
/// </remarks>
/// <param name="Count">P, how many positions they take.</param>
internal sealed record VirtualTokens(int Count)
{
    /// <summary>Gives the embeddings, [P, D]; null: they have none.</summary>
    public Func<Tensor>? Embeddings { get; init; }

    /// <summary>Gives a layer's keys and values, [G, P, K] each, in the caller's dispose scope; the keys are turned by their positions already. Null: none.</summary>
    public Func<int, (Tensor Keys, Tensor Values)>? Past { get; init; }

    /// <summary>Puts the virtual tokens in front of a model's input.</summary>
    /// <param name="hidden">Embeddings of the row's tokens, [B, T, D].</param>
    /// <param name="positions">[B, T], as if there were no virtual tokens.</param>
    /// <param name="mask">[B, 1, T, S], bool: what each token sees of the row's tokens; null for causal attention.</param>
    /// <param name="isFirst">Otherwise a cache holds the virtual tokens with those before the input.</param>
    /// <returns>The same with them, in the caller's dispose scope. A mask is null where causal attention says it all.</returns>
    public (Tensor Hidden, Tensor Positions, Tensor? Mask) Precede(Tensor hidden, Tensor positions, Tensor? mask, bool isFirst)
    {
        using var scope = NewDisposeScope();
        var (batch, tokens) = (hidden.shape[0], hidden.shape[1]);
        var moved = positions + Count;
        if (!isFirst)
        {
            return (hidden, moved.MoveToOuterDisposeScope(), mask is null ? null : SeenByAll(mask).MoveToOuterDisposeScope());
        }

        if (Embeddings is null)
        {
            var among = mask ?? ones([1, 1, tokens, tokens], ScalarType.Bool, hidden.device).tril();
            return (hidden, moved.MoveToOuterDisposeScope(), SeenByAll(among).MoveToOuterDisposeScope());
        }

        var before = Embeddings().to(hidden.dtype).expand(batch, -1, -1);   // [B, P, D]
        var own = arange(Count, ScalarType.Int64, hidden.device).expand(batch, Count);
        return (
            cat([before, hidden], dim: 1).MoveToOuterDisposeScope(),
            cat([own, moved], dim: 1).MoveToOuterDisposeScope(),
            mask is null ? null : cat([SeenByThem(mask), SeenByAll(mask)], dim: 2).MoveToOuterDisposeScope());
    }

    /// <summary>Rows of the row's tokens: they see every virtual token. [B, 1, T, P + S].</summary>
    private Tensor SeenByAll(Tensor mask) =>
        cat([ones([mask.shape[0], 1, mask.shape[2], Count], ScalarType.Bool, mask.device), mask], dim: 3);

    /// <summary>Rows of the virtual tokens: each sees those before it, and itself. [B, 1, P, P + S].</summary>
    private Tensor SeenByThem(Tensor mask) => cat(
        [
            ones([Count, Count], ScalarType.Bool, mask.device).tril().expand(mask.shape[0], 1, Count, Count),
            zeros([mask.shape[0], 1, Count, mask.shape[3]], ScalarType.Bool, mask.device),
        ],
        dim: 3);
}
