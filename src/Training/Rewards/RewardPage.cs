using System.Text;

namespace TrainingService.Training.Rewards;

/// <summary>A <see cref="RewardReport"/> as a page for people, in Markdown.</summary>
internal static class RewardPage
{
    private const int MostCategories = 60;

    /// <param name="drawings">Names of the drawings beside the page.</param>
    public static string Write(RewardReport report, IReadOnlyCollection<string> drawings)
    {
        var page = new StringBuilder("# What this reward model does on rows that it was not trained on\n\n");
        foreach (var finding in report.Findings)
        {
            var mark = finding.Level switch
            {
                FindingLevel.Problem => "**Problem.** ",
                FindingLevel.Warning => "**Take care.** ",
                FindingLevel.Info => "",
            };
            page.Append(Invariant($"- {mark}{Escape(finding.Text)}{(finding.Advice is null ? "" : $" *{Escape(finding.Advice)}*")}\n"));
        }

        page.Append("\n## Accuracy\n\n| pairs | right | of | share | standard error |\n| --- | --- | --- | --- | --- |\n");
        Row(page, "all", report.Accuracy);
        Row(page, "better answer longer", report.Length.ChosenLonger);
        Row(page, "better answer shorter", report.Length.ChosenShorter);
        Row(page, "same length", report.Length.SameLength);
        Row(page, "prompts with all pairs right (ACC+)", report.AllRightPrompts);
        page.Append(Invariant(
            $"\nTies (wrong): {100 * report.TieRate:F1} % of the pairs. Correlation of reward and tokens over all answers: {Number(report.Length.Pearson)} (Pearson), {Number(report.Length.Spearman)} (Spearman); of their differences within pairs: {Number(report.Length.PairSpearman)} (Spearman).\n"));
        Picture(page, drawings, RewardDrawings.Length, "Accuracy by how much longer the better answer is");

        page.Append("\n## Margins\n\nA margin is the reward of the better answer less that of the worse one; below zero the model is wrong.\n\n");
        page.Append("| mean | deviation | 5 % are below | half are below | 95 % are below |\n| --- | --- | --- | --- | --- |\n");
        page.Append(Invariant(
            $"| {report.Margins.Mean:F3} | {report.Margins.Deviation:F3} | {report.Margins.Percentiles[5]:F3} | {report.Margins.Percentiles[50]:F3} | {report.Margins.Percentiles[95]:F3} |\n"));
        Picture(page, drawings, RewardDrawings.Margins, "Histogram of the margins");

        page.Append(Invariant(
            $"\n## Calibration\n\nσ(margin) can be read as the probability that an answer is the better one. The model claims to be right in {100 * report.Calibration.MeanConfidence:F1} % and is in {100 * report.Calibration.MeanRight:F1} %; expected calibration error {100 * report.Calibration.Error:F1} %.\n"));
        Picture(page, drawings, RewardDrawings.Reliability, "Reliability diagram");

        page.Append("\n## Agreement with the labels\n\n| confidence of the model | agrees | of | share |\n| --- | --- | --- | --- |\n");
        foreach (var bucket in report.Labels.Buckets)
        {
            page.Append(Invariant($"| {100 * bucket.From:F0} to {100 * bucket.To:F0} % | {bucket.Agreement.Count} | {bucket.Agreement.Of} | {Share(bucket.Agreement)} |\n"));
        }

        if (report.Labels.StatedMarginSpearman is { } stated)
        {
            page.Append(Invariant($"\nRank correlation of the model's margins with those of the file: {stated:F2}.\n"));
        }

        if (report.Labels.Contradicted.Count > 0)
        {
            page.Append(Invariant($"\nRows whose label the model contradicts with most confidence: {string.Join(", ", report.Labels.Contradicted.Select(row => row.Row))}.\n"));
        }

        if (report.Categories.Count > 0)
        {
            page.Append("\n## Categories, the weakest first\n\n| category | right | of | share | standard error |\n| --- | --- | --- | --- | --- |\n");
            foreach (var category in report.Categories.Take(MostCategories))
            {
                Row(page, Escape(category.Name), category.Accuracy);
            }

            page.Append(report.Categories.Count > MostCategories ? Invariant($"\n{report.Categories.Count - MostCategories} more are in reward.json.\n") : "");
            Picture(page, drawings, RewardDrawings.Categories, "Accuracy by category");
        }

        if (report.Sections is { } sections)
        {
            page.Append("\n## Sections\n\n| section | score |\n| --- | --- |\n");
            foreach (var (name, score) in sections.Sections)
            {
                page.Append(Invariant($"| {Escape(name)} | {100 * score:F1} % |\n"));
            }

            page.Append(sections.Overall is { } overall ? Invariant($"| **overall** | {100 * overall:F1} % |\n") : "");
            page.Append(sections.Missing.Count > 0 ? Invariant($"\nWithout rows: {Escape(string.Join(", ", sections.Missing))}.\n") : "");
        }

        return page.ToString();
    }

    private static void Row(StringBuilder page, string name, Share share) =>
        page.Append(Invariant($"| {name} | {share.Count} | {share.Of} | {Share(share)} | {(share.Of == 0 ? "" : Invariant($"{100 * share.StandardError:F1} %"))} |\n"));

    private static string Share(Share share) => share.Of == 0 ? "" : Invariant($"{100 * share.Value:F1} %");

    private static string Number(double? number) => number is { } known ? Invariant($"{known:F2}") : "none";

    private static void Picture(StringBuilder page, IReadOnlyCollection<string> drawings, string name, string title) =>
        page.Append(drawings.Contains(name) ? $"\n![{title}]({name})\n" : "");

    /// <summary>A category's name comes from a file and may hold anything.</summary>
    private static string Escape(string text)
    {
        var escaped = new StringBuilder();
        foreach (var letter in text)
        {
            escaped.Append(letter switch
            {
                '<' => "&lt;",
                '>' => "&gt;",
                '&' => "&amp;",
                '|' or '[' or ']' or '`' or '\\' or '*' or '_' => $"\\{letter}",
                _ when char.IsControl(letter) => " ",
                _ => letter.ToString(),
            });
        }

        return escaped.ToString();
    }

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
