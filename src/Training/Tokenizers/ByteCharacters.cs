namespace TrainingService.Training.Tokenizers;

/// <summary>The printable character that stands for each byte in a byte-level vocabulary.</summary>
/// <remarks>
/// Radford et al. 2019 (GPT-2): the bytes that are printable in Latin-1 stand for themselves, the other 68 for U+0100 and on, in order.
/// </remarks>
internal static class ByteCharacters
{
    private static readonly char[] Characters = CreateCharacters();
    private static readonly Dictionary<char, byte> Bytes = Enumerable.Range(0, 256).ToDictionary(i => Characters[i], i => (byte)i);

    public static char Of(byte value) => Characters[value];

    public static bool TryGetByte(char character, out byte value) => Bytes.TryGetValue(character, out value);

    private static char[] CreateCharacters()
    {
        var characters = new char[256];
        var next = 0x100;
        for (var i = 0; i < 256; i++)
        {
            characters[i] = i is >= '!' and <= '~' or >= 0xA1 and <= 0xAC or >= 0xAE and <= 0xFF ? (char)i : (char)next++;
        }

        return characters;
    }
}
