using TrainingService.Training.Adapters;
using TrainingService.Training.Checkpoints;
using TrainingService.Training.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Checkpoints;

/// <summary>Weights that stay in the mapped file.</summary>
public sealed class SharedWeightsTests : IDisposable
{
    private static readonly string Model = SharedData.Path("golden", "models", "llama_untied");
    private readonly string _folder = Directory.CreateTempSubdirectory("shared-weights-").FullName;

    [Fact]
    public void A_shared_tensor_has_the_numbers_of_the_file_and_outlives_it()
    {
        using var scope = NewDisposeScope();
        var path = Path.Combine(Model, "model.safetensors");
        var (shared, copied) = (new Dictionary<string, Tensor>(), new Dictionary<string, Tensor>());
        using (var file = SafeTensorsFile.Open(path))
        {
            foreach (var name in file.Entries.Keys)
            {
                shared[name] = file.Share(name, ScalarType.Float32, CPU);
                copied[name] = file.Read(name, ScalarType.Float32);
            }
        }

        Assert.All(shared, pair => Assert.Equal(copied[pair.Key].data<float>(), pair.Value.data<float>()));
        if (OperatingSystem.IsLinux())
        {
            Assert.Contains("/llama_untied/model.safetensors", File.ReadAllText("/proc/self/maps"), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Another_format_is_copied()
    {
        using var scope = NewDisposeScope();
        using var file = SafeTensorsFile.Open(Path.Combine(Model, "model.safetensors"));
        var name = file.Entries.Keys.First();

        Assert.Equal(ScalarType.BFloat16, file.Share(name, ScalarType.BFloat16, CPU).dtype);
    }

    /// <summary>Two bytes of bfloat16 before it put the float32 tensor at an odd place; the reference writer would not, others may.</summary>
    [Fact]
    public void A_tensor_that_is_not_aligned_is_copied()
    {
        using var scope = NewDisposeScope();
        const string Header = """{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]}}  """;
        var path = Path.Combine(_folder, "odd.safetensors");
        File.WriteAllBytes(path, [.. BitConverter.GetBytes((long)Header.Length), .. System.Text.Encoding.UTF8.GetBytes(Header), 0, 0, .. BitConverter.GetBytes(1.5f), .. BitConverter.GetBytes(-2f)]);
        using var file = SafeTensorsFile.Open(path);

        Assert.Equal([1.5f, -2f], file.Share("b", ScalarType.Float32, CPU).data<float>());
    }

    [Fact]
    public void Training_and_merging_never_write_to_the_file()
    {
        Copy("config.json", "model.safetensors");
        var path = Path.Combine(_folder, "model.safetensors");
        var before = File.ReadAllBytes(path);
        using (var model = CausalLm.Load(_folder, ScalarType.Float32, CPU))
        using (var adapter = new LoraConfig { Rank = 2 }.Attach(model, 1))
        {
            using var scope = NewDisposeScope();
            using var noGrad = no_grad();
            foreach (var (_, parameter) in adapter.Trainable)
            {
                parameter.fill_(0.5);
            }

            adapter.MergeIntoModel();
            Assert.All(model.NamedWeights(), weight => weight.Parameter.mul_(2));
        }

        Assert.Equal(before, File.ReadAllBytes(path));
    }

    [Fact]
    public void A_file_that_is_replaced_after_it_was_opened_is_read_as_it_was()
    {
        using var scope = NewDisposeScope();
        Copy("model.safetensors");
        var path = Path.Combine(_folder, "model.safetensors");
        using var file = SafeTensorsFile.Open(path);
        var name = file.Entries.Keys.First();
        var expected = file.Read(name, ScalarType.Float32);
        SafeTensorsWriter.Write(path, [("other", zeros(1))]);

        Assert.Equal(expected.data<float>(), file.Share(name, ScalarType.Float32, CPU).data<float>());
    }

    [Fact]
    public void A_file_that_is_shortened_after_it_was_opened_is_refused()
    {
        using var scope = NewDisposeScope();
        Copy("model.safetensors");
        var path = Path.Combine(_folder, "model.safetensors");
        using var file = SafeTensorsFile.Open(path);
        using (var stream = new FileStream(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            stream.SetLength(stream.Length / 2);
        }

        var error = Assert.Throws<TrainingException>(() => file.Share(file.Entries.Keys.First(), ScalarType.Float32, CPU));
        Assert.Contains("changed while it was read", error.Message);
    }

    private void Copy(params string[] names)
    {
        foreach (var name in names)
        {
            File.Copy(Path.Combine(Model, name), Path.Combine(_folder, name));
        }
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
