# syntax=docker/dockerfile:1
# API and CPU worker. Targets: `docker build --target api .`, `--target api-scores` (with POST /v1/scores), `--target worker`; the GPU worker is Dockerfile.gpu.
# Ubuntu 24.04 has the libstdc++ that libtorch's binding asks for; on an older base the worker mends a copy of the binding at its start.

FROM mcr.microsoft.com/dotnet/sdk:10.0-noble AS build
ENV DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
WORKDIR /source
COPY global.json Directory.Build.props Directory.Packages.props BannedSymbols.txt .editorconfig ./
COPY src src
# Analyzers judge changes, not images.
RUN --mount=type=cache,target=/root/.nuget/packages \
    dotnet publish src/Api -c Release -r linux-x64 --self-contained false -p:WithWorker=false -p:RunAnalyzers=false -o /out/api
RUN --mount=type=cache,target=/root/.nuget/packages \
    dotnet publish src/Worker -c Release -r linux-x64 --self-contained false -p:RunAnalyzers=false -o /out/worker
RUN mkdir /out/data

# No shell and no package manager: the program asks itself how it is.
FROM mcr.microsoft.com/dotnet/aspnet:10.0-noble-chiseled AS api
WORKDIR /app
COPY --from=build /out/api .
COPY --from=build --chown=1654:1654 /out/data /data
# TMPDIR: uploads pass through temporary files, which must not fill a memory file system.
ENV ASPNETCORE_HTTP_PORTS=8080 DataFolder=/data TMPDIR=/data DOTNET_EnableDiagnostics=0
USER 1654
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=12s --start-period=30s \
    CMD ["dotnet", "TrainingService.Api.dll", "health", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["dotnet", "TrainingService.Api.dll"]

# The API with the program that runs reward models (POST /v1/scores) beside it, which needs libtorch's libraries and as much memory as Scores__MemoryBytes says.
FROM mcr.microsoft.com/dotnet/aspnet:10.0-noble AS api-scores
WORKDIR /app
COPY --from=build /out/api .
COPY --from=build /out/worker worker
COPY --from=build --chown=1654:1654 /out/data /data
ENV ASPNETCORE_HTTP_PORTS=8080 DataFolder=/data TMPDIR=/data DOTNET_EnableDiagnostics=0
USER 1654
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=12s --start-period=30s \
    CMD ["dotnet", "TrainingService.Api.dll", "health", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["dotnet", "TrainingService.Api.dll"]

FROM mcr.microsoft.com/dotnet/aspnet:10.0-noble AS worker
# tcmalloc trains faster than glibc's malloc; the worker preloads it where it finds it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libtcmalloc-minimal4t64 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=build /out/worker .
COPY --from=build --chown=1654:1654 /out/data /data
ENV DataFolder=/data TMPDIR=/data Worker__HealthUrl=http://0.0.0.0:8081 DOTNET_EnableDiagnostics=0
USER 1654
VOLUME /data
EXPOSE 8081
HEALTHCHECK --interval=30s --timeout=12s --start-period=60s \
    CMD ["dotnet", "TrainingService.Worker.dll", "health", "http://127.0.0.1:8081/health/ready"]
ENTRYPOINT ["dotnet", "TrainingService.Worker.dll"]
CMD ["run"]
