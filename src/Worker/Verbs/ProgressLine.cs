using System.Globalization;
using TrainingService.Training;

namespace TrainingService.Worker.Verbs;

/// <summary>One line on a terminal's standard error that follows a run.</summary>
internal sealed class ProgressLine
{
    private const int Width = 30;
    private string _evaluation = "";

    public void Show(Report report)
    {
        switch (report)
        {
            case StepReport step:
                var done = (int)((long)Width * step.Step / step.TotalSteps);
                Write(string.Create(CultureInfo.InvariantCulture,
                    $"[{new string('█', done)}{new string('░', Width - done)}] {step.Step}/{step.TotalSteps}  loss {step.Loss:F4}{_evaluation}  {step.TokensPerSecond:F0} tokens/s"));
                break;
            case MetricReport { Values: var values } when values.TryGetValue("eval/loss", out var loss):
                _evaluation = string.Create(CultureInfo.InvariantCulture, $"  eval {loss:F4}");
                break;
            case PhaseReport phase when phase.Phase != "training":
                Write($"{phase.Phase} …");
                break;
            case ProgressReport { Total: > 0 } progress:
                var all = progress.Unit switch
                {
                    ProgressUnit.Bytes => string.Create(CultureInfo.InvariantCulture, $"{progress.Total / 1e6:F1} MB"),
                    ProgressUnit.Rows => string.Create(CultureInfo.InvariantCulture, $"{progress.Total} rows"),
                };
                Write(string.Create(CultureInfo.InvariantCulture, $"{progress.Phase} … {100.0 * progress.Done / progress.Total:F0} % of {all}"));
                break;
            case WarningReport warning:
                Write($"warning: {warning.Message}{Environment.NewLine}");
                break;
        }
    }

    /// <summary>Leaves the line for good and writes another.</summary>
    public void End(string text)
    {
        Write(text);
        Console.Error.WriteLine();
        _evaluation = "";
    }

    private static void Write(string text) => Console.Error.Write($"\r\e[K{text}");
}
