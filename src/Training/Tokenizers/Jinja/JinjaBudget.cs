using System.Globalization;

namespace TrainingService.Training.Tokenizers.Jinja;

/// <summary>What one rendering may use. A template comes with a model, so its author is not trusted.</summary>
internal sealed class JinjaBudget
{
    public const int MaxSteps = 1_000_000;
    public const int MaxText = 16 << 20;
    public const int MaxItems = 1_000_000;
    public const int MaxDepth = 300;

    private const int CharactersPerStep = 256;   // copying this much costs about as much as one step
    private const int PartPerPass = 64;          // a longer part may be compared with the text again and again

    private int _steps;
    private int _depth;

    /// <summary>Counts work, and room for texts and lists that are made on the way.</summary>
    public void Step(long count = 1)
    {
        _steps += (int)Math.Min(count, MaxSteps);
        if (_steps > MaxSteps)
        {
            throw JinjaErrors.Limit(string.Create(CultureInfo.InvariantCulture, $"it took more than {MaxSteps} steps"));
        }
    }

    /// <summary>Counts a text of this length before it is made.</summary>
    public void Text(long length)
    {
        if (length > MaxText)
        {
            throw JinjaErrors.Limit(string.Create(CultureInfo.InvariantCulture, $"it makes a text of more than {MaxText} characters"));
        }

        Step(1 + (length / CharactersPerStep));
    }

    /// <summary>Counts the search for a part in a text, which at worst compares each character of one with each of the other.</summary>
    public void Search(long length, long partLength) => Step(1 + (length / CharactersPerStep * (1 + (partLength / PartPerPass))));

    /// <summary>Counts a list of this length before it is made.</summary>
    public void Items(long count)
    {
        if (count > MaxItems)
        {
            throw JinjaErrors.Limit(string.Create(CultureInfo.InvariantCulture, $"it makes a list of more than {MaxItems} items"));
        }

        Step(1 + (count / 4));
    }

    public void Enter()
    {
        if (++_depth > MaxDepth)
        {
            throw JinjaErrors.Limit(string.Create(CultureInfo.InvariantCulture, $"it nests more than {MaxDepth} levels deep"));
        }
    }

    public void Leave() => _depth--;
}
