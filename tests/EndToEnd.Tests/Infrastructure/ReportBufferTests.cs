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
}
