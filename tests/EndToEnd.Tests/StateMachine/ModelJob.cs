using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure.Jobs;

namespace TrainingService.EndToEnd.Tests.StateMachine;

/// <summary>How a step is answered.</summary>
internal enum Answer
{
    Done,
    LeaseLost,
    InvalidMove,
}

/// <summary>What a job should be, by rules written down a second time and without a database.</summary>
internal sealed class ModelJob(Guid id, int project, int priority, int order)
{
    public const int MaxRecoveries = 2;

    public Guid Id { get; } = id;

    public int Project { get; } = project;

    public int Priority { get; } = priority;

    /// <summary>Age: a lower one is older.</summary>
    public int Order { get; } = order;

    public List<JobStatus> History { get; } = [JobStatus.Queued];

    public JobStatus Status => History[^1];

    public int Attempt { get; private set; }

    public int Recoveries { get; private set; }

    public int Failures { get; private set; }

    public long Events { get; private set; } = 1;

    public bool PauseAsked { get; private set; }

    public bool IsExpired { get; set; }

    public bool IsDelayed { get; set; }

    public bool IsLive => Status is JobStatus.Running or JobStatus.Cancelling;

    public OwnerRequest Request => Status == JobStatus.Cancelling ? OwnerRequest.Cancel : PauseAsked ? OwnerRequest.Pause : OwnerRequest.None;

    public void Claim()
    {
        Attempt++;
        IsExpired = false;
        Move(JobStatus.Running);
    }

    public Answer Cancel() => Status switch
    {
        JobStatus.Cancelling => Answer.Done,
        JobStatus.Queued or JobStatus.Paused => Move(JobStatus.Cancelled),
        JobStatus.Running => Move(JobStatus.Cancelling),
        _ => Answer.InvalidMove,
    };

    public Answer Pause()
    {
        if (Status == JobStatus.Paused || PauseAsked)
        {
            return Answer.Done;
        }

        if (Status == JobStatus.Running)
        {
            PauseAsked = true;
            Events++;
            return Answer.Done;
        }

        return Status == JobStatus.Queued ? Move(JobStatus.Paused) : Answer.InvalidMove;
    }

    public Answer Resume()
    {
        if (PauseAsked)
        {
            PauseAsked = false;
            Events++;
            return Answer.Done;
        }

        if (Status != JobStatus.Paused)
        {
            return Answer.InvalidMove;
        }

        IsDelayed = false;
        return Move(JobStatus.Queued);
    }

    public void Recover()
    {
        if (Status == JobStatus.Cancelling)
        {
            Move(JobStatus.Cancelled);
        }
        else if (Recoveries == MaxRecoveries && !PauseAsked)
        {
            Move(JobStatus.Failed);
        }
        else
        {
            Recoveries++;
            IsDelayed = false;
            Move(PauseAsked ? JobStatus.Paused : JobStatus.Queued);
        }
    }

    /// <summary>A step of the worker that holds, or once held, the lease with a token.</summary>
    public Answer Work(StepKind kind, long token, int events)
    {
        if (!IsLive || token != Attempt)
        {
            return Answer.LeaseLost;
        }

        switch (kind)
        {
            case StepKind.Renew:
                IsExpired = false;
                return Answer.Done;
            case StepKind.Report:
                Events += events;
                return Answer.Done;
            case StepKind.Checkpoint:
                Events++;
                return Answer.Done;
            case StepKind.Succeed:
                return Move(JobStatus.Succeeded);
            case StepKind.Fail:
                return Move(JobStatus.Failed);
            case StepKind.ConfirmCancelled when Status == JobStatus.Running:
                return Answer.InvalidMove;
        }

        if (Status == JobStatus.Cancelling)
        {
            return Move(JobStatus.Cancelled);
        }

        Failures += kind is StepKind.Retry or StepKind.RetryLater ? 1 : 0;
        IsDelayed = kind == StepKind.RetryLater;
        return Move(PauseAsked ? JobStatus.Paused : JobStatus.Queued);
    }

    private Answer Move(JobStatus next)
    {
        History.Add(next);
        PauseAsked = false;
        Events++;
        return Answer.Done;
    }
}
