using System.Diagnostics;
using System.Net.Sockets;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Tests.Runs;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Tests.Hostile;

/// <summary>Pipes, sockets and devices where a file is wanted: opening the one blocks, the other never ends, so neither is opened.</summary>
public sealed class SpecialFileTests : IDisposable
{
    private readonly RunFolder _folder = new();
    private readonly List<Socket> _sockets = [];

    public void Dispose()
    {
        _sockets.ForEach(socket => socket.Dispose());
        _folder.Dispose();
    }

    [Theory]
    [InlineData("pipe")]
    [InlineData("socket")]
    [InlineData("/dev/zero")]
    [InlineData("link to a pipe")]
    public async Task None_of_them_is_read(string kind)
    {
        var readers = new Dictionary<string, Action<string>>
        {
            ["config.json"] = path => HuggingFaceFolder.ReadConfig(Folder(path)),
            ["tokenizer.json"] = path => Tokenizer.Load(Folder(path)),
            ["tokenizer.model"] = path => Tokenizer.Load(Folder(path)),
            ["tokenizer_config.json"] = path => Tokenizer.Load(Folder(path)),
            ["model.safetensors"] = path => SafeTensorsFile.Open(path).Dispose(),
            ["model.safetensors.index.json"] = path => CheckpointFolder.Open(Folder(path)).Dispose(),
            ["rows.jsonl"] = path => DataSets.Validate(path),
            ["adapter_config.json"] = path =>
            {
                File.WriteAllBytes(Path.Combine(Folder(path), "adapter_model.safetensors"), []);
                HuggingFaceFolder.ReadConfig(Folder(path));   // which looks for an adapter where there is no model
            },
        };
        foreach (var (name, read) in readers)
        {
            Directory.CreateDirectory(_folder.In("of-" + name));
            var path = _folder.In("of-" + name, name);
            await MakeAsync(kind, path);

            var error = await Assert.ThrowsAsync<TrainingException>(() => Task.Run(() => read(path)).WaitAsync(TimeSpan.FromSeconds(60)));

            Assert.Equal(FailureCode.InvalidData, error.Code);
            Assert.Contains("give a regular file", error.Message, StringComparison.Ordinal);
            Assert.Contains(name, error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_run_whose_rows_are_a_pipe_is_refused()
    {
        await MakeAsync("pipe", _folder.In("rows.jsonl"));

        var run = await MeasuredRun.OfAsync(_folder, new { model = SharedData.Path("golden", "models", "llama_untied"), data = new { train = _folder.In("rows.jsonl") } });

        Assert.Equal((FailureCode.InvalidData, "data.train"), (run.Failed.Code, run.Failed.Param));
        Assert.Contains("give a regular file", run.Failed.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_link_to_a_large_file_is_as_large_as_the_file()
    {
        using (var file = File.Create(_folder.In("large")))
        {
            file.SetLength(5 << 20);
        }

        File.CreateSymbolicLink(_folder.In("config.json"), _folder.In("large"));

        Assert.Equal(5 << 20, PlainFile.LengthOf(_folder.In("config.json")));
        Assert.Equal(0, PlainFile.LengthOf(_folder.In("absent")));
        var error = Assert.Throws<TrainingException>(() => HuggingFaceFolder.ReadConfig(_folder.Path));
        Assert.Contains("5242880", error.Message, StringComparison.Ordinal);
    }

    private static string Folder(string path) => Path.GetDirectoryName(path)!;

    private async Task MakeAsync(string kind, string path)
    {
        switch (kind)
        {
            case "socket":
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                _sockets.Add(socket);
                socket.Bind(new UnixDomainSocketEndPoint(path));
                break;
            case "pipe":
                using (var mkfifo = Process.Start("mkfifo", [path]))
                {
                    await mkfifo.WaitForExitAsync(TestContext.Current.CancellationToken);
                    Assert.Equal(0, mkfifo.ExitCode);
                }

                break;
            case "link to a pipe":
                await MakeAsync("pipe", path + ".target");
                File.CreateSymbolicLink(path, path + ".target");
                break;
            default:
                File.CreateSymbolicLink(path, kind);
                break;
        }
    }
}
