#!/usr/bin/env bash
# Subject: seeds of 64 bits for a torch.Generator on the CPU.
#
# Expected: `manual_seed` accepts every number of 64 bits, and `initial_seed` gives it back whole.
# So two different seeds should start two different sequences.
#
# Seen: Only the lower 32 bits have an effect. The seeds 1 and 2**32 + 1 draw the same numbers, without a warning.
# `initial_seed` reports two different seeds for these equal sequences. torch.manual_seed does the same.
# Seeds that hold a part of their own in the upper 32 bits, a run's number for instance, do not differ.
# The documentation says that any integer of 32 bits is valid, and gives a range of 64 bits beside it.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir torch==2.15.0 numpy==2.4.6

cat > "$work/look.py" <<'PY'
import sys
import warnings

import torch

warnings.simplefilter("error")
print("torch", torch.__version__)


def draws(generator):
    values = [torch.rand(1000, generator=generator), torch.randn(1000, generator=generator)]
    return torch.cat([*values, torch.randperm(1000, generator=generator).float()])


as_described = True
for base in (0, 1, 12345):
    first = draws(torch.Generator().manual_seed(base))
    for seed in (base + 2**32, base + 2**40, base + 2**63):
        generator = torch.Generator().manual_seed(seed)
        reported = generator.initial_seed()
        same = torch.equal(draws(generator), first)
        torch.manual_seed(seed)
        globally = torch.equal(draws(None), first)
        print(f"   seeds {base} and {seed}, reported as {reported}: same draws {same}, by torch.manual_seed {globally}")
        as_described &= reported == seed and same and globally
neighbour = torch.equal(draws(torch.Generator().manual_seed(0)), draws(torch.Generator().manual_seed(1)))
print("   seeds 0 and 1: same draws", neighbour)
as_described &= not neighbour
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
