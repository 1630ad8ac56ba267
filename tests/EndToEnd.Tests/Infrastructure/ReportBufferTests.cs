using System.Text.Json;
using TrainingService.Training;
using TrainingService.Worker.Supervision;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

public sealed class ReportBufferTests
{
    [Fact]
    public async Task Who_waits_for_the_figures_waits_until_those_of_that_moment_are_stored()
    {
        var reports = new ReportBuffer(TimeProvider.System.GetUtcNow);
        await reports.StoredAsync(TestContext.Current.CancellationToken);   // nothing was reported
        reports.Add(new PhaseReport("training"));
        Assert.NotNull(reports.Take());
        reports.Add(new WarningReport("later than the first batch"));
        var waiting = reports.StoredAsync(TestContext.Current.CancellationToken);

        reports.MarkStored();
        await Task.Yield();
        Assert.False(waiting.IsCompleted);   // the second one has not been taken yet

        Assert.NotNull(reports.Take());
        reports.Add(new PhaseReport("evaluating"));
        reports.MarkStored();
        await waiting.WaitAsync(TimeSpan.FromMinutes(1), TestContext.Current.CancellationToken);   // the third one came after the question
    }

    [Theory]
    [InlineData("tokenizing", ProgressUnit.Bytes, 1_500_000, 12_000_000, "Phase tokenizing: 1.5 of 12.0 MB.", """{"read_bytes":1500000,"total_bytes":12000000}""")]
    [InlineData("calibrating", ProgressUnit.Rows, 32, 128, "Phase calibrating: 32 of 128 rows.", """{"read_rows":32,"total_rows":128}""")]
    public void How_far_a_phase_is_is_told_in_what_it_counts(string phase, ProgressUnit unit, long done, long total, string message, string data)
    {
        var reports = new ReportBuffer(TimeProvider.System.GetUtcNow);
        var line = JsonSerializer.Serialize<Report>(new ProgressReport(phase, done, total, unit), SpecJson.Options);   // as it leaves the training process

        reports.Add(JsonSerializer.Deserialize<Report>(line, SpecJson.Options)!);

        var told = Assert.Single(reports.Take()!.Events);
        Assert.Equal((message, data), (told.Message, told.DataJson));
    }
}
