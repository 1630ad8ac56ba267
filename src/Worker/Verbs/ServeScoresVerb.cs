using System.CommandLine;
using System.Text;
using System.Text.Json;
using TrainingService.Training;
using TrainingService.Training.Scoring;
using TrainingService.Worker.Scoring;

namespace TrainingService.Worker.Verbs;

/// <summary><c>serve-scores</c>: the process beside the API that holds reward models. Calls come on standard input, replies go to standard output, one per line.</summary>
/// <remarks>
/// Calls of one model that wait at the same time run as one batch. One batch runs at a time: it has all cores, or the GPU. The process ends when its
/// standard input does, so it outlives no API.
/// </remarks>
internal static class ServeScoresVerb
{
    /// <summary>Callers that are at it together get into one batch; far less than a batch takes.</summary>
    private static readonly TimeSpan Gathering = TimeSpan.FromMilliseconds(2);

    private const int AnswersAtOnce = 4096;

    public static Command Create()
    {
        var memory = new Option<long>("--memory-bytes") { Required = true, Description = "What the weights of all loaded models may take together." };
        var command = new Command("serve-scores", "Serves reward models to the API that starts it: calls on standard input, replies on standard output.") { memory };
        command.SetAction(parsed => Failures.Guard(() => Run(parsed.GetValue(memory))));
        return command;
    }

    private static void Run(long memoryBytes)
    {
        using var pool = new ScorerPool(memoryBytes);
        using var output = new StreamWriter(Console.OpenStandardOutput()) { AutoFlush = true, NewLine = "\n" };
        var queue = new CallQueue();
        new Thread(() => Work(queue, pool, output)) { IsBackground = true, Name = "scores" }.Start();
        using var input = new StreamReader(Console.OpenStandardInput(), new UTF8Encoding(encoderShouldEmitUTF8Identifier: false));
        while (input.ReadLine() is { } line)
        {
            queue.Add(JsonSerializer.Deserialize<ScoreCall>(line, ScoreMessages.Json)!);
        }

        // Nobody is left to read the replies. Kill, because an orderly exit would wait for libtorch's threads.
        System.Diagnostics.Process.GetCurrentProcess().Kill();
    }

    private static void Work(CallQueue queue, ScorerPool pool, StreamWriter output)
    {
        while (true)
        {
            foreach (var reply in Answer(queue.Take(), pool))
            {
                output.WriteLine(JsonSerializer.Serialize(reply, ScoreMessages.Json));
            }
        }
    }

    /// <param name="calls">Of one model.</param>
    private static List<ScoreReply> Answer(List<ScoreCall> calls, ScorerPool pool)
    {
        var replies = new List<ScoreReply>();
        var encoded = new List<(ScoreCall Call, List<IReadOnlyList<IReadOnlyList<int>>> Rows)>();
        try
        {
            using var use = pool.Take(new(calls[0].Model, calls[0].Adapter));
            foreach (var call in calls)
            {
                try
                {
                    encoded.Add((call, [.. call.Input.Select((row, index) => use.Scorer.Encode(ScoreInput.Read(row, $"input[{index}]")))]));
                }
                catch (TrainingException refused)
                {
                    replies.Add(new(call.Id, null, FaultOf(refused)));   // this call alone
                }
            }

            var scores = new Queue<AnswerScore>(use.Scorer.Score([.. encoded.SelectMany(call => call.Rows).SelectMany(row => row)]));
            replies.AddRange(encoded.Select(call => new ScoreReply(
                call.Call.Id, [.. call.Rows.Select(row => (IReadOnlyList<AnswerScore>)[.. row.Select(_ => scores.Dequeue())])], null)));
        }
        catch (Exception error)   // the edge of a batch: every caller gets an answer, and the next batch runs
        {
            if (error is not TrainingException)
            {
                Console.Error.WriteLine(error);
            }

            var answered = replies.Select(reply => reply.Id).ToHashSet();
            replies.AddRange(calls.Where(call => !answered.Contains(call.Id)).Select(call => new ScoreReply(call.Id, null, FaultOf(error))));
        }

        return replies;
    }

    private static ScoreFault FaultOf(Exception error)
    {
        var failure = Failures.Describe(error);
        return failure switch
        {
            { Code: FailureCode.OutOfMemory } when error is TrainingException => new("model_too_large", failure.Message, failure.Param),
            { Code: FailureCode.OutOfMemory } => new("out_of_memory", "Memory was not enough for the model or the batch; lower Scores:MemoryBytes, or send shorter answers.", null),
            { Code: FailureCode.InvalidData or FailureCode.InvalidSpec, Param: { } param } when param.StartsWith("input[", StringComparison.Ordinal) =>
                new("invalid_input", failure.Message, param),
            { Code: FailureCode.InvalidData or FailureCode.InvalidSpec } => new("invalid_model", failure.Message, "model"),
            _ => new("internal", "The scores failed by a defect of ours; the log has the details.", null),
        };
    }

    /// <summary>Calls that wait; the one that has waited longest decides which model is next.</summary>
    private sealed class CallQueue
    {
        private readonly object _gate = new();
        private readonly List<ScoreCall> _waiting = [];

        public void Add(ScoreCall call)
        {
            lock (_gate)
            {
                _waiting.Add(call);
                Monitor.Pulse(_gate);
            }
        }

        /// <summary>Waits for a call and takes those of the same model with it, up to a number of rows.</summary>
        public List<ScoreCall> Take()
        {
            lock (_gate)
            {
                while (_waiting.Count == 0)
                {
                    Monitor.Wait(_gate);
                }
            }

            Thread.Sleep(Gathering);
            lock (_gate)
            {
                var first = _waiting[0];
                var answers = 0;
                var taken = _waiting.Where(call => (call.Model, call.Adapter) == (first.Model, first.Adapter))
                    .TakeWhile(call => (answers += call.Input.Count) <= AnswersAtOnce || call == first).ToList();
                _waiting.RemoveAll(taken.Contains);
                return taken;
            }
        }
    }
}
