using System.Buffers.Binary;
using System.Text;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>Whatever bytes a safetensors file has, it is refused in our words, or every tensor in it is exactly its bytes of the file.</summary>
public class SafeTensorsFuzzTests
{
    private const int Rounds = 100_000;
    private const int Threads = 2;

    // The last file ends where its page of memory ends: a read beyond it ends the process.
    private static readonly byte[][] Originals =
    [
        FileOf("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[2,2],"data_offsets":[8,16]}}""", 16),
        FileOf("""{"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[3,1],"data_offsets":[0,6]},"i":{"dtype":"I64","shape":[1],"data_offsets":[6,14]}}""", 14),
        FileOf("""{"empty":{"dtype":"F64","shape":[0,7],"data_offsets":[0,0]},"one":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"t":{"dtype":"BOOL","shape":[3],"data_offsets":[1,4]}}""", 4),
        FileOf("""{"p":{"dtype":"F32","shape":[31,32],"data_offsets":[0,3968]}}""".PadRight(120), 3968),
    ];

    [Fact]
    public async Task A_hundred_thousand_damaged_files_are_read_within_their_bytes_or_refused()
    {
        Assert.Equal(4096, Originals[^1].Length);
        var parts = await Task.WhenAll(Enumerable.Range(0, Threads).Select(thread => Task.Run(() => Fuzz(thread))));

        // Damage of either kind has to be reached, or the test tests nothing.
        Assert.Equal(Rounds, parts.Sum(part => part.Read + part.Refused));
        Assert.InRange(parts.Sum(part => part.Read), Rounds / 50, Rounds);
        Assert.InRange(parts.Sum(part => part.Refused), Rounds / 5, Rounds);
    }

    private static (int Read, int Refused) Fuzz(int thread)
    {
        using var folder = new FastFolder();
        var path = folder.File("hostile.safetensors");
        var mutation = new Mutation(20261123 + thread);
        var (read, refused) = (0, 0);
        for (var round = thread; round < Rounds; round += Threads)
        {
            var bytes = mutation.Of(Originals[round % Originals.Length]);
            File.WriteAllBytes(path, bytes);
            try
            {
                using var file = SafeTensorsFile.Open(path);
                foreach (var (name, entry) in file.Entries)
                {
                    using var tensor = file.Read(name);
                    Assert.Equal(entry.Length, tensor.numel() * entry.DType.Size());
                    Assert.True(entry.Offset >= 8 && entry.Offset + entry.Length <= bytes.Length, name);
                    var expected = bytes.AsSpan((int)entry.Offset, (int)entry.Length);
                    Assert.True(entry.Length == 0 || tensor.view(-1).bytes.SequenceEqual(expected), $"round {round}: {name} is not its bytes of the file");
                }

                read++;
            }
            catch (TrainingException error)
            {
                Assert.Equal(FailureCode.InvalidData, error.Code);
                Assert.InRange(error.Message.Length, 20, 1000);
                refused++;
            }
        }

        return (read, refused);
    }

    internal static byte[] FileOf(string header, int dataBytes)
    {
        var prefix = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(prefix, (ulong)header.Length);
        return [.. prefix, .. Encoding.UTF8.GetBytes(header), .. Enumerable.Range(0, dataBytes).Select(i => (byte)(i * 37 + 11))];
    }
}
