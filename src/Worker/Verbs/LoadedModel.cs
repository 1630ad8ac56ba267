using System.CommandLine;
using TrainingService.Training;
using TrainingService.Training.Adapters;
using TrainingService.Training.Models;
using TrainingService.Training.Quantization;
using static TorchSharp.torch;

namespace TrainingService.Worker.Verbs;

/// <summary>
/// A base model in float32, with an adapter or without, for the verbs that use one. An adapter that was trained on a quantised base gets it
/// quantised in the same way.
/// </summary>
internal sealed class LoadedModel : IDisposable
{
    private LoadedModel(CausalLm model, Adapter? adapter) => (Model, Adapter) = (model, adapter);

    public static Option<DirectoryInfo> ModelOption { get; } = new("--model")
    {
        Required = true,
        Description = "Model folder in Hugging Face layout.",
    };

    public static Option<DirectoryInfo?> AdapterOption { get; } = new("--adapter") { Description = "Adapter folder in PEFT layout." };

    public static Option<string?> ClassOption { get; } = new("--class")
    {
        Description = "Class whose own part is used, of an adapter that has one for each, such as kind; without it: as the adapter was saved.",
    };

    public CausalLm Model { get; }

    public Adapter? Adapter { get; }

    /// <summary>Refuses folders that do not exist, by the option that names them; before libtorch takes its second to load.</summary>
    /// <exception cref="TrainingException">One does not exist.</exception>
    public static void CheckFolders(params ReadOnlySpan<(string Option, DirectoryInfo? Folder)> folders)
    {
        foreach (var (option, folder) in folders)
        {
            if (folder is { Exists: false })
            {
                throw TrainingException.InvalidSpec($"The folder {folder} does not exist.", option);
            }
        }
    }

    /// <param name="activeClass">See <see cref="AdapterConfig.Saved"/>.</param>
    /// <exception cref="TrainingException">A folder cannot be used.</exception>
    public static LoadedModel Open(DirectoryInfo model, DirectoryInfo? adapter, string? activeClass = null)
    {
        var quantization = adapter is null ? null : QuantizedBase.Of(adapter.FullName);
        var loaded = CausalLm.Load(model.FullName, ScalarType.Float32, cuda.is_available() ? CUDA : CPU, quantization,
            score: adapter is null ? null : ScoreHead.Of(adapter.FullName));
        if (adapter is null)
        {
            return new(loaded, null);
        }

        try
        {
            var attached = AdapterConfig.Saved(adapter.FullName, activeClass).Attach(loaded, seed: 0);
            attached.SetTraining(false);
            return new(loaded, attached);
        }
        catch (TrainingException)
        {
            loaded.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        Adapter?.Dispose();
        Model.Dispose();
    }
}
