using Microsoft.Playwright;
using TrainingService.EndToEnd.Tests.Running;

namespace TrainingService.EndToEnd.Tests.Clients;

/// <summary>Swagger UI in a real Chromium, used as a person would.</summary>
public sealed class SwaggerUITests(EmbeddedService service) : IClassFixture<EmbeddedService>
{
    private static readonly string[] ChromiumPlaces = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

    [Fact]
    public async Task The_job_body_of_try_it_out_creates_a_job_as_it_stands()
    {
        await service.Upload(SmallTrainingFile.Path);   // the page's example names the newest model and file
        using var playwright = await Playwright.CreateAsync();
        await using var browser = await Launch(playwright);
        var page = await browser.NewPageAsync(new BrowserNewPageOptions { ViewportSize = new ViewportSize { Width = 1280, Height = 1400 } });
        page.SetDefaultTimeout(180_000);   // the page draws a large schema, and a machine that runs all tests has little time for it
        await page.GotoAsync($"{service.Url}/swagger/index.html");

        var operation = page.Locator(".opblock-post").Filter(new LocatorFilterOptions { Has = page.Locator("[data-path='/v1/jobs']") });
        await operation.Locator(".opblock-summary").ClickAsync();
        await operation.GetByRole(AriaRole.Button, new LocatorGetByRoleOptions { Name = "Try it out" }).ClickAsync();
        await operation.GetByRole(AriaRole.Button, new LocatorGetByRoleOptions { Name = "Execute" }).ClickAsync();
        var answer = operation.Locator(".live-responses-table .response").First;
        await answer.WaitForAsync();

        var status = (await answer.Locator(".response-col_status").InnerTextAsync()).Trim();
        var text = await answer.InnerTextAsync();
        Assert.True(status.StartsWith("201", StringComparison.Ordinal), $"{text}\n{service.Logs}");
        var newest = (await service.Get("/v1/jobs?limit=1"))["data"]![0]!;
        Assert.Contains((string)newest["id"]!, text, StringComparison.Ordinal);

        if (Environment.GetEnvironmentVariable("UPDATE_SCREENSHOTS") == "1")
        {
            await operation.ScreenshotAsync(new LocatorScreenshotOptions { Path = Path.Combine(Repository.Root, "docs", "swagger.png") });
        }

        Assert.Equal("succeeded", (string)(await service.WaitForEnd((string)newest["id"]!))["status"]!);
    }

    [Fact]
    public async Task Every_member_of_the_spec_is_described()
    {
        var document = await service.Get("/openapi/v1.json");
        var undescribed = new List<string>();
        foreach (var (name, schema) in document["components"]!["schemas"]!.AsObject())
        {
            foreach (var (member, content) in schema!["properties"]?.AsObject() ?? [])
            {
                if (name.Contains("Spec", StringComparison.Ordinal) && content?["description"] is null)
                {
                    undescribed.Add($"{name}.{member}");
                }
            }
        }

        Assert.Empty(undescribed);
        Assert.Contains(document["components"]!["schemas"]!.AsObject(), schema => schema.Key.Contains("Spec", StringComparison.Ordinal));
    }

    private static Task<IBrowser> Launch(IPlaywright playwright)
    {
        var chromium = ChromiumPlaces.FirstOrDefault(File.Exists);
        if (chromium is null)
        {
            const string Message = "Chromium is missing: run scripts/test.sh, which installs it.";
            Assert.SkipUnless(Environment.GetEnvironmentVariable("CI") == "true", Message);
            Assert.Fail(Message);
        }

        return playwright.Chromium.LaunchAsync(new BrowserTypeLaunchOptions
        {
            ExecutablePath = chromium,
            Args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"],
        });
    }
}
