using System.Text.Json;
using TrainingService.Training.Adapters;
using TrainingService.Training.Data;
using TrainingService.Training.Models;
using TrainingService.Training.Objectives;
using TrainingService.Training.Quantization;
using TrainingService.Training.Tests.Models;
using static TorchSharp.torch;

namespace TrainingService.Training.Tests.Adapters;

/// <summary>A model of three layers, 64 wide, and one batch of three rows for it.</summary>
internal static class TinyModel
{
    private static readonly Lazy<string> Root = new(() =>
    {
        var root = Directory.CreateTempSubdirectory("adapter-tests-").FullName;
        AppDomain.CurrentDomain.ProcessExit += (_, _) => Directory.Delete(root, recursive: true);
        return root;
    });

    public static string Folder(string id = "llama_untied") => SharedData.Path("golden", "models", id);

    /// <summary>The golden model of that name, on the CPU; one thread, so that sums have one order.</summary>
    public static CausalLm Load(string id = "llama_untied", ScalarType dtype = ScalarType.Float32, QuantizationConfig? quantization = null)
    {
        set_num_threads(1);
        return CausalLm.Load(Folder(id), dtype, CPU, quantization);
    }

    /// <summary>Ids and labels of the golden batch, [3, 20] each.</summary>
    public static (Tensor Ids, Tensor Labels) Batch()
    {
        using var document = JsonDocument.Parse(File.ReadAllText(SharedData.Path("golden", "inputs.json")));
        var batch = document.RootElement.GetProperty("batches").GetProperty("lm");
        return (Rows(batch.GetProperty("input_ids")), Rows(batch.GetProperty("labels")));
    }

    /// <summary>The rows of the golden batch, one to a batch, as a run hands them to a method that looks at them first.</summary>
    /// <param name="oneRow">The first of them each time.</param>
    public static Calibration Calibration(bool oneRow = false)
    {
        using var scope = NewDisposeScope();
        var (ids, labels) = Batch();
        var batches = Enumerable.Range(0, (int)ids.shape[0]).Select(row =>
        {
            var source = oneRow ? 0 : row;
            var (tokens, targets) = (ids[source].data<long>().ToArray(), labels[source].data<long>().ToArray());
            targets[0] = Example.Ignored;   // nothing predicts it
            return new Batch(1, tokens.Length, tokens, targets, [.. Enumerable.Range(0, tokens.Length).Select(index => (long)index)], Segments: null);
        }).ToList();
        return new(new SftConfig(), CPU, limit => batches.Take(limit));
    }

    public static Tensor Logits(CausalLm model, Tensor ids)
    {
        using var off = no_grad();
        return model.Forward(ids, Positions(ids));
    }

    public static Tensor Loss(CausalLm model, Tensor ids, Tensor labels) => Numbers.MeanLoss(model.Forward(ids, Positions(ids)), labels);

    /// <summary>A fresh folder that is gone when the tests end.</summary>
    public static string NewFolder() => Directory.CreateDirectory(Path.Combine(Root.Value, Path.GetRandomFileName())).FullName;

    private static Tensor Positions(Tensor ids) => arange(ids.shape[1], ScalarType.Int64).unsqueeze(0).expand(ids.shape);

    private static Tensor Rows(JsonElement rows)
    {
        var values = rows.EnumerateArray().Select(row => row.EnumerateArray().Select(value => value.GetInt64()).ToArray()).ToArray();
        return tensor(values.SelectMany(row => row).ToArray()).reshape(values.Length, values[0].Length);
    }
}
