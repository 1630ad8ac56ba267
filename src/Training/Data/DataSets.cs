using TrainingService.Training.Data.Stored;
using TrainingService.Training.Tokenizers;

namespace TrainingService.Training.Data;

/// <summary>Files as token sequences, with a report on what was found in them.</summary>
public static class DataSets
{
    /// <summary>Reads, checks and tokenises the rows of a run.</summary>
    /// <param name="use">What the run's objective makes of a row.</param>
    /// <param name="tokenizer">Null when the model has none; then only tokenised rows can be read.</param>
    /// <param name="modelVocabulary">Number of ids that the model's embedding knows.</param>
    /// <param name="seed">Decides which rows <see cref="DataConfig.ValidationSplit"/> sets aside.</param>
    /// <param name="progress">Told now and then how far the reading is.</param>
    /// <param name="cache">Where token sequences are kept and found again; null: in a temporary file, for as long as the data is used.</param>
    /// <exception cref="TrainingException">A row is in error, nothing is left to train on, or the tokenizer does not fit the model.</exception>
    public static PreparedData Prepare(
        DataConfig config, RowUse use, Tokenizer? tokenizer, int modelVocabulary, int seed, Action<DataProgress>? progress,
        CancellationToken cancellationToken, TokenCache? cache = null)
    {
        var data = Inspect(config, use, tokenizer, modelVocabulary, seed, progress, cancellationToken, cache);
        try
        {
            data.Report.ThrowIfUnusable();
            return data;
        }
        catch (TrainingException)
        {
            data.Dispose();
            throw;
        }
    }

    /// <summary>Like <see cref="Prepare"/>, but row errors are only reported, so that the report can be kept before the run ends with
    /// <see cref="DataReport.ThrowIfUnusable"/>.</summary>
    /// <param name="trainMember">The member of <c>data</c> that names the rows, for messages.</param>
    /// <exception cref="TrainingException">A file cannot be opened, or the tokenizer does not fit the model.</exception>
    public static PreparedData Inspect(
        DataConfig config, RowUse use, Tokenizer? tokenizer, int modelVocabulary, int seed, Action<DataProgress>? progress,
        CancellationToken cancellationToken, TokenCache? cache = null, string trainMember = "train")
    {
        CheckVocabularies(tokenizer, modelVocabulary);
        SplitData Read(string split, string path)
        {
            var key = cache?.KeyOf(path, $"data.{split}", config, use, modelVocabulary, cancellationToken) ?? "";
            if (cache?.TryOpen(key, cancellationToken) is { } known)
            {
                return SplitData.Of(split, known);
            }

            SplitData? read = null;
            (RowTable, TokenFileHead)? Make(TokenFileWriter records)
            {
                read = new SplitReader(split, config, use, tokenizer, modelVocabulary, progress, limits: null, records)
                    .Read(path, cancellationToken);
                return read.ErrorCount > 0 ? null : (read.Table, read.HeadOf(key, TokenRecord.IsNarrow(modelVocabulary, tokenizer?.VocabularySize)));
            }

            var made = cache is null ? TokenFile.MakeTemporary(Make) : cache.Make(key, Make);
            return made is null ? read! : SplitData.Of(split, made);
        }

        var train = Read(trainMember, config.Train);
        try
        {
            var validation = config.Validation is null ? null : Read("validation", config.Validation);
            return ReportBuilder.Build(config, train, validation, tokenizer, needsExamples: true, seed);
        }
        catch
        {
            train.Tokens?.Dispose();
            throw;
        }
    }

    /// <summary>The report on one file, without a run. Never throws for what is in the file.</summary>
    /// <param name="config">How rows are to be read; null: by default. Its file names are not used.</param>
    /// <param name="tokenizer">Null: only the structure of text rows is checked, and no tokens are counted.</param>
    /// <param name="modelVocabulary">Number of ids that the model knows; null: ids of tokenised rows are not checked.</param>
    /// <param name="limits">Null: the file is read to its end.</param>
    /// <exception cref="TrainingException">The file cannot be opened.</exception>
    public static DataReport Validate(
        string path, DataConfig? config = null, Tokenizer? tokenizer = null, int? modelVocabulary = null, RowUse use = RowUse.Answers,
        ReadingLimits? limits = null, CancellationToken cancellationToken = default)
    {
        var settings = (config ?? new DataConfig { Train = path }) with { Train = path, Validation = null, ValidationSplit = 0 };
        var read = new SplitReader("train", settings, use, tokenizer, modelVocabulary, progress: null, limits).Read(path, cancellationToken);
        return ReportBuilder.Build(settings, read, validation: null, tokenizer, needsExamples: false, seed: 0).Report;
    }

    /// <summary>A tokenizer may have fewer ids than the model, which pads its embedding, but not more.</summary>
    /// <exception cref="TrainingException">It has more.</exception>
    public static void CheckVocabularies(Tokenizer? tokenizer, int modelVocabulary)
    {
        if (tokenizer?.VocabularySize > modelVocabulary)
        {
            throw TrainingException.InvalidData(
                $"The tokenizer has {tokenizer.VocabularySize} ids but the model's vocabulary only {modelVocabulary}: "
                + "they belong to different models; put the right tokenizer files beside the checkpoint.",
                "model");
        }
    }
}
