using Amazon.Runtime;
using Amazon.S3;
using TrainingService.Domain.Artifacts;

namespace TrainingService.Infrastructure.Storage;

/// <summary>Requests to one S3-compatible store: one client, one set of time limits, one policy of retries, one kind of failure.</summary>
internal sealed class S3Connection : IDisposable
{
    /// <summary>Tries of one request. The standard delays between them bridge seven seconds; longer outages are the caller's to wait for.</summary>
    private const int Attempts = 5;

    private readonly HttpClient _http;
    private readonly AmazonS3Client _presigner;

    public S3Connection(S3Options options, TimeProvider clock)
    {
        Options = options;
        Clock = clock;
        IdleLimit = TimeSpan.FromSeconds(options.IdleTimeoutSeconds);
        _http = new HttpClient(new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            UseCookies = false,
            ConnectTimeout = TimeSpan.FromSeconds(options.ConnectTimeoutSeconds),
            PooledConnectionLifetime = TimeSpan.FromMinutes(10),   // follows a store that moves to another address
        })
        {
            Timeout = Timeout.InfiniteTimeSpan,   // each exchange has its own watch
        };
        Client = CreateClient(AddressOf(options.Endpoint));
        PublicAddress = AddressOf(options.PublicEndpoint ?? options.Endpoint);
        _presigner = options.PublicEndpoint is null ? Client : CreateClient(PublicAddress);
    }

    public S3Options Options { get; }

    public TimeProvider Clock { get; }

    public TimeSpan IdleLimit { get; }

    public AmazonS3Client Client { get; }

    /// <summary>Signs URLs for the address that clients reach; sends nothing.</summary>
    public AmazonS3Client Presigner => _presigner;

    public Uri PublicAddress { get; }

    /// <summary>Sends a request, again and again while its failure may pass.</summary>
    /// <param name="verb">What the request does, for the message of a failure.</param>
    /// <param name="fence">Asked before each try; what it throws passes through.</param>
    /// <param name="limit">Time without progress that is allowed; null: <see cref="IdleLimit"/>.</param>
    public async Task<T> SendAsync<T>(
        string verb, string key, Func<IdleWatch, Task<T>> request, CancellationToken cancellationToken, IWriteFence? fence = null, TimeSpan? limit = null)
    {
        for (var attempt = 1; ; attempt++)
        {
            if (fence is not null)
            {
                await fence.HoldAsync(cancellationToken);
            }

            try
            {
                using var watch = new IdleWatch(limit ?? IdleLimit, cancellationToken);
                return await request(watch);
            }
            catch (Exception e) when (!cancellationToken.IsCancellationRequested && S3Failures.IsOfStore(e))
            {
                if (attempt == Attempts || !S3Failures.MayPass(e))
                {
                    throw S3Failures.Describe(verb, key, e);
                }
            }

            await DelayAsync(attempt, cancellationToken);
        }
    }

    /// <summary>Whether another try is due after so many in a row.</summary>
    public static bool MayTryAgain(int attempt) => attempt < Attempts;

    /// <summary>Waits after a failed try, twice as long after each.</summary>
    public Task DelayAsync(int attempt, CancellationToken cancellationToken) =>
        Task.Delay(TimeSpan.FromSeconds(Options.RetryDelaySeconds * Math.Pow(2, attempt - 1)), Clock, cancellationToken);

    public void Dispose()
    {
        Client.Dispose();
        if (!ReferenceEquals(_presigner, Client))
        {
            _presigner.Dispose();
        }

        _http.Dispose();
    }

    private Uri AddressOf(string endpoint) =>
        new(endpoint.Contains("://", StringComparison.Ordinal) ? endpoint : $"{(Options.UseTls ? "https" : "http")}://{endpoint}");

    private AmazonS3Client CreateClient(Uri address) => new(
        new BasicAWSCredentials(Options.AccessKey, Options.SecretKey),
        new AmazonS3Config
        {
            ServiceURL = address.ToString(),
            AuthenticationRegion = Options.Region,
            ForcePathStyle = true,

            // Many compatible stores refuse the checksums that the client adds by itself.
            RequestChecksumCalculation = RequestChecksumCalculation.WHEN_REQUIRED,
            ResponseChecksumValidation = ResponseChecksumValidation.WHEN_REQUIRED,
            MaxErrorRetry = 0,   // retries are ours
            Timeout = Timeout.InfiniteTimeSpan,
            HttpClientFactory = new SharedClient(_http),
        });

    private sealed class SharedClient(HttpClient http) : HttpClientFactory
    {
        public override HttpClient CreateHttpClient(IClientConfig clientConfig) => http;

        public override bool UseSDKHttpClientCaching(IClientConfig clientConfig) => false;

        public override bool DisposeHttpClientsAfterUse(IClientConfig clientConfig) => false;
    }
}
