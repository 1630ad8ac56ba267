using System.IO.Compression;
using System.Text;
using TrainingService.Training.Data;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Data;

/// <summary>A file that lives as long as its test.</summary>
internal sealed class TextFile : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("data-tests-");

    public TextFile(string name, string text)
        : this(name, Encoding.UTF8.GetBytes(text))
    {
    }

    public TextFile(string name, ReadOnlySpan<byte> bytes)
    {
        Path = System.IO.Path.Combine(_folder.FullName, name);
        File.WriteAllBytes(Path, bytes);
    }

    public string Path { get; }

    public static byte[] Gzip(byte[] bytes)
    {
        using var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Optimal))
        {
            gzip.Write(bytes);
        }

        return packed.ToArray();
    }

    public DataReport Validate(DataConfig? config = null, Tokenizer? tokenizer = null, int? vocabulary = null) =>
        DataSets.Validate(Path, config, tokenizer, vocabulary, use: RowUse.Answers, cancellationToken: TestContext.Current.CancellationToken);

    /// <summary>The rows of this file as a run would see them; other members of <paramref name="config"/> are kept.</summary>
    public PreparedData Prepare(
        DataConfig? config = null, Tokenizer? tokenizer = null, RowUse use = RowUse.Answers, int vocabulary = 256, int seed = 1) =>
        DataSets.Prepare(
            (config ?? new DataConfig { Train = Path }) with { Train = Path }, use, tokenizer ?? new CharacterTokenizer(), vocabulary, seed,
            progress: null, TestContext.Current.CancellationToken);

    public void Dispose() => _folder.Delete(recursive: true);
}
