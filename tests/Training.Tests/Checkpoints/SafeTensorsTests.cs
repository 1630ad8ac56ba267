using TorchSharp;
using TrainingService.Training.Checkpoints;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Checkpoints;

public class SafeTensorsTests
{
    [Fact]
    public void Every_format_comes_back_bit_for_bit_with_its_metadata()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        var path = folder.File("all.safetensors");
        var numbers = tensor(new float[] { 0f, -1.5f, 3.25f, 65504f, 6e-5f, -0f }, [2, 3]);
        var tensors = Enum.GetValues<SafeTensorType>()
            .Select(type => (type.ToString(), type == SafeTensorType.Bool ? numbers.gt(0) : numbers.abs().clamp(0, 100).to(type.ToScalarType())))
            .Append(("nothing", zeros(0, 4)))
            .Append(("scalar", tensor(2.5f)))
            .Append(("turned", numbers.t()))
            .ToArray();

        SafeTensorsWriter.Write(path, tensors, new Dictionary<string, string> { ["format"] = "pt", ["step"] = "7" });

        using var file = SafeTensorsFile.Open(path);
        Assert.Equal(["format", "step"], file.Metadata.Keys.Order(StringComparer.Ordinal));
        Assert.Equal("7", file.Metadata["step"]);
        Assert.Equal(tensors.Length, file.Entries.Count);
        foreach (var (name, expected) in tensors)
        {
            var seen = file.Read(name);
            Assert.Equal(expected.dtype, seen.dtype);
            Assert.Equal(expected.shape, seen.shape);
            Assert.True(seen.bytes.SequenceEqual(expected.contiguous().bytes), name);
        }

        // Wide numbers first, so that each tensor is aligned to its own numbers in the map.
        Assert.All(file.Entries.Values, entry => Assert.Equal(0, entry.Offset % entry.DType.Size()));
        Assert.Single(Directory.GetFiles(folder.Path));   // no part file is left
    }

    [Fact]
    public void Reading_converts_and_the_result_outlives_the_file()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        var path = folder.File("half.safetensors");
        SafeTensorsWriter.Write(path, [("w", tensor(new[] { 1f, 0.333333f }).to(ScalarType.BFloat16))]);

        Tensor read;
        using (var file = SafeTensorsFile.Open(path))
        {
            read = file.Read("w", ScalarType.Float32);
        }

        File.Delete(path);
        Assert.Equal(ScalarType.Float32, read.dtype);
        Assert.Equal([1f, 0.33398438f], read.data<float>().ToArray());   // 0.333333 to eight bits of mantissa
    }

    [Fact]
    public void The_same_content_gives_the_same_bytes_in_any_order()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        var (a, b) = (ones(3), zeros(2, 2));

        SafeTensorsWriter.Write(folder.File("1"), [("a", a), ("b", b)]);
        SafeTensorsWriter.Write(folder.File("2"), [("b", b), ("a", a)]);

        Assert.Equal(File.ReadAllBytes(folder.File("1")), File.ReadAllBytes(folder.File("2")));
    }

    [Fact]
    public void Another_writers_file_is_read()
    {
        using var scope = NewDisposeScope();
        using var file = SafeTensorsFile.Open(SharedData.Path("data", "models", "stories260K", "model.safetensors"));

        Assert.Equal(47, file.Entries.Count);
        Assert.Equal("pt", file.Metadata["format"]);
        var embedding = file.Read("model.embed_tokens.weight");
        Assert.Equal([512, 64], embedding.shape);
        Assert.True(embedding.isfinite().all().item<bool>());
    }

    [Fact]
    public void A_failed_write_leaves_the_old_file_and_no_part()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        var path = folder.File("w.safetensors");
        SafeTensorsWriter.Write(path, [("w", ones(2))]);
        var before = File.ReadAllBytes(path);

        Assert.Throws<ArgumentException>(() => SafeTensorsWriter.Write(path, [("w", ones(2)), ("w", ones(1))]));
        Assert.Throws<ArgumentException>(() => SafeTensorsWriter.Write(path, [("c", zeros(1, ScalarType.ComplexFloat32))]));

        Assert.Equal(before, File.ReadAllBytes(path));
        Assert.Single(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void An_unknown_name_is_an_error_that_names_the_file()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        SafeTensorsWriter.Write(folder.File("w.safetensors"), [("w", ones(2))]);
        using var file = SafeTensorsFile.Open(folder.File("w.safetensors"));

        var error = Assert.Throws<TrainingException>(() => file.Read("v"));

        Assert.Equal("w.safetensors has no tensor 'v'; it holds 1 others.", error.Message);
    }
}
