#!/usr/bin/env bash
# Builds the source distribution, builds the wheel from it, and tries the wheel on each Python that is given: a new
# environment without the pins of constraints.txt, a sample, a trained router, a scored file, an evaluation.
# Example: .ci/wheels.sh python3.10 python3.11 python3.12 python3.13
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "no Python was given; expected one or more, such as python3.10 python3.13" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# From a copy of what git holds: setuptools would take stale files of an earlier build from build/.
mkdir "$work/source"
git archive HEAD | tar --extract --directory "$work/source"
"$1" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet --disable-pip-version-check build twine
"$work/tools/bin/python" -m build --outdir "$work/dist" "$work/source" > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$work/tools/bin/python" -m twine check --strict "$work"/dist/*
wheel=$(echo "$work"/dist/*.whl)
du -h "$work"/dist/*

try() (
  mkdir "$2" && cd "$2"
  "$1" -m venv env
  env/bin/python -m pip install --quiet --disable-pip-version-check "$wheel[fast]"
  small=$(du -sm env | cut -f1)
  env/bin/python -m pip install --quiet --disable-pip-version-check "$wheel[fast,train]"
  all=$(du -sm env | cut -f1)
  env/bin/routelearn data sample sample --queries 1000
  SECONDS=0
  env/bin/routelearn train mf --data sample/performance.jsonl --pool sample/pool.json --strong sim-max --weak sim-small -o router
  trained=$SECONDS
  env/bin/routelearn score router sample/queries.txt -o scored.csv
  env/bin/routelearn evaluate router --data sample/performance.jsonl --split test --train sample/performance.jsonl \
    --bootstrap 50 -o report
  test "$(wc -l < scored.csv)" -gt 100 && test -s report/report.html
  apgr=$(env/bin/python -c 'import json; print(round(json.load(open("report/report.json"))["results"][0]["values"]["apgr"], 4))')
  versions=$(env/bin/python -m pip list --format=freeze | grep -E '^(numpy|onnxruntime|tokenizers|tokie)=' | sed 's/==/ /' | paste -s -d, -)
  echo "[fast] $small MB, [fast,train] $all MB, train mf $trained s, APGR $apgr; $versions" > result
)

failed=0
for python in "$@"; do
  version=$("$python" -c 'import sys; print(*sys.version_info[:3], sep=".")')
  try "$python" "$work/$version" > "$work/$version.log" 2>&1 &  # as a condition it would go on after an error
  if wait $!; then
    echo "Python $version: $(cat "$work/$version/result")"
  else
    echo "Python $version: FAILED"
    tail --lines 20 "$work/$version.log"
    failed=1
  fi
  rm -rf "${work:?}/$version"
done
exit $failed
