namespace TrainingService.Api.Auth;

internal static class AuthServices
{
    public static void AddKeyAuthentication(this WebApplicationBuilder builder)
    {
        builder.Services.AddOptions<AuthOptions>().BindConfiguration(AuthOptions.Section);

        // The core alone: the whole brings data protection along, which writes keys into the home folder that nothing here uses.
        builder.Services.AddAuthenticationCore(options =>
        {
            options.DefaultScheme = KeyAuthentication.SchemeName;
            options.AddScheme<KeyAuthentication>(KeyAuthentication.SchemeName, null);
        });
        builder.Services.AddWebEncoders();
        builder.Services.AddAuthorization();
        RefuseOpenDoor(builder.Configuration);
    }

    /// <summary>An address that others reach is not opened without a key.</summary>
    private static void RefuseOpenDoor(ConfigurationManager configuration)
    {
        if (!string.IsNullOrEmpty(configuration[$"{AuthOptions.Section}:{nameof(AuthOptions.ApiKey)}"]))
        {
            return;
        }

        var open = Addresses(configuration).FirstOrDefault(address => !KeyAuthentication.IsLoopback(BindingAddress.Parse(address).Host));
        if (open is not null)
        {
            throw new InvalidOperationException(
                $"{open} can be reached from other machines, and no key is set. Set Auth__ApiKey, or listen on http://127.0.0.1:5088.");
        }
    }

    private static IEnumerable<string> Addresses(ConfigurationManager configuration)
    {
        var urls = Split(configuration["urls"])
            .Concat(configuration.GetSection("Kestrel:Endpoints").GetChildren().Select(endpoint => endpoint["Url"]).OfType<string>())
            .ToList();
        return urls.Count > 0
            ? urls
            : Split(configuration["http_ports"]).Select(port => $"http://*:{port}")
                .Concat(Split(configuration["https_ports"]).Select(port => $"https://*:{port}"));
    }

    private static string[] Split(string? list) =>
        list?.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries) ?? [];
}
