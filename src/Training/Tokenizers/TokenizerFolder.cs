using TrainingService.Training.Checkpoints;

namespace TrainingService.Training.Tokenizers;

/// <summary>Reads the tokenizer of a model folder.</summary>
internal static class TokenizerFolder
{
    private const string Gpt2Ending = "<|endoftext|>";

    // Published with Qwen2Tokenizer, whose folders may come without a tokenizer.json.
    private const string Qwen2Pattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    public static Tokenizer Load(string folder, TimeProvider clock)
    {
        try
        {
            using var settings = TokenizerSettings.Read(folder, clock);
            if (File.Exists(Path.Combine(folder, "tokenizer.json")))
            {
                using var document = TokenizerSettings.ReadJson(folder, "tokenizer.json")!;
                return settings.Complete(TokenizerJson.Read(document.RootElement), bosId: null, eosId: null, padId: null);
            }

            if (File.Exists(Path.Combine(folder, "tokenizer.model")))
            {
                return LoadSentencePiece(folder, settings);
            }

            if (File.Exists(Path.Combine(folder, "vocab.json")) && File.Exists(Path.Combine(folder, "merges.txt")))
            {
                return LoadMerges(folder, settings);
            }
        }
        catch (Exception malformed) when (HostileJson.IsMalformed(malformed))
        {
            throw TrainingException.InvalidData(
                $"The tokenizer files are no proper JSON ({malformed.Message.TrimEnd('.')}); export the tokenizer again.", "tokenizer.json", malformed);
        }
        catch (IOException e)
        {
            throw new TrainingException(
                FailureCode.Storage, $"The tokenizer files in '{folder}' could not be read: {e.Message}", folder, e);
        }

        throw TrainingException.InvalidData(
            $"The folder '{folder}' has no tokenizer; it needs tokenizer.json, tokenizer.model, or vocab.json with merges.txt.", folder);
    }

    private static PipelineTokenizer LoadSentencePiece(string folder, TokenizerSettings settings)
    {
        var file = SentencePieceFile.Read(File.ReadAllBytes(TokenizerSettings.Bounded(folder, "tokenizer.model")));
        int? Known(int id) => id >= 0 && id < file.Pieces.Count ? id : null;

        // Llama's tokenizer took BOS by default, and a space behind every special token until "legacy": false mended that.
        var pipeline = SentencePieceModel.Create(file, onlyFirst: settings.Flag("legacy") == false, settings.Flag("add_prefix_space"));
        var bos = Known(file.BosId);
        if (settings.Flag("add_bos_token") is null && bos is { } id)
        {
            pipeline = pipeline with { Before = [id] };
        }

        return settings.Complete(pipeline, bos, Known(file.EosId), Known(file.PadId));
    }

    private static PipelineTokenizer LoadMerges(string folder, TokenizerSettings settings)
    {
        var isQwen = settings.ClassName is "Qwen2Tokenizer" or "Qwen2TokenizerFast";
        if (!isQwen && settings.ClassName is not (null or "GPT2Tokenizer" or "GPT2TokenizerFast" or "RobertaTokenizer"
            or "RobertaTokenizerFast" or "PreTrainedTokenizerFast"))
        {
            throw TrainingException.InvalidData(
                $"vocab.json and merges.txt of a {settings.ClassName} are not supported; add the model's tokenizer.json.",
                "tokenizer_config.json: tokenizer_class");
        }

        using var document = TokenizerSettings.ReadJson(folder, "vocab.json")!;
        var vocabulary = BpeFiles.ReadVocabulary(document.RootElement, "vocab.json");
        var merges = BpeFiles.ReadMerges(File.ReadLines(TokenizerSettings.Bounded(folder, "merges.txt")), "merges.txt");
        var tokens = new List<string?>();
        foreach (var (token, id) in vocabulary)
        {
            TokenizerJson.Put(tokens, id, token);
        }

        int? ending = vocabulary.TryGetValue(Gpt2Ending, out var known) ? known : null;
        var byteLevel = new ByteLevelPreTokenizer(settings.Flag("add_prefix_space") ?? false, useRegex: !isQwen);
        return settings.Complete(
            new TokenizerPipeline
            {
                Model = BpeFiles.Create(vocabulary, merges, new BpeOptions(null, false, null, WholeWords: false, null)),
                Tokens = tokens,
                Added = ending is { } special ? [new AddedToken(special, Gpt2Ending, Special: true)] : [],
                Normalizer = isQwen ? new UnicodeNormalizer(compose: true, compatibility: false) : null,
                PreTokenizer = !isQwen ? byteLevel : new SequencePreTokenizer(
                [
                    new SplitPreTokenizer(
                        SplitPreTokenizer.RegexMatcher(RegexSpans.Create(Qwen2Pattern, "tokenizer_class")),
                        SplitBehavior.Isolated, invert: false),
                    byteLevel,
                ]),
                Decoder = new ByteLevelDecoder(),
            },
            isQwen ? null : ending, ending, padId: null);
    }
}
