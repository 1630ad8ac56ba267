namespace TrainingService.Infrastructure.Health;

/// <summary>The verb <c>health</c>: asks a running process how it is, for containers that hold no other program that could.</summary>
public static class HealthProbe
{
    /// <param name="url">The whole address, such as <c>http://127.0.0.1:8080/health/ready</c>.</param>
    /// <returns>0 when the answer is good, 1 otherwise; the reason goes to <paramref name="output"/>.</returns>
    public static async Task<int> RunAsync(string? url, TextWriter output)
    {
        if (!Uri.TryCreate(url, UriKind.Absolute, out var address))
        {
            await output.WriteLineAsync("usage: health URL, for example health http://127.0.0.1:8080/health/ready");
            return 1;
        }

        using var http = new HttpClient { Timeout = TimeSpan.FromSeconds(10) };
        try
        {
            using var answer = await http.GetAsync(address);
            await output.WriteLineAsync(await answer.Content.ReadAsStringAsync());
            return answer.IsSuccessStatusCode ? 0 : 1;
        }
        catch (Exception e) when (e is HttpRequestException or OperationCanceledException)
        {
            await output.WriteLineAsync($"{address} does not answer: {e.Message}");
            return 1;
        }
    }
}
