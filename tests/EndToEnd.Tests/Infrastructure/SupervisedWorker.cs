using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using TrainingService.Domain;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Domain.Projects;
using TrainingService.Infrastructure;
using TrainingService.Infrastructure.Jobs;
using TrainingService.Worker;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>A worker on the embedded profile, with a shell script in the place of the training process.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public abstract class SupervisedWorker : IAsyncDisposable
{
    private readonly Dictionary<string, string?> _settings = [];
    private IHost? _host;

    protected const string Succeed = """
        mkdir -p $work/adapter $work/metrics $work/checkpoints/step-000001/adapter $work/checkpoints/step-000001/before
        echo weights > $work/adapter/adapter_model.safetensors
        echo '{"step":1}' > $work/metrics/metrics.jsonl
        echo 'step,train_loss' > $work/metrics/results.csv
        echo 'step,epoch,rows' > $work/metrics/data_order.csv
        cp $work/adapter/adapter_model.safetensors $work/checkpoints/step-000001/adapter/
        cp $work/metrics/* $work/checkpoints/step-000001/before/
        list() { (cd $1; printf '{"files":['; sep=; find . -type f ! -name manifest.json ! -name '.*' ! -path './logs/*' | sed 's|^\./||' | sort | while read f; do
            printf '%s{"path":"%s","bytes":%s,"sha256":"%s","content_type":"text/plain"}' "$sep" "$f" $(stat -c %s $f) $(sha256sum $f | cut -d' ' -f1); sep=,; done; printf ']}') > $1/manifest.json; }
        list $work/checkpoints/step-000001
        echo '{"type":"estimate","cost":{"device":"cpu","precision":"float32","memory_bytes":900,"artifact_bytes":8,"steps":1,"operations_per_step":50}}'
        echo '{"type":"phase","phase":"training"}'
        echo '{"type":"step","step":1,"total_steps":1,"epoch":1,"loss":2.5,"learning_rate":0.1,"grad_norm":1,"tokens_per_second":10,"tokens_seen":8,"trained_tokens":4,"memory_bytes":1}'
        echo '{"type":"metric","step":1,"values":{"eval/loss":2.25}}'
        echo '{"type":"checkpoint","step":1,"path":"checkpoints/step-000001","best":true,"metrics":{"train/loss":2.5}}'
        sleep 0.5
        echo '{}' > $work/spec.json
        list $work
        echo '{"type":"done","steps":1,"trained_tokens":4,"metrics":{},"usage":{"memory_at_start_bytes":100,"memory_peak_bytes":1000,"seconds_per_step":0.25}}'
        """;

    protected string Folder { get; } = Directory.CreateTempSubdirectory("training-supervisor-").FullName;
    /// <summary>Puts other parts in the place of the registered ones.</summary>
    protected Action<IServiceCollection> Configure { get; set; } = _ => { };

    protected IHost TheHost => _host!;

    protected static CancellationToken Cancel => TestContext.Current.CancellationToken;

    protected IServiceProvider Services => _host!.Services;

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        if (_host is not null)
        {
            await _host.StopAsync(CancellationToken.None);
            _host.Dispose();
        }

        Environment.SetEnvironmentVariable("S3__SecretKey", null);
        Environment.SetEnvironmentVariable("ConnectionStrings__Postgres", null);
        Directory.Delete(Folder, recursive: true);
    }

    protected async Task StartAsync(string child, params (string Name, string Value)[] settings)
    {
        Directory.CreateDirectory(Path.Combine(Folder, "model"));
        var script = Path.Combine(Folder, "child.sh");
        await File.WriteAllTextAsync(script, $"#!/bin/bash\nset -e\nspec=$3 work=$5\n{child}\n", Cancel);
        Assert.SkipWhen(OperatingSystem.IsWindows(), "The training process is a shell script here.");
        File.SetUnixFileMode(script, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        _settings["DataFolder"] = Folder;
        _settings["Worker:Executable"] = script;
        _settings["Worker:FlushMilliseconds"] = "50";
        _settings["Worker:WatchSeconds"] = "0.1";
        foreach (var (name, value) in settings)
        {
            _settings[name] = value;
        }

        await StartHostAsync();
    }

    protected async Task StartHostAsync()
    {
        var builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        builder.Configuration.AddInMemoryCollection(_settings);
        builder.Services.AddTrainingServiceInfrastructure(builder.Configuration);
        builder.Services.AddTrainingWorker(builder.Configuration);
        Configure(builder.Services);
        _host = builder.Build();
        await _host.StartAsync(Cancel);
    }

    protected Task<AppDbContext> OpenAsync() => Services.GetRequiredService<IDbContextFactory<AppDbContext>>().CreateDbContextAsync(Cancel);

    protected async Task<string> ReadAsync(string key)
    {
        await using var content = await Services.GetRequiredService<IArtifactStore>().OpenReadAsync(key, null, Cancel);
        using var reader = new StreamReader(content!);
        return await reader.ReadToEndAsync(Cancel);
    }

    protected async Task<Guid> SubmitAsync(int? maxRunSeconds = null)
    {
        var now = TimeProvider.System.GetUtcNow();
        using var rows = new MemoryStream("{\"text\":\"hello\"}\n"u8.ToArray());
        var stored = await Services.GetRequiredService<IArtifactStore>().PutAsync("files/train", rows, "application/jsonl", Cancel);
        var file = new DataFile
        {
            Id = Guid.CreateVersion7(),
            ProjectId = Project.BuiltIn,
            FileName = "train.jsonl",
            Purpose = "fine-tune",
            Bytes = stored.Bytes,
            Sha256 = stored.Sha256,
            StorageKey = stored.Key,
            CreatedAt = now,
        };
        var model = new BaseModel
        {
            Id = Guid.CreateVersion7(),
            ProjectId = Project.BuiltIn,
            Name = "tiny",
            Source = ModelSource.LocalPath,
            Location = Path.Combine(Folder, "model"),
            ConfigJson = "{}",
            FilesJson = "[]",
            Bytes = 0,
            CreatedAt = now,
        };
        var spec = $$"""{"model":"{{PublicId.Of(PublicId.Model, model.Id)}}","data":{"train":"{{PublicId.Of(PublicId.File, file.Id)}}"} }""";
        var job = TrainingJob.Submit(
            new NewJob
            {
                ProjectId = Project.BuiltIn,
                SpecJson = spec,
                RequestJson = "{}",
                Model = "tiny",
                Suffix = "mine",
                MaxRunSeconds = maxRunSeconds,
            },
            now);
        await using var db = await OpenAsync();
        db.AddRange(file, model, job);
        await db.SaveChangesAsync(Cancel);
        Services.GetRequiredService<IJobQueue>().Wake(job.Id);
        return job.Id;
    }

    protected Task CancelAsync(Guid id) => ChangeAsync(id, (job, now) => job.Cancel(now));

    protected async Task ChangeAsync(Guid id, Action<TrainingJob, DateTimeOffset> change)
    {
        await using var db = await OpenAsync();
        await db.ChangeJobAsync(j => j.Id == id, change, Cancel);
    }

    protected async Task<TrainingJob> JobAsync(Guid id)
    {
        await using var db = await OpenAsync();
        return await db.Jobs.AsNoTracking().SingleAsync(j => j.Id == id, Cancel);
    }

    protected Task<TrainingJob> EndOfAsync(Guid id) => UntilAsync(id, job => TrainingJob.IsFinal(job.Status));

    protected async Task<TrainingJob> UntilAsync(Guid id, Func<TrainingJob, bool> reached)
    {
        var start = TimeProvider.System.GetTimestamp();
        while (true)
        {
            var job = await JobAsync(id);
            if (reached(job))
            {
                return job;
            }

            Assert.True(
                TimeProvider.System.GetElapsedTime(start) < TimeSpan.FromSeconds(90),
                $"Still {job.Status}/{job.Phase}, attempt {job.Attempt}, {job.FailureCount} failures: {job.Failure?.Message}");
            await Task.Delay(50, Cancel);
        }
    }
}
