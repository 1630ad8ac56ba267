namespace TrainingService.Training.Tokenizers;

/// <summary>Text to token ids and back, as the model's own tokenizer files define it.</summary>
public abstract class Tokenizer
{
    /// <summary>Number of ids, added tokens included: one more than the largest id.</summary>
    public abstract int VocabularySize { get; }

    public abstract int? BosId { get; }

    public abstract int? EosId { get; }

    /// <summary>Padding id as configured; null when the files name none.</summary>
    public abstract int? PadId { get; }

    /// <summary>Template that renders a conversation; null when the model has none.</summary>
    public abstract ChatTemplate? ChatTemplate { get; }

    /// <summary>Token ids of <paramref name="text"/>. Special tokens that stand in the text are recognised.</summary>
    /// <param name="addSpecialTokens">Whether the tokens are added that the model expects around a text (BOS, EOS), as its files say.</param>
    public abstract IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true);

    /// <summary>Text of <paramref name="ids"/>.</summary>
    public abstract string Decode(IEnumerable<int> ids, bool skipSpecialTokens = true);
}
