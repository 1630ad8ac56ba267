using TrainingService.Training.Data.Rows;

namespace TrainingService.Training.Data.Layouts;

/// <summary>Rows that were tokenised elsewhere.</summary>
internal static class TokenizedLayout
{
    /// <remarks>Without <c>labels</c> every token carries loss. Tokens whose <c>attention_mask</c> is 0 are padding: they are taken away at both
    /// ends, and refused in between, where they would change what the other tokens see.</remarks>
    public static Sample Read(Fields fields)
    {
        var ids = Integers(fields, "input_ids");
        if (ids.Length == 0)
        {
            throw new RowException("no_trainable_tokens", "holds no tokens", "input_ids");
        }

        var labels = fields.Has("labels") ? Integers(fields, "labels") : ids;
        CheckLength(labels, ids, "labels");
        if (!fields.Has("attention_mask"))
        {
            return new TokenRow(ids, labels);
        }

        var mask = Integers(fields, "attention_mask");
        CheckLength(mask, ids, "attention_mask");
        var start = Array.FindIndex(mask, value => value != 0);
        if (start < 0)
        {
            throw new RowException("no_trainable_tokens", "hides every token", "attention_mask");
        }

        var end = Array.FindLastIndex(mask, value => value != 0) + 1;
        var hole = Array.FindIndex(mask, start, end - start, value => value != 1);
        return hole < 0
            ? new TokenRow(ids[start..end], labels[start..end])
            : throw new RowException(
                "wrong_value", $"is {mask[hole]} between tokens that are seen; 0 may only mark padding at the ends, all else is 1",
                $"attention_mask[{hole}]");
    }

    private static int[] Integers(Fields fields, string name)
    {
        var list = fields.List(name);
        return [.. list.Select((value, i) => Fields.Integer(value, name, i))];
    }

    private static void CheckLength(int[] values, int[] ids, string name)
    {
        if (values.Length != ids.Length)
        {
            throw new RowException("wrong_length", $"has {values.Length} elements and input_ids {ids.Length}; they must be as many", name);
        }
    }
}
