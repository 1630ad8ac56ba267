using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Jobs;
using TrainingService.Infrastructure;
using TrainingService.Training.Checkpoints;
using TrainingService.Worker;
using TrainingService.Worker.Supervision;

namespace TrainingService.EndToEnd.Tests.Infrastructure;

/// <summary>What workers do with the disk that they may share: orphans go, the cache is bounded, a full disk is said clearly.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public sealed class WorkerDiskTests : SupervisedWorker
{
    [Fact]
    public void Folders_of_dead_workers_go_and_those_of_living_ones_stay()
    {
        var paths = Paths();
        var folders = new WorkFolders(paths, NullLogger<WorkFolders>.Instance);
        using var living = folders.For(Guid.NewGuid(), 1);
        living.Create();
        var dead = paths.Attempt(Guid.NewGuid(), 3);
        Directory.CreateDirectory(Path.Combine(dead, "checkpoints", "step-000001"));
        File.WriteAllText(dead + ".lock", "");
        File.WriteAllText(paths.Attempt(Guid.NewGuid(), 4) + ".lock", "");   // a lock whose folder is gone

        folders.RemoveOrphans();

        Assert.Equal([living.Path, living.Path + ".lock"], Directory.EnumerateFileSystemEntries(paths.Attempts).Order());
        Assert.Throws<IOException>(folders.For(Guid.Parse(Path.GetFileName(living.Path).Split('-')[0]), 1).Create);
        living.Dispose();
        Assert.Empty(Directory.EnumerateFileSystemEntries(paths.Attempts));
    }

    [Fact]
    public void What_is_shown_of_a_log_is_bounded_and_whole_characters()
    {
        using var log = new LogTail(Path.Combine(Folder, "logs", "train.log"));
        Assert.Null(log.TakeRecent());
        var line = new string('a', 1999) + "\U0001F600";
        for (var i = 0; i < 100; i++)
        {
            log.Add(line);
        }

        var recent = log.TakeRecent()!.Split('\n');
        Assert.Equal((32, 50), (recent.Length, log.Read()!.Split('\n').Length));   // 64 KiB of 2000 bytes each with its end
        Assert.All(recent, shown => Assert.Equal(line[..1999], shown));
        Assert.Null(log.TakeRecent());
        log.Add("one more");
        Assert.EndsWith("\none more", log.TakeRecent(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_cache_forgets_what_was_used_longest_ago_and_nothing_in_use()
    {
        var paths = Paths();
        var (first, second, third) = (Entry(paths, "a", 100), Entry(paths, "b", 100), Entry(paths, "c", 100));
        var entries = Entries(paths, limit: 150);
        var other = Entries(paths, limit: 150);   // another process
        using (var use = await entries.TryUseAsync(first, Cancel))
        using (await other.TryUseAsync(first, Cancel))
        {
            (await entries.TryUseAsync(third, Cancel))!.Dispose();
            (await entries.TryUseAsync(second, Cancel))!.Dispose();

            await other.MakeRoomAsync(all: false, Cancel);

            Assert.Equal([first], Folders(paths));   // in use, and so it stays although it was used longest ago
        }

        Assert.Null(await entries.TryUseAsync(second, Cancel));
        Entry(paths, "b", 40);
        await entries.MakeRoomAsync(all: false, Cancel);
        Assert.Equal([first, second], Folders(paths));   // within the limit
        await entries.MakeRoomAsync(all: true, Cancel);
        Assert.Equal([".gate"], Directory.EnumerateFileSystemEntries(paths.Cache).Select(Path.GetFileName));
    }

    [Fact]
    public async Task Half_a_download_of_a_dead_process_goes_and_that_of_a_living_one_stays()
    {
        var paths = Paths();
        var dead = Entry(paths, ".dead", 10);
        var living = Entry(paths, ".living", 10);
        using var held = LockFile.TryTake(living + ".lock");

        await Entries(paths, limit: 1000).MakeRoomAsync(all: false, Cancel);

        Assert.False(Directory.Exists(dead));
        Assert.True(Directory.Exists(living));
    }

    [Fact]
    public async Task A_job_whose_cached_files_were_removed_fetches_them_again()
    {
        await StartAsync(Succeed, ("Worker:CacheBytes", "0"));
        Assert.Equal(JobStatus.Succeeded, (await EndOfAsync(await SubmitAsync())).Status);
        var cache = Path.Combine(Folder, "worker", "cache");
        await UntilAsync(Guid.Empty, () => Directory.GetDirectories(cache).Length == 0);
    }

    [Fact]
    public async Task A_full_disk_is_said_with_its_folder_and_the_job_goes_on_when_there_is_room()
    {
        var store = new UnreliableStore(Folder);
        var full = 2;
        store.Reading = _ => full-- > 0 ? throw new IOException("No space left on device", 28) : 0;
        Configure = services => services.AddSingleton<IArtifactStore>(store);
        await StartAsync(Succeed, ("Worker:RetrySeconds", "0"), ("Worker:MaxAttempts", "9"));

        var job = await EndOfAsync(await SubmitAsync());

        Assert.Equal((JobStatus.Succeeded, 3, 2), (job.Status, job.Attempt, job.FailureCount));
        await using var db = await OpenAsync();
        var said = await db.Events.Where(e => e.Level == EventLevel.Warn).Select(e => e.Message).ToListAsync(Cancel);
        Assert.All(said, message => Assert.Contains($"disk is full: free space in '{Path.Combine(Folder, "worker")}'", message, StringComparison.Ordinal));
        Assert.Equal(2, said.Count);
    }

    [Fact]
    public void A_log_on_a_full_disk_ends_and_its_last_lines_stay()
    {
        Assert.SkipUnless(File.Exists("/dev/full"), "This system has no /dev/full.");
        var link = Path.Combine(Folder, "train.log");
        File.CreateSymbolicLink(link, "/dev/full");
        using var log = new LogTail(link);
        log.Add("one");
        log.Add("two");

        Assert.Matches("^The log file ends here: .*\none\ntwo$", log.Read());
    }

    [Fact]
    public async Task A_damaged_checkpoint_is_passed_over_for_the_one_before()
    {
        var store = new UnreliableStore(Folder);
        Configure = services => services.AddSingleton<IArtifactStore>(store);
        await StartAsync($$"""
            if [ -e {{Folder}}/again ]; then ls $work/checkpoints > {{Folder}}/found; rm -r $work/checkpoints; {{Succeed}}
            exit 0; fi
            touch {{Folder}}/again
            {{Succeed.Replace("sleep 0.5", """
            cp -r $work/checkpoints/step-000001 $work/checkpoints/step-000002
            sleep 0.3
            echo '{"type":"checkpoint","step":2,"path":"checkpoints/step-000002","best":false,"metrics":{}}'
            read wait
            exit 3
            """)}}
            """, ("Worker:RetrySeconds", "0"));
        var id = await SubmitAsync();
        await using var db = await OpenAsync();
        await UntilAsync(id, () => db.Checkpoints.Count() == 2);
        var newest = await db.Checkpoints.SingleAsync(c => c.Step == 2, Cancel);
        using var torn = new MemoryStream([1]);
        await store.PutAsync(newest.StoragePrefix + "adapter/adapter_model.safetensors", torn, "x", Cancel);
        await TheHost.StopAsync(Cancel);
        TheHost.Dispose();
        await StartHostAsync();

        Assert.Equal(JobStatus.Succeeded, (await EndOfAsync(id)).Status);

        Assert.Equal("step-000001\n", await File.ReadAllTextAsync(Path.Combine(Folder, "found"), Cancel));
    }

    private async Task UntilAsync(Guid id, Func<bool> reached)
    {
        for (var waited = 0; !reached(); waited++)
        {
            Assert.True(waited < 400, $"Not reached: {(id == Guid.Empty ? "" : (await JobAsync(id)).Failure?.Message)}");
            await Task.Delay(50, Cancel);
        }
    }

    private WorkerPaths Paths()
    {
        var program = Path.Combine(Folder, "train");
        File.WriteAllText(program, "");
        return new WorkerPaths(
            Options.Create(new WorkerOptions { Executable = program, WorkFolder = Path.Combine(Folder, "worker") }),
            Options.Create(new ServiceOptions { DataFolder = Folder }));
    }

    private static CacheEntries Entries(WorkerPaths paths, long limit) => new(
        paths, Options.Create(new WorkerOptions { CacheBytes = limit }), TimeProvider.System, NullLogger<CacheEntries>.Instance);

    private static string Entry(WorkerPaths paths, string name, int bytes)
    {
        var folder = Path.Combine(paths.Cache, name);
        Directory.CreateDirectory(folder);
        File.WriteAllBytes(Path.Combine(folder, "file"), new byte[bytes]);
        return folder;
    }

    private static IEnumerable<string> Folders(WorkerPaths paths) => Directory.EnumerateDirectories(paths.Cache).Order();
}
