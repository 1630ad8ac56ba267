using System.Globalization;

namespace TrainingService.Api.Http;

/// <summary>One page of a list. <c>has_more</c> is always there: some clients take its absence for a yes.</summary>
internal sealed record ListPage<T>(IReadOnlyList<T> Data, bool HasMore, string? FirstId, string? LastId)
{
    public string Object { get; } = "list";
}

/// <summary>Pages, newest first; the cursor is the id of the last item seen.</summary>
internal static class ListPage
{
    /// <param name="rows">Up to one row more than the page holds: its presence says that there is more.</param>
    public static ListPage<TItem> Of<TRow, TItem>(
        IReadOnlyList<TRow> rows, int limit, Func<TRow, TItem> show, Func<TItem, string> id)
    {
        var items = rows.Take(limit).Select(show).ToList();
        return new ListPage<TItem>(
            items, rows.Count > limit, items.Count == 0 ? null : id(items[0]), items.Count == 0 ? null : id(items[^1]));
    }

    /// <summary>Reads the <c>limit</c> parameter.</summary>
    public static int Limit(int? asked, int standard, int largest) => asked switch
    {
        null => standard,
        _ when asked < 1 || asked > largest => throw RequestException.Invalid(
            "invalid_limit", string.Create(CultureInfo.InvariantCulture, $"limit must be from 1 to {largest}, and is {asked}."), "limit"),
        _ => asked.Value,
    };

    public static RequestException UnknownCursor(string after) => RequestException.Invalid(
        "invalid_cursor", $"after must be the id of an item of this list, and '{after}' is not.", "after");
}
