using System.Text;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>Damages bytes in the ways that files are damaged, and in some that only an enemy thinks of. The same seed gives the same damage.</summary>
internal sealed class Mutation(int seed)
{
    private static readonly byte[][] Pieces =
    [
        .. new[]
        {
            "0", "-1", "1e9", "1e999", "NaN", "2147483648", "9223372036854775807", "18446744073709551616", "[", "]", "{", "}", "[[[[", "\"", ",", ":",
            "null", "true", "\\ud800", "\\u0000", "\u0000", "\uFEFF", "é", "💥", "\r\n", "\"\"", "[]", "{}", "../", "/etc/passwd", "F32", "I64",
        }.Select(Encoding.UTF8.GetBytes),
        [0xFF], [0xC3, 0x28], [0xED, 0xA0, 0x80], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], [0x80, 0x80, 0x80, 0x80], [0x1F, 0x8B],
    ];

    private readonly Random _random = new(seed);

    public byte[] Of(byte[] whole)
    {
        var bytes = whole.ToList();
        for (var change = _random.Next(1, 4); change > 0 && bytes.Count > 0; change--)
        {
            Change(bytes, _random.Next(bytes.Count));
        }

        return [.. bytes];
    }

    private void Change(List<byte> bytes, int at)
    {
        var length = Math.Min(_random.Next(1, 24), bytes.Count - at);
        switch (_random.Next(8))
        {
            case 0:
                bytes[at] ^= (byte)(1 << _random.Next(8));
                break;
            case 1:
                bytes[at] = (byte)_random.Next(256);
                break;
            case 2:
                bytes.RemoveRange(at, length);
                break;
            case 3:
                bytes.InsertRange(at, Pieces[_random.Next(Pieces.Length)]);
                break;
            case 4:
                bytes.InsertRange(_random.Next(bytes.Count), bytes.GetRange(at, length));
                break;
            case 5:
                var other = _random.Next(bytes.Count - length + 1);
                for (var i = 0; i < length; i++)
                {
                    (bytes[at + i], bytes[other + i]) = (bytes[other + i], bytes[at + i]);
                }

                break;
            case 6 when _random.Next(4) == 0:
                bytes.RemoveRange(at, bytes.Count - at);
                break;
            default:
                // A digit for a digit leaves most of a header standing, so that the damage reaches what numbers mean.
                var digit = bytes.FindIndex(at, letter => letter is >= (byte)'0' and <= (byte)'9');
                if (digit >= 0)
                {
                    bytes[digit] = (byte)('0' + _random.Next(10));
                }

                break;
        }
    }
}

/// <summary>A folder in memory where the machine has one: fuzzing writes a hundred thousand files.</summary>
internal sealed class FastFolder : IDisposable
{
    public string Path { get; } = Directory.Exists("/dev/shm")
        ? Directory.CreateDirectory($"/dev/shm/training-tests-{Guid.NewGuid():N}").FullName
        : Directory.CreateTempSubdirectory("training-tests-").FullName;

    public string File(string name) => System.IO.Path.Combine(Path, name);

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
