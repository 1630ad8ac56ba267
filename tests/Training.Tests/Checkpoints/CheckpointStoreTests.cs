using System.Text.Json;
using TorchSharp;
using TorchSharp.Modules;
using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Optimizers;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Checkpoints;

/// <summary>What a checkpoint folder may look like after a crash, a power loss or a stranger's hand.</summary>
public sealed class CheckpointStoreTests
{
    [Theory]
    [InlineData("state.json", "{\"step\": 2}")]                                       // differs from its hash
    [InlineData("manifest.json", "")]
    [InlineData("manifest.json", "null")]
    [InlineData("manifest.json", "[]")]
    [InlineData("manifest.json", "{\"files\": null}")]
    [InlineData("manifest.json", "{\"files\": []}")]
    [InlineData("manifest.json", "{\"files\": [null]}")]
    [InlineData("manifest.json", "{\"files\": 7}")]
    [InlineData("manifest.json", "{\"files\": [{\"path\": 1, \"bytes\": 0, \"sha256\": \"\", \"content_type\": \"\"}]}")]
    [InlineData("manifest.json", "{\"files\": [{\"path\": \"a\", \"bytes\": 1e99, \"sha256\": \"\", \"content_type\": \"\"}]}")]
    [InlineData("manifest.json", "{\"files\": [{\"path\": \"\\ud800\", \"bytes\": 1, \"sha256\": \"\", \"content_type\": \"\"}]}")]
    [InlineData("manifest.json", "{\"files\": [{\"path\": \"../step-000001/state.json\", \"bytes\": 1, \"sha256\": \"\", \"content_type\": \"\"}]}")]
    [InlineData("manifest.json", "{\"files\": [{\"path\": \"/etc/hostname\", \"bytes\": 1, \"sha256\": \"\", \"content_type\": \"\"}]}")]
    public void A_damaged_checkpoint_is_passed_over_for_the_one_before(string file, string content)
    {
        using var folder = new TemporaryFolder();
        Checkpoint(folder, 1);
        Checkpoint(folder, 2);
        File.WriteAllText(Path.Combine(folder.Path, "step-000002", file), content);

        var warnings = new List<string>();
        var newest = Store(folder).Newest(warnings.Add);

        Assert.Equal(1, newest?.Step);
        Assert.Contains("step 2", Assert.Single(warnings));
    }

    [Theory]
    [InlineData("../outside")]
    [InlineData("adapter/../../outside")]
    [InlineData("link")]
    [InlineData("folder/outside")]
    public void A_manifest_cannot_have_a_file_outside_its_folder_read(string path)
    {
        using var folder = new TemporaryFolder();
        var checkpoint = Checkpoint(folder, 1);
        File.WriteAllText(Path.Combine(folder.Path, "outside"), "secret");
        File.CreateSymbolicLink(Path.Combine(checkpoint, "link"), Path.Combine(folder.Path, "outside"));
        Directory.CreateSymbolicLink(Path.Combine(checkpoint, "folder"), folder.Path);
        var hash = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData("secret"u8));
        var files = Manifest.Read(checkpoint).Files.Append(new ManifestFile(path, 6, hash, "text/plain"));
        File.WriteAllText(Path.Combine(checkpoint, Manifest.FileName), JsonSerializer.Serialize(new Manifest([.. files]), SpecJson.Options));

        Assert.False(Manifest.Verify(checkpoint, out var problem));
        Assert.Equal("manifest.json names a file outside its folder", problem);
    }

    [Theory]
    [InlineData("{\"step\": 2, \"a_member_of_another_version\": 1}")]
    [InlineData("{\"step\": 1}")]
    [InlineData("null")]
    [InlineData("{")]
    public void A_state_that_cannot_be_read_is_passed_over_though_its_hash_is_right(string state)
    {
        using var folder = new TemporaryFolder();
        Checkpoint(folder, 1);
        Checkpoint(folder, 2, state);
        var warnings = new List<string>();

        Assert.Equal(1, Store(folder).Newest(warnings.Add)?.Step);
        Assert.Contains("state.json", Assert.Single(warnings));
    }

    [Fact]
    public void Every_single_flipped_bit_and_every_missing_byte_is_noticed()
    {
        using var folder = new TemporaryFolder();
        var checkpoint = Checkpoint(folder, 1);
        foreach (var file in new[] { "state.json", "adapter/weights" })
        {
            var path = Path.Combine(checkpoint, file);
            var whole = File.ReadAllBytes(path);
            for (var at = 0; at < whole.Length; at++)
            {
                var flipped = whole.ToArray();
                flipped[at] ^= (byte)(1 << at % 8);
                File.WriteAllBytes(path, flipped);
                Assert.False(Manifest.Verify(checkpoint, out _));
                File.WriteAllBytes(path, whole[..at]);
                Assert.False(Manifest.Verify(checkpoint, out _));
            }

            File.WriteAllBytes(path, whole);
            Assert.True(Manifest.Verify(checkpoint, out _));
        }
    }

    [Fact]
    public void A_checkpoint_that_was_being_replaced_comes_back()
    {
        using var folder = new TemporaryFolder();
        Checkpoint(folder, 3);

        // The moment between the two renames: the old one has its other name, the new one has not got its own yet.
        Directory.Move(Path.Combine(folder.Path, "step-000003"), Path.Combine(folder.Path, ".step-000003.old"));
        Directory.CreateDirectory(Path.Combine(folder.Path, ".step-000003"));
        var newest = Store(folder).Newest(_ => Assert.Fail("It is whole."));

        Assert.Equal(3, newest?.Step);
        Assert.Equal(["step-000003"], Directory.EnumerateDirectories(folder.Path).Select(Path.GetFileName));
    }

    [Fact]
    public void What_an_adapter_remembers_comes_back_with_the_checkpoint()
    {
        using var folder = new TemporaryFolder();
        using var scope = NewDisposeScope();
        using var adapter = new RankKeeper();
        using var parameters = new FlatParameters(adapter.Trainable);
        using var optimizer = new AdamWConfig().Create(parameters);
        adapter.Scores.fill_(2.5f);
        adapter.Rank = 3;
        var state = new CheckpointState { Step = 4 };
        Store(folder).Save(state, adapter, optimizer, new ModelCard("tiny"));
        adapter.Scores.zero_();
        adapter.Rank = 0;

        var store = Store(folder);
        store.Load(store.Newest(Assert.Fail)!, adapter, optimizer);

        Assert.Equal([2.5f, 2.5f], adapter.Scores.data<float>().ToArray());
        Assert.Equal(3, adapter.Rank);
    }

    private static CheckpointStore Store(TemporaryFolder folder) => new(folder.Path, "adapter", keep: 2);

    private static string Checkpoint(TemporaryFolder folder, int step, string? state = null)
    {
        var path = Path.Combine(folder.Path, $"step-{step:D6}");
        Directory.CreateDirectory(Path.Combine(path, "adapter"));
        File.WriteAllText(Path.Combine(path, "adapter", "weights"), "0123456789");
        File.WriteAllText(Path.Combine(path, "state.json"), state ?? JsonSerializer.Serialize(new CheckpointState { Step = step }, SpecJson.Options));
        Manifest.Write(path);
        return path;
    }

    /// <summary>Stands for a method that moves ranks between layers: it has a tensor and a number that no PEFT file holds.</summary>
    private sealed class RankKeeper : Adapter
    {
        private readonly Parameter _weight = new(torch.ones(2));

        public Tensor Scores { get; } = torch.zeros(2);

        public int Rank { get; set; }

        public override IReadOnlyList<TrainableTensor> Trainable => [new("weight", _weight)];

        public override IReadOnlyList<LayerUpdate> Updates => [];

        public override AdapterState State => new([("scores", Scores)], JsonSerializer.SerializeToElement(new { rank = Rank }));

        public override void Restore(AdapterState state)
        {
            Scores.copy_(state.Tensors.Single(tensor => tensor.Name == "scores").Tensor);
            Rank = state.Record!.Value.GetProperty("rank").GetInt32();
        }

        public override void Save(string folder, ModelCard card)
        {
            Directory.CreateDirectory(folder);
            File.WriteAllText(Path.Combine(folder, "card"), card.BaseModel);
        }

        public override void Load(string folder) => Assert.True(File.Exists(Path.Combine(folder, "card")));

        public override void MergeIntoModel()
        {
        }

        protected override void Dispose(bool disposing)
        {
            _weight.Dispose();
            Scores.Dispose();
        }
    }
}
