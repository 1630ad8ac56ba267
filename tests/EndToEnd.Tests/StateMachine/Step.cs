using CsCheck;

namespace TrainingService.EndToEnd.Tests.StateMachine;

/// <summary>What can happen to jobs.</summary>
internal enum StepKind
{
    Submit,
    Claim,
    Renew,
    Report,
    Checkpoint,

    /// <summary>The lease runs out: its worker was stopped, or has crashed.</summary>
    Expire,

    /// <summary>A pass of the reconciler.</summary>
    Recover,

    /// <summary>A back-off passes.</summary>
    MakeDue,

    Cancel,
    Pause,
    Resume,
    Succeed,
    Fail,
    ConfirmCancelled,
    ConfirmPaused,
    GiveBack,
    Retry,
    RetryLater,
}

/// <summary>One step of a history. It names nothing that exists, so a history stays one when steps are taken out of it.</summary>
/// <param name="Pick">Which job or lease, old ones included, counted round what there is.</param>
/// <param name="Extra">A second choice: project and priority, or how many events.</param>
internal sealed record Step(StepKind Kind, int Pick, int Extra)
{
    /// <summary>Steps that keep histories alive come more often than those that end jobs.</summary>
    private static readonly StepKind[] Weighted =
    [
        .. Enum.GetValues<StepKind>(), StepKind.Submit, StepKind.Submit, StepKind.Submit, StepKind.Claim, StepKind.Claim, StepKind.Claim, StepKind.Claim,
        StepKind.Report, StepKind.Expire, StepKind.Recover, StepKind.GiveBack, StepKind.Resume, StepKind.Pause, StepKind.MakeDue,
    ];

    public static readonly Gen<Step[]> Histories = Gen
        .Select(Gen.Int[0, Weighted.Length - 1], Gen.Int[0, 99], Gen.Int[0, 8], (kind, pick, extra) => new Step(Weighted[kind], pick, extra))
        .Array[10, 60];

    public override string ToString() => $"{Kind}({Pick},{Extra})";
}
