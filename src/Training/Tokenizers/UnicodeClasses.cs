using System.Globalization;
using System.Text;

namespace TrainingService.Training.Tokenizers;

/// <summary>Unicode character classes as tokenizer files mean them.</summary>
internal static class UnicodeClasses
{
    public static bool IsWordCharacter(Rune rune) => Rune.GetUnicodeCategory(rune) is
        UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter
        or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter or UnicodeCategory.NonSpacingMark
        or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark or UnicodeCategory.DecimalDigitNumber
        or UnicodeCategory.LetterNumber or UnicodeCategory.ConnectorPunctuation;

    public static bool IsNumber(Rune rune) => Rune.GetUnicodeCategory(rune) is
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber;

    /// <summary>All of Unicode's punctuation, and ASCII's signs that Unicode calls symbols.</summary>
    public static bool IsPunctuation(Rune rune) =>
        Rune.IsPunctuation(rune) || (rune.IsAscii && Rune.IsSymbol(rune));

    /// <summary>
    /// A character of the basic plane in the same general category, for regular expressions, which see UTF-16 and would take
    /// a letter beyond that plane for two surrogates.
    /// </summary>
    public static char StandIn(Rune rune) => Rune.GetUnicodeCategory(rune) switch
    {
        UnicodeCategory.UppercaseLetter => '\u0141',
        UnicodeCategory.LowercaseLetter => '\u0142',
        UnicodeCategory.TitlecaseLetter => '\u01F2',
        UnicodeCategory.ModifierLetter => '\u02B0',
        UnicodeCategory.OtherLetter => '\uA4D0',
        UnicodeCategory.NonSpacingMark => '\u0F71',
        UnicodeCategory.SpacingCombiningMark => '\u0F3E',
        UnicodeCategory.EnclosingMark => '\u0489',
        UnicodeCategory.DecimalDigitNumber => '\u1090',
        UnicodeCategory.LetterNumber => '\u2188',
        UnicodeCategory.OtherNumber => '\u2CFD',
        UnicodeCategory.DashPunctuation => '\u2E3A',
        UnicodeCategory.OpenPunctuation => '\u2E22',
        UnicodeCategory.ClosePunctuation => '\u2E23',
        UnicodeCategory.InitialQuotePunctuation => '\u2E02',
        UnicodeCategory.FinalQuotePunctuation => '\u2E03',
        UnicodeCategory.OtherPunctuation => '\u2E18',
        UnicodeCategory.ConnectorPunctuation => '\u2040',
        UnicodeCategory.MathSymbol => '\u2A0B',
        UnicodeCategory.CurrencySymbol => '\u20BE',
        UnicodeCategory.ModifierSymbol => '\uA700',
        UnicodeCategory.OtherSymbol => '\u2808',
        UnicodeCategory.Format => '\u2060',
        UnicodeCategory.PrivateUse => '\uE123',
        UnicodeCategory.Control or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator
            or UnicodeCategory.SpaceSeparator or UnicodeCategory.Surrogate or UnicodeCategory.OtherNotAssigned => '\uFFFF',
    };
}
