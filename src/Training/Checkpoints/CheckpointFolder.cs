using System.Text.Json;
using static TorchSharp.torch;

namespace TrainingService.Training.Checkpoints;

/// <summary>The weights of a Hugging Face folder: one safetensors file, or shards with an index. Pickle is refused.</summary>
public sealed class CheckpointFolder : IDisposable
{
    private const string Single = "model.safetensors";
    private const string Index = "model.safetensors.index.json";
    private static readonly string[] PicklePatterns = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"];

    private readonly List<SafeTensorsFile> _files;
    private readonly Dictionary<string, SafeTensorsFile> _fileOf;

    private CheckpointFolder(List<SafeTensorsFile> files, Dictionary<string, SafeTensorsFile> fileOf)
    {
        _files = files;
        _fileOf = fileOf;
        Entries = fileOf.ToDictionary(pair => pair.Key, pair => pair.Value.Entries[pair.Key], StringComparer.Ordinal);
    }

    /// <summary>Every tensor by name, over all shards.</summary>
    public IReadOnlyDictionary<string, SafeTensorEntry> Entries { get; }

    public IEnumerable<string> Names => Entries.Keys;

    public long[] Shape(string name) => Entries[name].Shape;

    /// <summary>Maps the folder's weights and checks every header. Loads no libtorch.</summary>
    /// <exception cref="TrainingException">No safetensors, a pickle, or an index that does not fit its shards.</exception>
    public static CheckpointFolder Open(string folder)
    {
        var files = new List<SafeTensorsFile>();
        try
        {
            return Open(folder, files);
        }
        catch (TrainingException)
        {
            files.ForEach(file => file.Dispose());
            throw;
        }
    }

    /// <summary>Copies one tensor out of its shard; see <see cref="SafeTensorsFile.Read"/>.</summary>
    public Tensor Read(string name, ScalarType? dtype = null, Device? device = null) =>
        _fileOf.TryGetValue(name, out var file)
            ? file.Read(name, dtype, device)
            : throw TrainingException.InvalidData($"The checkpoint has no tensor {SafeTensorsHeader.Quote(name)}.", name);

    /// <summary>One tensor over its shard's own bytes where that can be; see <see cref="SafeTensorsFile.Share"/>.</summary>
    public Tensor Share(string name, ScalarType dtype, Device device) =>
        _fileOf.TryGetValue(name, out var file) ? file.Share(name, dtype, device) : Read(name, dtype, device);

    public void Dispose() => _files.ForEach(file => file.Dispose());

    private static CheckpointFolder Open(string folder, List<SafeTensorsFile> files)
    {
        if (File.Exists(Path.Combine(folder, Single)))
        {
            return OpenSingle(Path.Combine(folder, Single), files);
        }

        if (File.Exists(Path.Combine(folder, Index)))
        {
            return OpenShards(folder, files);
        }

        var others = Directory.Exists(folder) ? Directory.GetFiles(folder, "*.safetensors") : [];
        return others.Length == 1 && Path.GetFileName(others[0]) != "adapter_model.safetensors"
            ? OpenSingle(others[0], files)
            : throw NoWeights(folder);
    }

    private static CheckpointFolder OpenSingle(string path, List<SafeTensorsFile> files)
    {
        var file = SafeTensorsFile.Open(path);
        files.Add(file);
        return new(files, file.Entries.Keys.ToDictionary(name => name, _ => file, StringComparer.Ordinal));
    }

    private static CheckpointFolder OpenShards(string folder, List<SafeTensorsFile> files)
    {
        var shardOf = ReadIndex(Path.Combine(folder, Index));
        var fileOf = new Dictionary<string, SafeTensorsFile>(StringComparer.Ordinal);
        foreach (var shard in shardOf.Values.Distinct(StringComparer.Ordinal))
        {
            var file = SafeTensorsFile.Open(Path.Combine(folder, shard));
            files.Add(file);
            foreach (var name in file.Entries.Keys)
            {
                if (!shardOf.TryGetValue(name, out var indexed) || indexed != shard)
                {
                    throw BadIndex($"shard {shard} holds tensor {SafeTensorsHeader.Quote(name)}, which the index "
                        + (indexed is null ? "does not list" : $"places in {indexed}"));
                }

                fileOf[name] = file;
            }
        }

        return shardOf.Keys.FirstOrDefault(name => !fileOf.ContainsKey(name)) is { } absent
            ? throw BadIndex($"tensor {SafeTensorsHeader.Quote(absent)} is not in its shard {shardOf[absent]}")
            : new(files, fileOf);
    }

    private static Dictionary<string, string> ReadIndex(string path)
    {
        try
        {
            const long largest = 64L << 20;   // the largest published have a few MB
            var bytes = PlainFile.LengthOf(path);
            using var stream = bytes <= largest ? File.OpenRead(path) : throw BadIndex($"it has {bytes} bytes, and at most {largest} are read");
            using var document = JsonDocument.Parse(stream, new() { MaxDepth = 8, AllowDuplicateProperties = false });
            if (document.RootElement.ValueKind != JsonValueKind.Object
                || !document.RootElement.TryGetProperty("weight_map", out var map)
                || map.ValueKind != JsonValueKind.Object)
            {
                throw BadIndex("it has no weight_map");
            }

            return map.EnumerateObject().ToDictionary(member => member.Name, member => ShardName(member), StringComparer.Ordinal);
        }
        catch (Exception error) when (HostileJson.IsMalformed(error))
        {
            throw BadIndex($"it is not valid JSON ({error.Message.TrimEnd('.')})", error);
        }
    }

    /// <summary>A shard is a plain file name: an index that points elsewhere could read any file of this machine.</summary>
    private static string ShardName(JsonProperty member)
    {
        var name = member.Value.ValueKind == JsonValueKind.String ? member.Value.GetString()! : member.Value.GetRawText();
        return name.EndsWith(".safetensors", StringComparison.Ordinal)
            && name.AsSpan().IndexOfAny("/\\:\0") < 0
            && !name.StartsWith('.')
            ? name
            : throw BadIndex($"tensor {SafeTensorsHeader.Quote(member.Name)} points to {SafeTensorsHeader.Quote(name)}, "
                + "where the name of a .safetensors file in the same folder is wanted");
    }

    private static TrainingException BadIndex(string what, Exception? inner = null) =>
        TrainingException.InvalidData($"{Index} cannot be used: {what}; copy or download the model again.", Index, inner);

    private static TrainingException NoWeights(string folder)
    {
        var name = Path.GetFileName(Path.TrimEndingDirectorySeparator(folder));
        if (!Directory.Exists(folder))
        {
            return TrainingException.InvalidData($"The model folder {name} does not exist; give a folder with config.json and {Single}.", "model");
        }

        var pickle = PicklePatterns.SelectMany(pattern => Directory.GetFiles(folder, pattern)).Order(StringComparer.Ordinal).FirstOrDefault();
        return pickle is null
            ? TrainingException.InvalidData($"The model folder {name} has neither {Single} nor {Index}; add the weights.", "model")
            : TrainingException.InvalidData(
                $"{Path.GetFileName(pickle)} is a Python pickle, which can run code when it is opened, so it is refused; convert the model once "
                + "with Python: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder, safe_serialization=True), and use "
                + "new_folder.", Path.GetFileName(pickle));
    }
}
