using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Checkpoints;

public class CheckpointFolderTests
{
    private const string Index = "model.safetensors.index.json";

    [Fact]
    public void Shards_are_read_through_their_index()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        WriteShards(folder, """{"metadata":{"total_size":20},"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}}""");

        using var checkpoint = CheckpointFolder.Open(folder.Path);

        Assert.Equal(["a", "b"], checkpoint.Names.Order(StringComparer.Ordinal));
        Assert.Equal([3], checkpoint.Shape("b"));
        Assert.Equal([1f, 1f], checkpoint.Read("a").data<float>().ToArray());
        Assert.Equal([0f, 0f, 0f], checkpoint.Read("b").data<float>().ToArray());
    }

    [Theory]
    [InlineData("""{"weight_map":{"a":"../s1.safetensors"}}""", "'../s1.safetensors'")]
    [InlineData("""{"weight_map":{"a":"/etc/s1.safetensors"}}""", "'/etc/s1.safetensors'")]
    [InlineData("""{"weight_map":{"a":"C:\\s1.safetensors"}}""", "in the same folder")]
    [InlineData("""{"weight_map":{"a":"sub/s1.safetensors"}}""", "'sub/s1.safetensors'")]
    [InlineData("""{"weight_map":{"a":"pytorch_model.bin"}}""", "'pytorch_model.bin'")]
    [InlineData("""{"weight_map":{"a":"..safetensors"}}""", "in the same folder")]
    [InlineData("""{"weight_map":{"a":7}}""", "'7'")]
    [InlineData("""{"weight_map":{"a":"s3.safetensors"}}""", "s3.safetensors is missing")]
    [InlineData("""{"weight_map":{"a":"s1.safetensors","c":"s1.safetensors"}}""", "'c' is not in its shard")]
    [InlineData("""{"weight_map":{"c":"s1.safetensors"}}""", "'a', which the index does not list")]
    [InlineData("""{"weight_map":{"a":"s2.safetensors","b":"s1.safetensors"}}""", "which the index places in")]
    [InlineData("""{"weight_map":{"a":"s1.safetensors","a":"s2.safetensors"}}""", "not valid JSON")]
    [InlineData("""{"weight_map":["s1.safetensors"]}""", "no weight_map")]
    [InlineData("""{}""", "no weight_map")]
    [InlineData("""[]""", "no weight_map")]
    [InlineData("""{"weight_map":{"\ud800":"s1.safetensors"}}""", "not valid JSON")]
    [InlineData("""not json""", "not valid JSON")]
    public void An_index_that_lies_is_refused(string index, string expected)
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        WriteShards(folder, index);

        var error = Assert.Throws<TrainingException>(() => CheckpointFolder.Open(folder.Path));

        Assert.Equal(FailureCode.InvalidData, error.Code);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("pytorch_model.bin")]
    [InlineData("pytorch_model-00001-of-00002.bin")]
    [InlineData("consolidated.00.pth")]
    [InlineData("weights.pt")]
    public void A_pickle_is_refused_with_how_to_convert_it(string name)
    {
        using var folder = new TemporaryFolder();
        File.WriteAllBytes(folder.File(name), [0x80, 0x02]);

        var error = Assert.Throws<TrainingException>(() => CheckpointFolder.Open(folder.Path));

        Assert.StartsWith($"{name} is a Python pickle", error.Message, StringComparison.Ordinal);
        Assert.Contains("save_pretrained(new_folder, safe_serialization=True)", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_empty_or_absent_folder_is_named()
    {
        using var folder = new TemporaryFolder();

        Assert.Contains("has neither model.safetensors", Message(folder.Path), StringComparison.Ordinal);
        Assert.Contains("nowhere does not exist", Message(folder.File("nowhere")), StringComparison.Ordinal);

        static string Message(string path) => Assert.Throws<TrainingException>(() => CheckpointFolder.Open(path)).Message;
    }

    private static void WriteShards(TemporaryFolder folder, string index)
    {
        SafeTensorsWriter.Write(folder.File("s1.safetensors"), [("a", ones(2))]);
        SafeTensorsWriter.Write(folder.File("s2.safetensors"), [("b", zeros(3))]);
        File.WriteAllText(folder.File(Index), index);
    }
}
