# Sourced by scripts that need the built service on the embedded profile: `start_service FOLDER URL` builds and starts it, and the
# shell's exit ends it.

start_service() { # folder url
  local folder=$1 url=$2
  command -v dotnet >/dev/null || { echo "error: the .NET 10 SDK is missing: https://dotnet.microsoft.com/download/dotnet/10.0" >&2; return 1; }
  export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
  mkdir -p "$folder"
  local port=${url##*:}
  port=${port%/}
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "error: something listens on port $port already; end it, or choose another with TRAINING_URL=http://127.0.0.1:PORT" >&2
    return 1
  fi

  echo "Building …"
  # Analyzers judge changes, not users; a first build is quicker without them.
  dotnet build src/Api -c Release -v quiet --nologo -p:RunAnalyzers=false -p:UseSharedCompilation=true "-clp:ErrorsOnly;NoSummary"

  echo "Starting the service at $url …"
  DataFolder=$folder/data ASPNETCORE_URLS=$url \
    dotnet artifacts/bin/Api/release/TrainingService.Api.dll > "$folder/service.log" 2>&1 &
  service=$!
  trap 'kill $service 2>/dev/null || true; wait $service 2>/dev/null || true' EXIT

  for _ in $(seq 150); do
    kill -0 $service 2>/dev/null || { echo "error: the service did not start:" >&2; tail -n 20 "$folder/service.log" >&2; return 1; }
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return 0
    sleep 0.2
  done
  echo "error: the service did not answer within 30 s; its log is $folder/service.log" >&2
  return 1
}
