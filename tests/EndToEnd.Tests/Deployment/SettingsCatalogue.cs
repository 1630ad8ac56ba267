using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Reflection;
using System.Text;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using TrainingService.Api;
using TrainingService.Infrastructure;
using TrainingService.Worker;

namespace TrainingService.EndToEnd.Tests.Deployment;

/// <summary>One value that an operator may set.</summary>
/// <param name="Key">With colons; a list's key ends in <c>:0</c>.</param>
/// <param name="Kind">Type and bounds, in words.</param>
/// <param name="Meaning">The member's summary.</param>
internal sealed record Setting(string Key, string Kind, string Default, string Meaning)
{
    public string Variable => Key.Replace(":", "__", StringComparison.Ordinal);
}

/// <summary>Every setting of the service, read from the records that configuration is bound to.</summary>
internal static partial class SettingsCatalogue
{
    /// <summary>Where options are declared.</summary>
    public static Assembly[] Assemblies { get; } = [typeof(ServiceOptions).Assembly, typeof(WorkerOptions).Assembly, typeof(ApiApplication).Assembly];

    /// <summary>The options records of the three programs' assemblies, the root first.</summary>
    public static IReadOnlyList<Type> Records { get; } =
    [
        .. Assemblies.SelectMany(assembly => assembly.GetTypes())
            .Where(type => type is { IsClass: true, IsNested: false } && type.Name.EndsWith("Options", StringComparison.Ordinal))
            .OrderBy(SectionOf, StringComparer.Ordinal),
    ];

    /// <summary>The section that a record is bound to: its constant <c>Section</c>, which every one must have.</summary>
    public static string SectionOf(Type record) =>
        (string?)record.GetField("Section", BindingFlags.Public | BindingFlags.Static)?.GetRawConstantValue()
        ?? throw new InvalidOperationException($"{record} has no constant 'Section' that says which section of the configuration it is bound to.");

    public static IReadOnlyList<Setting> Of(Type record)
    {
        var defaults = Activator.CreateInstance(record)!;
        var section = SectionOf(record);
        return
        [
            .. record.GetProperties().Where(property => property.CanWrite).Select(property => new Setting(
                string.Join(':', new[] { section, property.Name, IsList(property) ? "0" : "" }.Where(part => part.Length > 0)),
                Kind(property),
                Show(property.GetValue(defaults)),
                Summary($"P:{record.FullName}.{property.Name}"))),
        ];
    }

    /// <summary>The generated part of the page: a table per record.</summary>
    public static string Page()
    {
        var page = new StringBuilder();
        foreach (var record in Records)
        {
            var section = SectionOf(record);
            page.Append(CultureInfo.InvariantCulture, $"\n### {(section.Length > 0 ? section : "The root")}\n{Summary($"T:{record.FullName}")}\n\n");
            page.Append("| setting | environment variable | value | default | meaning |\n| --- | --- | --- | --- | --- |\n");
            foreach (var setting in Of(record))
            {
                page.Append(
                    CultureInfo.InvariantCulture,
                    $"| `{setting.Key}` | `{setting.Variable}` | {setting.Kind} | {setting.Default} | {setting.Meaning.Replace("|", "\\|", StringComparison.Ordinal)} |\n");
            }
        }

        return page.Append('\n').ToString();
    }

    private static bool IsList(PropertyInfo property) => property.PropertyType.IsGenericType && property.PropertyType.Name.StartsWith("IReadOnlyList", StringComparison.Ordinal);

    private static string Kind(PropertyInfo property)
    {
        var type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        if (type.IsEnum)
        {
            return string.Join(" or ", Enum.GetNames(type).Select(name => $"`{name.ToLowerInvariant()}`"));
        }

        var name = IsList(property) ? "list of text: `:0`, `:1`, …"
            : type == typeof(string) ? "text"
            : type == typeof(bool) ? "true or false"
            : type == typeof(int) || type == typeof(long) ? "whole number"
            : type == typeof(double) ? "number"
            : throw new InvalidOperationException($"{property.DeclaringType}.{property.Name}: say in words what a {type} is.");
        return name + Bounds(property);
    }

    private static string Bounds(PropertyInfo property)
    {
        if (property.GetCustomAttribute<RangeAttribute>() is { } range)
        {
            var least = $" from {Number(range.Minimum)}";
            return range.Maximum is double and >= long.MaxValue or long.MaxValue or int.MaxValue ? least : $"{least} to {Number(range.Maximum)}";
        }

        return property.GetCustomAttribute<StringLengthAttribute>() is { } length ? $" of {length.MinimumLength} to {length.MaximumLength} characters"
            : property.GetCustomAttribute<RequiredAttribute>() is not null ? ", demanded" : "";
    }

    private static string Number(object value) => Convert.ToDecimal(value, CultureInfo.InvariantCulture).ToString("0.###", CultureInfo.InvariantCulture);

    private static string Show(object? value) => value switch
    {
        null => "none",
        "" => "none",
        string text => $"`{text}`",
        bool flag => flag ? "`true`" : "`false`",
        Enum word => $"`{word.ToString().ToLowerInvariant()}`",
        IEnumerable<string> => "empty",
        IConvertible number => $"`{Number(number)}`",
        _ => throw new InvalidOperationException($"Say in words what the default {value} is."),
    };

    private static string Summary(string member)
    {
        var summary = Documentation.Value.GetValueOrDefault(member)
            ?? throw new InvalidOperationException($"{member} has no summary, and operators read it.");
        var words = string.Concat(summary.Nodes().Select(node => node switch
        {
            XText text => text.Value,
            XElement { Name.LocalName: "c" } code => $"`{code.Value}`",
            XElement see => $"`{((string?)see.Attribute("cref") ?? see.Value).Split('.')[^1]}`",
            _ => "",
        }));
        return Space().Replace(words, " ").Trim();
    }

    private static readonly Lazy<Dictionary<string, XElement>> Documentation = new(() => Assemblies
        .SelectMany(assembly => XDocument.Load(Path.Combine(AppContext.BaseDirectory, $"{assembly.GetName().Name}.xml")).Descendants("member"))
        .Where(member => member.Element("summary") is not null && (string)member.Attribute("name")! != "T:Program")
        .ToDictionary(member => (string)member.Attribute("name")!, member => member.Element("summary")!));

    [GeneratedRegex(@"\s+")]
    private static partial Regex Space();
}
