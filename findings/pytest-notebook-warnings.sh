#!/usr/bin/env bash
# Subject: pytest-notebook in a project whose pytest turns warnings into errors.
#
# Expected: A plugin that is installed and not used leaves the tests of a project alone. With `filterwarnings = error`,
# as pytest's documentation suggests, a test without a warning passes.
#
# Seen: With pytest-notebook 0.11.0 no test runs any more: pytest ends while it loads the plugin.
# On import the plugin documents its own classes, and warns of six attributes whose types, such as `None | Exception`,
# it cannot put into words. Without the setting each run shows the six warnings. Python's own option `-W ignore` does
# not help, as pytest's setting comes after it; `-p no:nb_regression`, which leaves the plugin out, does.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir pytest-notebook==0.11.0 pytest==9.2.0 attrs==26.1.0

mkdir "$work/project"
cd "$work/project"
printf 'def test_nothing_about_notebooks():\n    assert 1 + 1 == 2\n' > test_sum.py
changed=0

outcome() { # outcome NAME PYTEST-ARGUMENTS...: prints the last line and the exit status of a run
  local name=$1 status=0
  shift
  "$work/venv/bin/python" -m pytest -q "$@" > "$work/log" 2>&1 || status=$?
  echo "   $name: exit status $status, $(grep -c 'could not be converted' "$work/log" || true) complaints, last line: $(grep . "$work/log" | tail -1)"
  return "$status"
}

echo "pytest-notebook 0.11.0, pytest 9.2.0"
printf '[pytest]\n' > pytest.ini
outcome "as it is" || changed=1
grep -q '1 passed, 6 warnings' "$work/log" || changed=1
printf '[pytest]\nfilterwarnings = error\n' > pytest.ini
outcome "filterwarnings = error" && changed=1
grep -q 'UserWarning: Field "pytest_notebook.execution.ExecuteResult.exec_error"' "$work/log" || changed=1
outcome "filterwarnings = error, -p no:nb_regression" -p no:nb_regression || changed=1

[ "$changed" = 0 ] && echo "as described" || echo "the behaviour changed"
exit "$changed"
