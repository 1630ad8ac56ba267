using System.Buffers.Binary;
using System.Text;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Checkpoints;

public class HostileSafeTensorsTests
{
    private const string Good = """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[2,2],"data_offsets":[8,16]}}""";

    public static TheoryData<string, string, string> Headers => new()
    {
        { "end beyond the file", """{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}""", "truncated" },
        { "huge offsets", """{"a":{"dtype":"F32","shape":[2],"data_offsets":[9223372036854775799,9223372036854775807]}}""", "truncated" },
        { "offset beyond 64 bits", """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551624]}}""", "data_offsets" },
        { "negative offset", """{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,8]}}""", "data_offsets" },
        { "end before start", """{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}""", "start and an end" },
        { "one offset", """{"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}}""", "start and an end" },
        { "overlap", """{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""", "overlaps" },
        { "gap", """{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""", "gap" },
        { "hidden bytes at the end", """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", "belong to no tensor" },
        { "too few bytes for the shape", """{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}""", "do not fit" },
        { "shape that overflows to the right length", """{"a":{"dtype":"F32","shape":[4611686018427387908,4],"data_offsets":[0,16]}}""", "do not fit" },
        { "shape that overflows beside a zero", """{"a":{"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}""", "do not fit" },
        { "negative size", """{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}""", "shape" },
        { "fractional size", """{"a":{"dtype":"F32","shape":[4.5],"data_offsets":[0,16]}}""", "shape" },
        { "shape that is a text", """{"a":{"dtype":"F32","shape":"4","data_offsets":[0,16]}}""", "shape" },
        { "the same tensor twice", """{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}""", "twice" },
        { "the same member twice", """{"a":{"dtype":"F32","dtype":"F16","shape":[4],"data_offsets":[0,16]}}""", "twice" },
        { "unknown member", """{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"url":"x"}}""", "unknown member 'url'" },
        { "no dtype", """{"a":{"shape":[4],"data_offsets":[0,16]}}""", "lacks" },
        { "float8", """{"a":{"dtype":"F8_E4M3","shape":[16],"data_offsets":[0,16]}}""", "'F8_E4M3', which is not supported; convert" },
        { "an entry that is a number", """{"a":5}""", "object" },
        { "a header that is a list", "[]", "not a JSON object" },
        { "broken JSON", """{"a":{"dtype":""", "not valid JSON" },
        { "nesting", new string('[', 5000) + new string(']', 5000), "not valid JSON" },
        { "half a surrogate pair", """{"\ud800":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}""", "not valid JSON" },
        { "metadata that is a number", """{"__metadata__":5,"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}""", "__metadata__" },
        { "metadata value that is a number", """{"__metadata__":{"k":5},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}""", "'k'" },
        { "metadata twice", """{"__metadata__":{},"__metadata__":{},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}""", "twice" },
        { "nothing", "", "not valid JSON" },
    };

    [Theory]
    [MemberData(nameof(Headers))]
    public void A_header_that_lies_is_refused_by_name(string what, string header, string expected)
    {
        Assert.NotEmpty(what);
        using var folder = new TemporaryFolder();
        var path = Write(folder, Encoding.UTF8.GetBytes(header), new byte[16]);

        var error = Assert.Throws<TrainingException>(() => SafeTensorsFile.Open(path));

        Assert.Equal(FailureCode.InvalidData, error.Code);
        Assert.Contains("hostile.safetensors", error.Message, StringComparison.Ordinal);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.InRange(error.Message.Length, 20, 600);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(8)]
    [InlineData(50)]
    [InlineData(130)]
    [InlineData(-1)]
    public void A_truncated_file_is_refused(int length)
    {
        using var folder = new TemporaryFolder();
        var path = Write(folder, Encoding.UTF8.GetBytes(Good), new byte[16]);
        var whole = File.ReadAllBytes(path);
        File.WriteAllBytes(path, whole[..(length < 0 ? whole.Length + length : length)]);

        Assert.Equal(FailureCode.InvalidData, Assert.Throws<TrainingException>(() => SafeTensorsFile.Open(path)).Code);
    }

    [Theory]
    [InlineData(ulong.MaxValue)]
    [InlineData(1UL << 63)]
    [InlineData(1UL << 40)]
    [InlineData(17UL)]
    public void A_header_length_beyond_the_file_is_refused_without_reading_it(ulong claimed)
    {
        using var folder = new TemporaryFolder();
        var path = folder.File("hostile.safetensors");
        var bytes = new byte[24];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, claimed);
        File.WriteAllBytes(path, bytes);

        var error = Assert.Throws<TrainingException>(() => SafeTensorsFile.Open(path));

        Assert.Contains($"claims {claimed} bytes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Bytes_that_are_not_utf8_are_refused()
    {
        using var folder = new TemporaryFolder();
        var path = Write(folder, [.. "{\""u8, 0xC3, 0x28, .. "\":1}"u8], []);

        Assert.Contains("UTF-8", Assert.Throws<TrainingException>(() => SafeTensorsFile.Open(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_good_header_of_these_tests_is_read()
    {
        using var folder = new TemporaryFolder();
        using var scope = NewDisposeScope();
        using var file = SafeTensorsFile.Open(Write(folder, Encoding.UTF8.GetBytes(Good + "   "), new byte[16]));

        Assert.Equal([2, 2], file.Read("b").shape);
    }

    /// <summary>Whatever a header says, it is either read, with every tensor inside the file, or refused in our words.</summary>
    [Fact]
    public void Thousands_of_mutated_headers_are_read_or_refused_and_never_break_out()
    {
        string[] pieces =
            ["0", "-1", "1e9", "9223372036854775807", "18446744073709551616", "[", "]", "{", "}", "\"", ",", ":", "null", "true", "\\ud800",
             "F32", "BF16", "I64", "\"shape\"", "\"a\"", "\"__metadata__\"", "\u0000", "é", "[8,16]", "[0,8]", "[]"];
        using var folder = new TemporaryFolder();
        var random = new Random(20250101);
        var read = 0;
        for (var round = 0; round < 4_000; round++)
        {
            var bytes = Encoding.UTF8.GetBytes(Good).ToList();
            for (var change = random.Next(1, 3); change > 0; change--)
            {
                var at = random.Next(bytes.Count);
                switch (random.Next(4))
                {
                    case 0:
                        bytes[at] = (byte)random.Next(256);
                        break;
                    case 1:
                        bytes.RemoveRange(at, Math.Min(random.Next(1, 6), bytes.Count - at - 1));
                        break;
                    case 2:
                        bytes.InsertRange(at, Encoding.UTF8.GetBytes(pieces[random.Next(pieces.Length)]));
                        break;
                    default:
                        bytes.InsertRange(at, bytes.GetRange(at, Math.Min(random.Next(1, 60), bytes.Count - at)));
                        break;
                }
            }

            var header = bytes.ToArray();
            var fileLength = 8 + header.Length + 16L;
            try
            {
                using var parsed = SafeTensorsFile.Open(Write(folder, header, new byte[16]));
                read++;
                Assert.Equal(16, parsed.Entries.Values.Sum(entry => entry.Length));
                Assert.All(parsed.Entries.Values, entry =>
                {
                    Assert.InRange(entry.Offset, 8 + header.Length, fileLength);
                    Assert.InRange(entry.Offset + entry.Length, entry.Offset, fileLength);
                    Assert.Equal(entry.Length, entry.Shape.Aggregate((long)entry.DType.Size(), (product, size) => checked(product * size)));
                });
            }
            catch (TrainingException error)
            {
                Assert.Equal(FailureCode.InvalidData, error.Code);
            }
        }

        Assert.InRange(read, 20, 3_900);   // the mutations reach both outcomes
    }

    private static string Write(TemporaryFolder folder, byte[] header, byte[] data)
    {
        var path = folder.File("hostile.safetensors");
        var prefix = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(prefix, (ulong)header.Length);
        File.WriteAllBytes(path, [.. prefix, .. header, .. data]);
        return path;
    }
}
