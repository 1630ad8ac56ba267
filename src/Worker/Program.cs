using System.CommandLine;
using TrainingService.Worker;
using TrainingService.Worker.Verbs;
using TrainingService.Worker.Verbs.Measuring;

// run is the default; migrate creates and upgrades the tables; health asks a running process. Their arguments are settings (--Worker:Concurrency=2), not options of a verb.
if (args is [] or ["run" or "migrate" or "health", ..] || (args[0].StartsWith("--", StringComparison.Ordinal) && args[0].Contains(':')))
{
    return await WorkerHost.RunAsync(args is ["run", .. var settings] ? settings : args);
}

Allocator.Enter();
OpenMp.SpinBriefly();
var root = new RootCommand("Trains models: as a worker of the service (run, the default), or one run from the command line (train).")
{
    TrainVerb.Create(),
    LogitsVerb.Create(),
    GenerateVerb.Create(),
    ScoreVerb.Create(),
    ServeScoresVerb.Create(),
    AnalyzeVerb.Create(),
    ExportVerb.Create(),
    WatermarkVerb.Create(),
    R3Verb.Create(),
    JudgeVerb.Create(),
    MeasureVerb.Create(),
};
return root.Parse(args).Invoke();
