using System.Text;
using TrainingService.Training.Native;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Native;

public class NativeLibtorchTests
{
    [Fact]
    public void The_native_library_loads_and_multiplies_in_a_test_host()
    {
        using var a = arange(6, dtype: ScalarType.Float32).reshape(2, 3);
        using var product = a.matmul(a.t());

        Assert.Equal([5f, 14f, 14f, 50f], product.data<float>().ToArray());
    }

    [Fact]
    public void The_copy_is_used_only_where_the_systems_library_lacks_the_version()
    {
        using var _ = zeros(1);   // whatever had to be loaded is loaded now
        var library = new[] { "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib" }
            .Select(folder => Path.Combine(folder, "libstdc++.so.6"))
            .First(File.Exists);
        var systemHasIt = Encoding.Latin1.GetString(File.ReadAllBytes(library))
            .Contains("GLIBCXX_3.4.32", StringComparison.Ordinal);

        Assert.Equal(systemHasIt, NativeLibtorch.MendedCopy is null);
    }

    [Fact]
    public void Weakening_changes_one_flag_and_is_done_once()
    {
        var library = Directory.GetFiles(AppContext.BaseDirectory, "libLibTorchSharp.so", SearchOption.AllDirectories)[0];
        var original = File.ReadAllBytes(library);
        var image = original.ToArray();

        Assert.True(ElfVersionNeeds.TryWeaken(image, "GLIBCXX_3.4.32"));
        Assert.Equal(1, original.Zip(image).Count(pair => pair.First != pair.Second));
        Assert.False(ElfVersionNeeds.TryWeaken(image, "GLIBCXX_3.4.32"));
        Assert.False(ElfVersionNeeds.TryWeaken("not an ELF image"u8.ToArray(), "GLIBCXX_3.4.32"));
    }
}
