namespace TrainingService.Domain.Jobs;

/// <summary>A training job. The row is the truth; the courier only wakes workers.</summary>
public sealed class TrainingJob
{
    private readonly List<JobTransition> _history = [];
    private readonly List<JobEvent> _events = [];

    private TrainingJob()
    {
    }

    public Guid Id { get; private init; }

    public Guid ProjectId { get; private init; }

    public JobStatus Status { get; private set; }

    /// <summary>What a running job is busy with; null when it is not running.</summary>
    public string? Phase { get; private set; }

    /// <summary>Higher is claimed first.</summary>
    public int Priority { get; private init; }

    /// <summary>The whole training spec. Its meaning belongs to the engine.</summary>
    public string SpecJson { get; private init; } = "{}";

    /// <summary>How the job was asked for, in the words of the dialect that asked: shown again in the other one's fields.</summary>
    public string RequestJson { get; private init; } = "{}";

    /// <summary>Base model as the client named it.</summary>
    public string Model { get; private init; } = "";

    public string? Suffix { get; private init; }

    /// <summary>Up to sixteen pairs of the client's own, as a JSON object.</summary>
    public string? MetadataJson { get; private init; }

    /// <summary>Name of the result, known when the job succeeds.</summary>
    public string? FineTunedModel { get; private set; }

    /// <summary>How often a worker has claimed the job.</summary>
    public int Attempt { get; private set; }

    /// <summary>How often its worker was lost.</summary>
    public int RecoveryCount { get; private set; }

    /// <summary>Raised by each claim. A write that carries an older token changes nothing.</summary>
    public long LeaseToken { get; private set; }

    public string? LeaseOwner { get; private set; }

    public DateTimeOffset? LeaseExpiresAt { get; private set; }

    public DateTimeOffset? LastProgressAt { get; private set; }

    /// <summary>The job is not claimed before this time (back-off).</summary>
    public DateTimeOffset? NotBefore { get; private set; }

    public DateTimeOffset? CancelRequestedAt { get; private set; }

    /// <summary>When its owner asked to set the running job aside; null again once that is done or withdrawn.</summary>
    public DateTimeOffset? PauseRequestedAt { get; private set; }

    /// <summary>How often a failure of the platform ended an attempt. Lost workers, shutdowns and pauses are not among them.</summary>
    public int FailureCount { get; private set; }

    /// <summary>Seconds that the job may run in all its attempts together; null: as long as the service allows.</summary>
    public int? MaxRunSeconds { get; private init; }

    /// <summary>Seconds that its ended attempts ran, by the database's clock.</summary>
    public double RunSeconds { get; private set; }

    /// <summary>When the current attempt began; null while no worker has the job.</summary>
    public DateTimeOffset? AttemptStartedAt { get; private set; }

    /// <summary>Since when a running job has made no progress, once that is longer than it should; null: all is well.</summary>
    public DateTimeOffset? StalledSince { get; private set; }

    public int Step { get; private set; }

    public int TotalSteps { get; private set; }

    public long TrainedTokens { get; private set; }

    public JobFailure? Failure { get; private set; }

    /// <summary>The file of purpose <c>fine-tune-results</c> with the run's curve; known when the job succeeds.</summary>
    public Guid? ResultFileId { get; private set; }

    /// <summary>What the run should take, by its training process; null before its rows are read. Its meaning belongs to the engine.</summary>
    public string? EstimatedCostJson { get; private set; }

    /// <summary>What it took, in the same words; known when the job succeeds.</summary>
    public string? ActualCostJson { get; private set; }

    /// <summary>Sequence of the newest event. Numbers are handed out under the row's concurrency token, so none is used twice.</summary>
    public long LastEventSequence { get; private set; }

    public DateTimeOffset CreatedAt { get; private init; }

    public DateTimeOffset? StartedAt { get; private set; }

    public DateTimeOffset? FinishedAt { get; private set; }

    public IReadOnlyList<JobTransition> History => _history;

    /// <summary>The events raised on this instance; saved together with the change that raised them. Read old ones by query.</summary>
    public IReadOnlyList<JobEvent> Events => _events;

    /// <summary>Whether nothing more can happen to a job in this state.</summary>
    public static bool IsFinal(JobStatus status) => status is JobStatus.Succeeded or JobStatus.Failed or JobStatus.Cancelled;

    /// <summary>The one table of the life of a job.</summary>
    public static bool CanMove(JobStatus from, JobStatus to) => from switch
    {
        JobStatus.Queued => to is JobStatus.Running or JobStatus.Paused or JobStatus.Cancelled or JobStatus.Failed,
        JobStatus.Running => to is JobStatus.Succeeded or JobStatus.Failed or JobStatus.Cancelling or JobStatus.Paused
            or JobStatus.Queued,   // its worker was lost or is shutting down
        JobStatus.Paused => to is JobStatus.Queued or JobStatus.Cancelled,
        JobStatus.Cancelling => to is JobStatus.Cancelled or JobStatus.Succeeded or JobStatus.Failed,
        JobStatus.Succeeded or JobStatus.Failed or JobStatus.Cancelled => false,
    };

    /// <summary>A new job, waiting for a worker.</summary>
    public static TrainingJob Submit(NewJob request, DateTimeOffset now)
    {
        var job = new TrainingJob
        {
            Id = Guid.CreateVersion7(now),
            ProjectId = request.ProjectId,
            Priority = request.Priority,
            SpecJson = request.SpecJson,
            RequestJson = request.RequestJson,
            Model = request.Model,
            Suffix = request.Suffix,
            MetadataJson = request.MetadataJson,
            MaxRunSeconds = request.MaxRunSeconds,
            CreatedAt = now,
            Status = JobStatus.Queued,
        };
        job._history.Add(new JobTransition { Ordinal = 1, Status = JobStatus.Queued, At = now, Reason = "submitted" });
        job.Record(EventLevel.Info, JobEvent.MessageType, $"Job {PublicId.Of(PublicId.Job, job.Id)} was created and waits for a worker.", null, now);
        return job;
    }

    /// <summary>A worker has claimed the job: the attempt and the lease token rise.</summary>
    public void Start(string worker, TimeSpan lease, DateTimeOffset now)
    {
        MoveTo(JobStatus.Running, now, $"claimed by {worker}");
        Attempt++;
        Record(EventLevel.Info, JobEvent.MessageType, StartedMessage(Attempt), null, now);
        LeaseToken++;
        LeaseOwner = worker;
        LeaseExpiresAt = now + lease;
        LastProgressAt = now;
        AttemptStartedAt = now;
        StartedAt ??= now;
    }

    /// <summary>Ends a waiting job at once, and asks the worker of a running one to stop.</summary>
    public void Cancel(DateTimeOffset now)
    {
        if (Status == JobStatus.Cancelling)
        {
            return;
        }

        if (Status == JobStatus.Running)
        {
            MoveTo(JobStatus.Cancelling, now, "cancel requested");
            CancelRequestedAt = now;
            Record(EventLevel.Info, JobEvent.MessageType, "The job was asked to stop.", null, now);
            return;
        }

        MoveTo(JobStatus.Cancelled, now, "cancelled while it waited");
        CancelRequestedAt = now;
        Record(EventLevel.Info, JobEvent.MessageType, "The job was cancelled.", null, now);
    }

    /// <summary>
    /// Sets a waiting job aside, and asks the worker of a running one to save a checkpoint and stop. Asking twice changes nothing.
    /// </summary>
    public void Pause(DateTimeOffset now)
    {
        if (Status == JobStatus.Paused || PauseRequestedAt is not null)
        {
            return;
        }

        if (Status == JobStatus.Running)
        {
            PauseRequestedAt = now;
            Record(EventLevel.Info, JobEvent.MessageType, "The job was asked to pause; its worker saves a checkpoint first.", null, now);
            return;
        }

        MoveTo(JobStatus.Paused, now, "pause requested");
        Record(EventLevel.Info, JobEvent.MessageType, "The job was paused.", null, now);
    }

    /// <summary>Puts a paused job back in the queue, and withdraws a pause that its worker has yet to obey.</summary>
    public void Resume(DateTimeOffset now)
    {
        if (Status == JobStatus.Running && PauseRequestedAt is not null)
        {
            PauseRequestedAt = null;
            Record(EventLevel.Info, JobEvent.MessageType, "The pause was withdrawn; the job goes on.", null, now);
            return;
        }

        if (Status != JobStatus.Paused)
        {
            throw new InvalidTransitionException(Id, Status, JobStatus.Queued);
        }

        MoveTo(JobStatus.Queued, now, "resumed");
        NotBefore = null;
        Record(EventLevel.Info, JobEvent.MessageType, "The job waits for a worker again.", null, now);
    }

    /// <summary>The worker has obeyed a pause request. When that was withdrawn meanwhile, the job goes on with the next free worker.</summary>
    public void ConfirmPaused(DateTimeOffset now)
    {
        if (PauseRequestedAt is null)
        {
            Requeue("its pause was withdrawn", RequeueCause.HandedOver, now, now);
            return;
        }

        MoveTo(JobStatus.Paused, now, "stopped by its worker");
        Record(EventLevel.Info, JobEvent.MessageType, $"The job was paused at step {Step}.", null, now);
    }

    /// <summary>The worker has obeyed a cancel request.</summary>
    public void ConfirmCancelled(DateTimeOffset now)
    {
        MoveTo(JobStatus.Cancelled, now, "stopped by its worker");
        Record(EventLevel.Info, JobEvent.MessageType, "The job was cancelled.", null, now);
    }

    /// <param name="fineTunedModel">Name by which the result is used from now on.</param>
    /// <param name="resultFileId">The stored curve of the run; null when there is none.</param>
    public void Succeed(string fineTunedModel, Guid? resultFileId, DateTimeOffset now)
    {
        MoveTo(JobStatus.Succeeded, now);
        FineTunedModel = fineTunedModel;
        ResultFileId = resultFileId;
        Record(EventLevel.Info, JobEvent.MessageType, $"The job succeeded; the new model is {fineTunedModel}.", null, now);
    }

    /// <summary>Notes what the run took.</summary>
    public void Measured(string? costJson) => ActualCostJson = costJson;

    public void Fail(JobFailure failure, DateTimeOffset now)
    {
        MoveTo(JobStatus.Failed, now, failure.Code);
        Failure = failure;
        Record(EventLevel.Error, JobEvent.MessageType, failure.Message, null, now);
    }

    /// <summary>Puts a running job back in the queue, or sets it aside when its owner had asked for that.</summary>
    public void Requeue(string reason, RequeueCause cause, DateTimeOffset notBefore, DateTimeOffset now)
    {
        var next = PauseRequestedAt is null ? JobStatus.Queued : JobStatus.Paused;
        MoveTo(next, now, reason);
        NotBefore = notBefore;
        switch (cause)
        {
            case RequeueCause.HandedOver:
                break;
            case RequeueCause.WorkerLost:
                RecoveryCount++;
                break;
            case RequeueCause.PlatformFailure:
                FailureCount++;
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(cause), cause, "Not a cause.");
        }

        var level = cause == RequeueCause.HandedOver ? EventLevel.Info : EventLevel.Warn;
        var place = next == JobStatus.Queued ? "The job is back in the queue" : "The job was paused";
        Record(level, JobEvent.MessageType, $"{place}: {reason}.", null, now);
    }

    /// <summary>Notes that a running job has made no progress since <see cref="LastProgressAt"/>; says so once.</summary>
    public void MarkStalled(DateTimeOffset now)
    {
        if (Status != JobStatus.Running || StalledSince is not null)
        {
            return;
        }

        StalledSince = LastProgressAt ?? now;
        var minutes = Math.Round((now - StalledSince.Value).TotalMinutes, 1);
        Record(
            EventLevel.Warn, JobEvent.MessageType,
            FormattableString.Invariant($"The job has made no progress for {minutes} minutes; if that goes on, it gets another attempt."), null, now);
    }

    /// <summary>What the story of a job says when a worker takes it.</summary>
    public static string StartedMessage(int attempt) =>
        attempt == 1 ? "A worker has started the job." : $"A worker has started attempt {attempt} of the job.";

    /// <summary>Appends a line to the job's story.</summary>
    public JobEvent Record(EventLevel level, string type, string message, string? dataJson, DateTimeOffset now)
    {
        var line = new JobEvent
        {
            Id = Guid.CreateVersion7(now),
            JobId = Id,
            Sequence = ++LastEventSequence,
            Level = level,
            Type = type,
            Message = message,
            DataJson = dataJson,
            CreatedAt = now,
        };
        _events.Add(line);
        return line;
    }

    private void MoveTo(JobStatus next, DateTimeOffset at, string? reason = null)
    {
        if (!CanMove(Status, next))
        {
            throw new InvalidTransitionException(Id, Status, next);
        }

        Status = next;
        if (next != JobStatus.Running)
        {
            Phase = null;
            PauseRequestedAt = null;
            StalledSince = null;
        }

        if (next is not (JobStatus.Running or JobStatus.Cancelling))
        {
            // A worker that was lost ran until its lease at most; what came after was nobody's time.
            var end = LeaseExpiresAt is { } expiry && expiry < at ? expiry : at;
            RunSeconds += AttemptStartedAt is { } start && end > start ? (end - start).TotalSeconds : 0;
            AttemptStartedAt = null;
            LeaseOwner = null;
            LeaseExpiresAt = null;
        }

        if (IsFinal(next))
        {
            FinishedAt = at;
        }

        _history.Add(new JobTransition { Ordinal = _history.Count + 1, Status = next, At = at, Reason = reason });
    }
}
