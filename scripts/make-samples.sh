#!/usr/bin/env bash
# Makes samples/model and samples/data anew: generates the sample world and pretrains the base model with our own pretraining job.
# Takes some minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$PWD/artifacts/make-samples
rm -rf "$work"
mkdir -p "$work"
dotnet build src/Worker -c Release -v quiet --nologo "-clp:ErrorsOnly;NoSummary"
dotnet run samples/generate.cs -- "$work"
cp samples/pretraining.json "$work/"
(cd "$work" && dotnet ../bin/Worker/release/TrainingService.Worker.dll train --spec pretraining.json --work run)

rm -rf samples/model samples/data
cp -r "$work/run/model" samples/model
cp -r "$work/data" samples/data
echo "samples/model: $(du -sh samples/model | cut -f1); samples/data: $(du -sh samples/data | cut -f1)"
