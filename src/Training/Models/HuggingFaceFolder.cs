using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Models;

/// <summary>A model in the layout that Hugging Face libraries, vLLM and llama.cpp's converter read.</summary>
public static partial class HuggingFaceFolder
{
    /// <summary>Checks a folder without reading its weights: configuration, names, shapes, number formats. Loads no libtorch.</summary>
    /// <exception cref="TrainingException">What <see cref="CausalLm.Load"/> would refuse.</exception>
    public static ModelConfig Check(string folder)
    {
        var config = ReadConfig(folder);
        using var checkpoint = CheckpointFolder.Open(folder);
        CheckpointNames.Match(config, checkpoint);
        return config;
    }

    /// <summary>Reads the folder's <c>config.json</c>.</summary>
    /// <exception cref="TrainingException">It is missing, not valid, or asks for what is not implemented.</exception>
    public static ModelConfig ReadConfig(string folder)
    {
        var path = Path.Combine(folder, "config.json");
        return File.Exists(path)
            ? ModelConfig.Parse(File.ReadAllText(path))
            : throw TrainingException.InvalidData(
                $"{Path.GetFileName(Path.TrimEndingDirectorySeparator(folder))} has no config.json; give a folder in Hugging Face layout.",
                "config.json");
    }
}
