#!/usr/bin/env bash
# Runs this study; the first argument is the preset, the rest goes to pysim. Repeat it after an interruption.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec pysim experiment "$here" --preset "${1:-smoke}" "${@:2}"
