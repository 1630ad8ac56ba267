using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Xml.Linq;
using Npgsql;

namespace TrainingService.EndToEnd.Tests.Chaos;

/// <summary>All that a service has written, read past it: two that are equal prove that nothing was written in between.</summary>
internal static class Snapshot
{
    /// <summary>Every row of every table of the service, as text.</summary>
    public static async Task<IReadOnlyDictionary<string, string>> OfDatabaseAsync(string connectionString)
    {
        await using var connection = new NpgsqlConnection(connectionString);
        await connection.OpenAsync();
        var tables = await ReadAsync(connection, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1");
        var rows = new Dictionary<string, string>();
        foreach (var table in tables)
        {
            rows[table] = string.Join('\n', await ReadAsync(connection, $"SELECT to_jsonb(t)::text FROM \"{table}\" t ORDER BY 1"));
        }

        return rows;
    }

    /// <summary>The first column of each row that a query answers with.</summary>
    public static async Task<IReadOnlyList<string>> QueryAsync(string connectionString, string sql)
    {
        await using var connection = new NpgsqlConnection(connectionString);
        await connection.OpenAsync();
        return await ReadAsync(connection, sql);
    }

    /// <summary>Every object of a bucket: key to ETag, length and time, as the store tells them.</summary>
    /// <remarks>Signed here and not by the service's own client, which must not be its own witness.</remarks>
    public static async Task<IReadOnlyDictionary<string, string>> OfBucketAsync(string endpoint, string accessKey, string secretKey, string bucket)
    {
        using var http = new HttpClient();
        var objects = new Dictionary<string, string>();
        string? more = null;
        do
        {
            var query = more is null ? "list-type=2" : $"continuation-token={Uri.EscapeDataString(more)}&list-type=2";
            using var request = Signed(endpoint, accessKey, secretKey, bucket, query);
            using var response = await http.SendAsync(request);
            response.EnsureSuccessStatusCode();
            var page = XDocument.Parse(await response.Content.ReadAsStringAsync()).Root!;
            var space = page.Name.Namespace;
            foreach (var entry in page.Elements(space + "Contents"))
            {
                objects[entry.Element(space + "Key")!.Value] =
                    $"{entry.Element(space + "ETag")?.Value} {entry.Element(space + "Size")?.Value} {entry.Element(space + "LastModified")?.Value}";
            }

            more = page.Element(space + "NextContinuationToken")?.Value;
        }
        while (more is not null);
        return objects;
    }

    private static async Task<IReadOnlyList<string>> ReadAsync(NpgsqlConnection connection, string sql)
    {
        await using var command = new NpgsqlCommand(sql, connection);
        await using var reader = await command.ExecuteReaderAsync();
        var values = new List<string>();
        while (await reader.ReadAsync())
        {
            values.Add(Convert.ToString(reader.GetValue(0), CultureInfo.InvariantCulture)!);
        }

        return values;
    }

    /// <summary>AWS Signature Version 4 of a GET without a body.</summary>
    private static HttpRequestMessage Signed(string endpoint, string accessKey, string secretKey, string bucket, string query)
    {
        var time = TimeProvider.System.GetUtcNow().ToString("yyyyMMdd'T'HHmmss'Z'", CultureInfo.InvariantCulture);
        var scope = $"{time[..8]}/us-east-1/s3/aws4_request";
        var empty = Hex(SHA256.HashData([]));
        var canonical = $"GET\n/{bucket}\n{query}\nhost:{endpoint}\nx-amz-content-sha256:{empty}\nx-amz-date:{time}\n\nhost;x-amz-content-sha256;x-amz-date\n{empty}";
        var toSign = $"AWS4-HMAC-SHA256\n{time}\n{scope}\n{Hex(SHA256.HashData(Encoding.UTF8.GetBytes(canonical)))}";
        var key = Encoding.UTF8.GetBytes($"AWS4{secretKey}");
        foreach (var part in scope.Split('/'))
        {
            key = HMACSHA256.HashData(key, Encoding.UTF8.GetBytes(part));
        }

        var signature = Hex(HMACSHA256.HashData(key, Encoding.UTF8.GetBytes(toSign)));
        var request = new HttpRequestMessage(HttpMethod.Get, $"http://{endpoint}/{bucket}?{query}");
        request.Headers.Add("x-amz-content-sha256", empty);
        request.Headers.Add("x-amz-date", time);
        request.Headers.TryAddWithoutValidation(
            "Authorization",
            $"AWS4-HMAC-SHA256 Credential={accessKey}/{scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}");
        return request;
    }

    private static string Hex(byte[] bytes) => Convert.ToHexStringLower(bytes);
}
