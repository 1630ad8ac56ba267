using System.Text.Json;
using System.Text.Json.Nodes;
using TrainingService.Training.Adapters;
using TrainingService.Training.Optimizers;

namespace TrainingService.Training.Tests.Spec;

public class SpecParseTests
{
    /// <summary>A spec that is right but for what <paramref name="members"/> changes.</summary>
    internal static string With(string members) =>
        $$"""{ "model": "mdl_1", "data": { "train": "file-1" }{{(members.Length > 0 ? ", " + members : "")}} }""";

    [Fact]
    public void A_spec_with_the_required_members_has_the_defaults()
    {
        var result = SpecJson.Parse(With(""));

        Assert.Empty(result.Errors);
        var adapter = Assert.IsType<LoraConfig>(result.Spec!.Adapter);
        Assert.Equal(16, adapter.Rank);
        Assert.True(adapter.TargetModules.IsAllLinear);
    }

    [Fact]
    public void What_is_written_out_reads_back_the_same()
    {
        var spec = new TrainingSpec
        {
            Model = "mdl_1",
            Data = new() { Train = "file-1", Validation = "file-2", Columns = new Dictionary<string, string> { ["question"] = "prompt" } },
            Adapter = new LoraConfig
            {
                TargetModules = ModuleSelector.OfNames(["q_proj", "v_proj"]),
                ExcludeModules = ModuleSelector.OfPattern(@".*\.0\..*"),
                RankPattern = new Dictionary<string, int> { ["^model\\.layers\\.1"] = 4 },
                AlphaPattern = new Dictionary<string, double> { ["q_proj"] = 8.5 },
                ModulesToSave = ["lm_head"],
                Bias = BiasTraining.LoraOnly,
            },
            Optimizer = new SgdConfig { Momentum = 0.9 },
            Schedule = new() { MaxSteps = 10, MaxGradNorm = null },
        };
        var written = SpecJson.Serialize(spec);

        var result = SpecJson.Parse(written);

        Assert.Empty(result.Errors);
        Assert.Equal(written, SpecJson.Serialize(result.Spec!));
    }

    [Fact]
    public void The_serializer_reads_what_the_parser_reads()
    {
        var written = SpecJson.Serialize(SpecJson.Parse(With("\"optimizer\": { \"learning_rate\": 1e-3, \"type\": \"adamw\" }")).Spec!);

        Assert.Equal(written, SpecJson.Serialize(JsonSerializer.Deserialize<TrainingSpec>(written, SpecJson.Options)!));
    }

    [Theory]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"ranc\": 4 }", "adapter.ranc", "unknown_member", "adapter.ranc is not known; did you mean rank?")]
    [InlineData("\"learning_rate\": 1e-3", "learning_rate", "unknown_member", "learning_rate is not known; it belongs at optimizer.learning_rate.")]
    [InlineData("\"adapter\": { \"type\": \"full\", \"rank\": 4 }", "adapter.rank", "unknown_member", "adapter.rank is not known; it belongs at adapter.rank of type lora.")]
    [InlineData("\"zzz\": 1", "zzz", "unknown_member", "zzz is not known; known here: model, data, objective, adapter, optimizer, schedule, precision, quantization, activation_checkpointing, evaluation, checkpoints, spectra, seed.")]
    [InlineData("\"adapter\": { \"type\": \"lorra\" }", "adapter.type", "unknown_type", "adapter.type is \"lorra\", which does not exist; did you mean lora? Or choose one of full, lora, ")]
    [InlineData("\"adapter\": { \"rank\": 4 }", "adapter.type", "missing_required", "adapter.type is missing; choose one of full, lora, ")]
    [InlineData("\"adapter\": { \"type\": 4 }", "adapter.type", "wrong_kind", "adapter.type is 4; choose one of full, lora, ")]
    [InlineData("\"adapter\": \"lora\"", "adapter", "wrong_kind", "adapter is \"lora\"; it must be an object.")]
    [InlineData("\"adapter\": null", "adapter", "null_not_allowed", "adapter must not be null; leave it out for its default")]
    [InlineData("\"seed\": null", "seed", "null_not_allowed", "seed must not be null; leave it out for its default, 42.")]
    [InlineData("\"model\": null", "model", "duplicate_member", "model is given more than once; keep one of them.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"rank\": 0 }", "adapter.rank", "out_of_range", "adapter.rank is 0; it must be a number from 1 to 65536.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"rank\": 4.5 }", "adapter.rank", "not_an_integer", "adapter.rank is 4.5; it must be a whole number from 1 to 65536.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"rank\": \"4\" }", "adapter.rank", "wrong_kind", "adapter.rank is \"4\"; it must be a whole number.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"rank\": 9223372036854775808 }", "adapter.rank", "out_of_range", "adapter.rank is 9223372036854775808;")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"rank\": 1e999 }", "adapter.rank", "out_of_range", "adapter.rank is 1e999;")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"alpha\": 1e308 }", "adapter.alpha", "out_of_range", "adapter.alpha is 1e308; it must be a number from 0.001 to 1000000.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"bias\": \"lora-only\" }", "adapter.bias", "unknown_value", "adapter.bias is \"lora-only\"; did you mean lora_only? Or choose one of none, all, lora_only.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"use_rslora\": 1 }", "adapter.use_rslora", "wrong_kind", "adapter.use_rslora is 1; it must be true or false.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"target_modules\": [] }", "adapter.target_modules", "invalid_value", "must name at least one module")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"target_modules\": [3] }", "adapter.target_modules", "invalid_value", "must hold module names only")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"target_modules\": \"(\" }", "adapter.target_modules", "invalid_value", "is not a valid regular expression")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"target_modules\": {} }", "adapter.target_modules", "invalid_value", "must be a list of module names, a regular expression, or \"all-linear\"")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"rank_pattern\": { \"q.*\": 0 } }", "adapter.rank_pattern[\"q.*\"]", "out_of_range", "is 0; it must be a number from 1 to 65536.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"rank_pattern\": { \"(\": 4 } }", "adapter.rank_pattern", "conflict", "has the key '(', which is not a valid regular expression")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"alpha_pattern\": { \"q_proj\": -1 } }", "adapter.alpha_pattern.q_proj", "out_of_range", "is -1;")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"modules_to_save\": [\"lm_head\", null] }", "adapter.modules_to_save[1]", "null_not_allowed", "must not be null; leave it out.")]
    [InlineData("\"adapter\": { \"type\": \"lora\", \"from\": \" \" }", "adapter.from", "invalid_value", "adapter.from is empty; give a text or null.")]
    [InlineData("\"optimizer\": { \"type\": \"adamw\", \"betas\": [0.9, 1] }", "optimizer.betas[1]", "out_of_range", "optimizer.betas[1] is 1; it must be a number from 0 up to, not including, 1.")]
    [InlineData("\"optimizer\": { \"type\": \"adamw\", \"betas\": [0.9] }", "optimizer.betas", "out_of_range", "optimizer.betas has 1 items; it must have 2.")]
    [InlineData("\"optimizer\": { \"type\": \"adamw\", \"betas\": 0.9 }", "optimizer.betas", "wrong_kind", "optimizer.betas is 0.9; it must be a list.")]
    [InlineData("\"optimizer\": { \"type\": \"adamw\", \"learning_rate\": -1e-4 }", "optimizer.learning_rate", "out_of_range", "optimizer.learning_rate is -1e-4;")]
    [InlineData("\"optimizer\": { \"type\": \"adamw\", \"learning_rate\": \"NaN\" }", "optimizer.learning_rate", "wrong_kind", "optimizer.learning_rate is \"NaN\"; it must be a number.")]
    [InlineData("\"schedule\": { \"max_steps\": 5, \"warmup_steps\": 6 }", "schedule.warmup_steps", "conflict", "schedule.warmup_steps is 6, more than max_steps, 5; lower it.")]
    [InlineData("\"evaluation\": { \"early_stopping_patience\": 3 }", "evaluation.early_stopping_patience", "conflict", "evaluation.early_stopping_patience needs validation rows")]
    [InlineData("\"optimizer\": { \"type\": \"adamw\", \"state_bits\": 16 }", "optimizer.state_bits", "conflict", "optimizer.state_bits is 16; use 32 or 8.")]
    [InlineData("\"optimizer\": { \"type\": \"lion\", \"lora_plus_ratio\": 16 }, \"adapter\": { \"type\": \"full\" }", "optimizer.lora_plus_ratio", "conflict", "optimizer.lora_plus_ratio needs an adapter with factors")]
    [InlineData("\"evaluation\": { \"metrics\": [\"loss\", \"accuracy\"] }", "evaluation.metrics[1]", "unknown_value", "evaluation.metrics[1] is \"accuracy\"; choose one of loss, token_accuracy.")]
    [InlineData("\"seed\": \"\\ud800\"", "seed", "malformed_json", "seed holds half of a surrogate pair")]
    public void One_fault_gives_its_path_its_code_and_a_sentence(string members, string path, string code, string words)
    {
        var result = SpecJson.Parse(With(members));

        var error = Assert.Single(result.Errors);
        Assert.Null(result.Spec);
        Assert.Equal(path, error.Path);
        Assert.Equal(code, error.Code);
        Assert.Contains(words, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{ "model": "m", "data": { "train": "f", "validation": "g", "validation_split": 0.1 } }""", "data.validation_split", "conflict")]
    [InlineData("""{ "model": "m", "data": { "train": "f", "columns": { "a": "prompt", "b": "prompt" } } }""", "data.columns", "conflict")]
    [InlineData("""{ "model": "m", "data": { "train": "f", "columns": { "a": "" } } }""", "data.columns.a", "invalid_value")]
    [InlineData("""{ "model": "m", "data": { "train": "" } }""", "data.train", "invalid_value")]
    [InlineData("""{ "model": "m", "data": { "train": "a\u0000b" } }""", "data.train", "malformed_json")]
    [InlineData("""{ "model": "m", "data": {} }""", "data.train", "missing_required")]
    [InlineData("""{ "data": { "train": "f" } }""", "model", "missing_required")]
    [InlineData("""[]""", "", "wrong_kind")]
    [InlineData("""null""", "", "null_not_allowed")]
    public void A_fault_in_a_whole_document(string json, string path, string code)
    {
        var error = Assert.Single(SpecJson.Parse(json).Errors);

        Assert.Equal((path, code), (error.Path, error.Code));
    }

    [Theory]
    [InlineData("", "line 1, column 1")]
    [InlineData("{\n  \"model\": \"m\",\n  \"seed\": NaN\n}", "line 3, column 11")]
    [InlineData("{ \"model\": \"m\", }", "line 1, column 17")]
    public void Malformed_JSON_gives_line_and_column(string json, string where)
    {
        var error = Assert.Single(SpecJson.Parse(json).Errors);

        Assert.Equal(SpecErrorCodes.MalformedJson, error.Code);
        Assert.Contains(where, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("BytePositionInLine", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void All_errors_come_at_once_and_rules_across_members_too()
    {
        var result = SpecJson.Parse("""
            { "model": "m", "data": { "train": "f", "max_length": 1, "validation": "v", "validation_split": 0.2 }, "sed": 1,
              "adapter": { "type": "lora", "rank": 0, "alpha": true }, "optimizer": { "type": "adam" },
              "schedule": { "max_steps": 1, "warmup_steps": 2, "batch_size": 0 } }
            """);

        Assert.Equal(
            ["adapter.alpha", "adapter.rank", "data.max_length", "data.validation_split", "optimizer.type", "schedule.batch_size", "schedule.warmup_steps", "sed"],
            result.Errors.Select(error => error.Path).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_rule_is_not_asked_about_members_that_are_at_fault()
    {
        var result = SpecJson.Parse(
            """{ "model": "m", "data": { "train": "f", "validation_split": 2 }, "evaluation": { "early_stopping_patience": 3 } }""");

        Assert.Equal("data.validation_split", Assert.Single(result.Errors).Path);
    }

    [Fact]
    public void A_document_that_is_nested_too_deeply_is_refused()
    {
        var deep = string.Concat(Enumerable.Repeat("[", 100_000)) + string.Concat(Enumerable.Repeat("]", 100_000));

        Assert.Equal(SpecErrorCodes.MalformedJson, Assert.Single(SpecJson.Parse(deep).Errors).Code);
    }

    [Fact]
    public void An_element_read_with_other_limits_is_held_to_ours()
    {
        var deep = string.Concat(Enumerable.Repeat("[", 200)) + string.Concat(Enumerable.Repeat("]", 200));
        using var document = JsonDocument.Parse(deep, new JsonDocumentOptions { MaxDepth = 1000 });

        Assert.Equal(SpecErrorCodes.MalformedJson, Assert.Single(SpecJson.Parse(document.RootElement).Errors).Code);
    }

    [Fact]
    public void Half_of_a_surrogate_pair_in_the_text_itself_is_refused() =>
        Assert.Equal(SpecErrorCodes.MalformedJson, Assert.Single(SpecJson.Parse("{ \"model\": \"\ud800\" }").Errors).Code);

    [Fact]
    public void A_byte_order_mark_is_skipped() => Assert.Empty(SpecJson.Parse("\uFEFF" + With("")).Errors);

    [Fact]
    public void A_whole_number_may_be_written_with_a_fraction_of_zero() =>
        Assert.Equal(7, SpecJson.Parse(With("\"seed\": 7.0")).Spec!.Seed);

    [Fact]
    public void Errors_are_capped_and_messages_stay_short()
    {
        var members = new JsonObject(Enumerable.Range(0, 5_000).Select(i => KeyValuePair.Create<string, JsonNode?>(new string('x', 500) + i, null)));

        var errors = SpecJson.Parse(members.ToJsonString()).Errors;

        Assert.Equal(SpecJson.MaxErrors, errors.Count);
        Assert.All(errors, error => Assert.True(error.Message.Length < 400));
    }
}
