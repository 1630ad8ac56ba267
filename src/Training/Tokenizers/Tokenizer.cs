namespace TrainingService.Training.Tokenizers;

/// <summary>Text to token ids and back, as the model's own tokenizer files define it. Safe to use from several threads.</summary>
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

    /// <summary>Whether a model folder holds a tokenizer at all; without one a model trains on tokenised rows only.</summary>
    public static bool IsIn(string folder) =>
        new[] { "tokenizer.json", "tokenizer.model", "vocab.json" }.Any(name => File.Exists(Path.Combine(folder, name)));

    /// <summary>
    /// Reads a model folder: <c>tokenizer.json</c>, else <c>tokenizer.model</c> (SentencePiece), else <c>vocab.json</c> with
    /// <c>merges.txt</c>; special tokens and template from the files beside it.
    /// </summary>
    /// <param name="clock">What a chat template takes for the time of day; the system's clock when null.</param>
    /// <exception cref="TrainingException">No tokenizer is there, a file is broken, or it asks for a piece that is not implemented.</exception>
    public static Tokenizer Load(string folder, TimeProvider? clock = null) =>
        TokenizerFolder.Load(folder, clock ?? TimeProvider.System);

    /// <summary>Token ids of <paramref name="text"/>. Special tokens that stand in the text are recognised.</summary>
    /// <param name="addSpecialTokens">Whether the tokens are added that the model expects around a text (BOS, EOS), as its files say.</param>
    public abstract IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true);

    /// <summary>Token ids, and for each the characters of <paramref name="text"/> that it stands for.</summary>
    /// <returns>
    /// Ids and ranges of UTF-16 characters, equally many. A token that stands for no character (BOS, a prepended space) has length
    /// zero; tokens that share a character (bytes of one) have overlapping ranges. White space belongs to the token that holds it.
    /// </returns>
    public abstract (IReadOnlyList<int> Ids, IReadOnlyList<(int Start, int Length)> Offsets) EncodeWithOffsets(
        string text, bool addSpecialTokens = true);

    /// <summary>Text of <paramref name="ids"/>; bytes that are no UTF-8 become U+FFFD.</summary>
    public abstract string Decode(IEnumerable<int> ids, bool skipSpecialTokens = true);
}
