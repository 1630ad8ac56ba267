using System.Text.Json;
using CsCheck;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Tokenizers;

/// <summary>The heap against the definition: merge the lowest-ranked neighbours, leftmost first, over and over.</summary>
public sealed class BpeMergeTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Merging_by_heap_gives_what_merging_by_definition_gives()
    {
        var merges = new List<(string Left, string Right)>();
        List<string> pieces = ["▁", "a", "b", "c"];
        for (var i = 0; i < 60; i++)
        {
            var (left, right) = (pieces[(i * 7 + 3) % pieces.Count], pieces[(i * 5 + 1) % pieces.Count]);
            if (left.Length + right.Length <= 8 && !merges.Contains((left, right)))
            {
                merges.Add((left, right));
                if (!pieces.Contains(left + right))
                {
                    pieces.Add(left + right);
                }
            }
        }

        Check(pieces, merges);
        // And where ▁ only begins pieces, which lets the model cut texts before it.
        merges = [.. merges.Where(merge => (merge.Left + merge.Right).LastIndexOf('▁') <= 0)];
        Check(["▁", "a", "b", "c", .. merges.Select(merge => merge.Left + merge.Right).Distinct()], [.. merges.Where(merge =>
            IsKnown(merge.Left, merges) && IsKnown(merge.Right, merges))]);
    }

    private static bool IsKnown(string piece, List<(string Left, string Right)> merges) =>
        piece.Length == 1 || merges.Exists(merge => merge.Left + merge.Right == piece);

    private void Check(List<string> pieces, List<(string Left, string Right)> merges)
    {
        Assert.True(merges.Count > 5);
        _folder.With("tokenizer.json", JsonSerializer.Serialize(new
        {
            model = new
            {
                type = "BPE",
                vocab = pieces.Select((piece, id) => (piece, id)).ToDictionary(entry => entry.piece, entry => entry.id),
                merges = merges.Select(merge => new[] { merge.Left, merge.Right }),
            },
        }));
        var tokenizer = Tokenizer.Load(_folder.Path);

        Gen.Char["abc▁"].Array[0, 60].Sample(characters =>
        {
            var text = new string(characters);
            Assert.Equal(ByDefinition(text, merges).Select(piece => pieces.IndexOf(piece)), tokenizer.Encode(text));
        }, iter: 300);
    }

    private static List<string> ByDefinition(string text, List<(string Left, string Right)> merges)
    {
        List<string> symbols = [.. text.Select(character => character.ToString())];
        while (true)
        {
            var best = Enumerable.Range(0, Math.Max(0, symbols.Count - 1))
                .Select(i => (Rank: merges.IndexOf((symbols[i], symbols[i + 1])), Place: i))
                .Where(candidate => candidate.Rank >= 0).DefaultIfEmpty((Rank: -1, Place: -1)).Min();
            if (best.Rank < 0)
            {
                return symbols;
            }

            symbols[best.Place] += symbols[best.Place + 1];
            symbols.RemoveAt(best.Place + 1);
        }
    }
}
