using System.Globalization;
using System.Net;
using System.Text;

namespace TrainingService.Training.Spectra;

/// <summary>A drawing on a white ground. Numbers are written the same everywhere; texts are escaped.</summary>
internal sealed class Svg
{
    public const string Ink = "#1f2933";
    public const string Quiet = "#7b8794";
    public const string Grid = "#e4e7eb";

    private readonly StringBuilder _body = new();
    private readonly double _width;
    private readonly double _height;
    private readonly string _title;

    public Svg(double width, double height, string title)
    {
        _width = width;
        _height = height;
        _title = title;
        Text(20, 28, title, size: 17, weight: "600");
    }

    public void Rectangle(double x, double y, double width, double height, string fill, string? tooltip = null)
    {
        _body.Append(CultureInfo.InvariantCulture, $"<rect x=\"{x:0.##}\" y=\"{y:0.##}\" width=\"{width:0.##}\" height=\"{height:0.##}\" fill=\"{fill}\"");
        _body.Append(tooltip is null ? "/>\n" : $"><title>{Escape(tooltip)}</title></rect>\n");
    }

    public void Line(double x1, double y1, double x2, double y2, string stroke) => _body.Append(
        CultureInfo.InvariantCulture, $"<line x1=\"{x1:0.##}\" y1=\"{y1:0.##}\" x2=\"{x2:0.##}\" y2=\"{y2:0.##}\" stroke=\"{stroke}\"/>\n");

    public void Polyline(IEnumerable<(double X, double Y)> points, string stroke, string? tooltip = null)
    {
        var list = string.Join(' ', points.Select(point => string.Create(CultureInfo.InvariantCulture, $"{point.X:0.##},{point.Y:0.##}")));
        _body.Append($"<polyline points=\"{list}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"1.6\" stroke-linejoin=\"round\"");
        _body.Append(tooltip is null ? "/>\n" : $"><title>{Escape(tooltip)}</title></polyline>\n");
    }

    public void Dot(double x, double y, string fill, string tooltip) => _body.Append(
        CultureInfo.InvariantCulture, $"<circle cx=\"{x:0.##}\" cy=\"{y:0.##}\" r=\"2.6\" fill=\"{fill}\"><title>{Escape(tooltip)}</title></circle>\n");

    /// <param name="anchor">start, middle or end.</param>
    /// <param name="turned">Whether the text reads upwards, as along a vertical axis.</param>
    public void Text(
        double x, double y, string text, double size = 12, string anchor = "start", string fill = Ink, bool turned = false, string weight = "400")
    {
        _body.Append(CultureInfo.InvariantCulture, $"<text x=\"{x:0.##}\" y=\"{y:0.##}\" font-size=\"{size:0.#}\" text-anchor=\"{anchor}\" fill=\"{fill}\" font-weight=\"{weight}\"");
        _body.Append(turned ? string.Create(CultureInfo.InvariantCulture, $" transform=\"rotate(-90 {x:0.##} {y:0.##})\"") : "");
        _body.Append(CultureInfo.InvariantCulture, $">{Escape(text)}</text>\n");
    }

    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {_width:0.##} {_height:0.##}\" width=\"{_width:0.##}\" height=\"{_height:0.##}\" "
        + $"font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif\" role=\"img\">\n<title>{Escape(_title)}</title>\n"
        + $"<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{_body}</svg>\n");

    // Characters that XML 1.0 cannot hold at all are replaced: a name from a file may contain anything.
    private static string Escape(string text) =>
        WebUtility.HtmlEncode(new string(text.Select(letter => char.IsControl(letter) || char.IsSurrogate(letter) ? '�' : letter).ToArray()));
}
