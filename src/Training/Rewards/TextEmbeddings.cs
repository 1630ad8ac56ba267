using TrainingService.Training.Data;
using TrainingService.Training.Devices;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Tokenizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Rewards;

/// <summary>Embeds texts: the dot product of two embeddings says how relevant the texts are to each other.</summary>
/// <returns>A row of the same length for each text.</returns>
public delegate IReadOnlyList<float[]> EmbedTexts(IReadOnlyList<string> texts);

/// <summary>Ways to embed texts.</summary>
public static class TextEmbeddings
{
    private const int BatchSize = 32;

    /// <summary>Mean of a model's last hidden states over the tokens of a text. Of a text that is too long its end counts.</summary>
    /// <remarks>As Contriever pools (Izacard et al. 2022, arXiv:2112.09118). The dot product is taken as it is, without normalisation.</remarks>
    public static EmbedTexts OfHiddenStates(CausalLm model, Tokenizer tokenizer) => texts =>
    {
        using var noGrad = no_grad();
        var rows = texts.Select(text => tokenizer.Encode(text) is { Count: > 0 } ids
            ? new Example([.. ids.Skip(Math.Max(0, ids.Count - model.MostTokens))], [], Row: 0)
            : throw TrainingException.InvalidData("An empty text has no embedding.")).ToList();
        var embeddings = new float[rows.Count][];
        foreach (var chunk in Enumerable.Range(0, rows.Count).OrderBy(row => rows[row].InputIds.Length).Chunk(BatchSize))
        {
            using var scope = NewDisposeScope();
            var length = chunk.Max(row => rows[row].InputIds.Length);
            var (ids, mask) = (new long[chunk.Length * length], new float[chunk.Length * length]);
            foreach (var (at, row) in chunk.Index())
            {
                for (var t = 0; t < rows[row].InputIds.Length; t++)
                {
                    ids[(at * length) + t] = rows[row].InputIds[t];
                    mask[(at * length) + t] = 1f / rows[row].InputIds.Length;
                }
            }

            var positions = Enumerable.Range(0, chunk.Length * length).Select(at => (long)(at % length)).ToArray();
            var lengths = Array.ConvertAll(chunk, row => rows[row].InputIds.Length);
            var batch = new Batch(chunk.Length, length, ids, [], positions, Segments: null) { Lengths = lengths };
            var hidden = BatchInput.HiddenStates(model, batch, model.Device).to_type(ScalarType.Float32);   // [B, T, D]
            var shares = DeviceCopy.To(tensor(mask, [chunk.Length, 1, length]), model.Device);
            var pooled = shares.matmul(hidden).squeeze(1).cpu();   // [B, D]
            foreach (var (at, row) in chunk.Index())
            {
                embeddings[row] = pooled[at].data<float>().ToArray();
            }
        }

        return embeddings;
    };

    /// <summary>
    /// Which words a text has, without any model: a share for each of its words, rare words counting more (their inverse document frequency), so that the
    /// dot product is large where two texts share rare words.
    /// </summary>
    /// <param name="corpus">Texts that say which words are rare.</param>
    public static EmbedTexts OfWords(IEnumerable<string> corpus)
    {
        var documents = corpus.Select(Kinds).ToList();
        var frequency = documents.SelectMany(words => words.Keys).CountBy(word => word).ToDictionary();
        var places = frequency.Keys.Order(StringComparer.Ordinal).Index().ToDictionary(word => word.Item, word => word.Index);
        return texts =>
        [
            .. texts.Select(text =>
            {
                var words = Kinds(text);
                var embedding = new float[places.Count];
                foreach (var (word, count) in words.Where(word => places.ContainsKey(word.Key)))
                {
                    embedding[places[word]] = (float)(count * Math.Log((1.0 + documents.Count) / frequency[word]) / Math.Max(1, words.Values.Sum()));
                }

                return embedding;
            }),
        ];

        static Dictionary<string, int> Kinds(string text) =>
            R3.Words(text.ToLowerInvariant()).Where(word => char.IsLetterOrDigit(word[0])).CountBy(word => word).ToDictionary();
    }

    /// <summary>Dot product.</summary>
    public static double Relevance(ReadOnlySpan<float> a, ReadOnlySpan<float> b)
    {
        var sum = 0.0;
        for (var i = 0; i < a.Length; i++)
        {
            sum += (double)a[i] * b[i];
        }

        return sum;
    }
}
