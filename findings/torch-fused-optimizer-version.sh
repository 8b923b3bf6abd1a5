#!/usr/bin/env bash
# Subject: PyTorch's fused optimizers and the check that a saved tensor has not changed before `backward`.
#
# Expected: Every operation in place raises the version of its tensor.
# `backward` compares versions, and raises an error if a tensor that it needs has changed since the forward pass.
# An optimizer changes its parameters in place. So the same step with fused=True should be noticed like one without.
#
# Seen: SGD, Adam, AdamW and Adagrad with fused=True change the parameters on the CPU and leave their version as it was.
# After such a step `backward` through a graph from before it raises nothing and gives a wrong gradient.
# Without fused=True the same lines raise the error.
# So code that keeps something derived from the weights cannot tell by the version whether they are still the same.
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

import torch
from torch import nn, optim

print("torch", torch.__version__)


def version_after_step(kind, fused):
    """How far one step raises the version of a parameter that it changes."""
    weight = nn.Parameter(torch.ones(4))
    weight.grad = torch.ones(4)
    optimizer = kind([weight], lr=0.5, fused=fused)
    before = weight._version
    optimizer.step()
    assert not torch.equal(weight.detach(), torch.ones(4)), "the step must change the weight"
    return weight._version - before


def late_backward(fused):
    """The gradient of x * w at x = 3, w = 1, asked for after a step to w = 0.5; the right one is 1."""
    weight = nn.Parameter(torch.tensor(1.0))
    x = torch.tensor(3.0, requires_grad=True)
    product = x * weight
    weight.grad = torch.tensor(1.0)
    optim.SGD([weight], lr=0.5, fused=fused).step()
    try:
        product.backward()
    except RuntimeError as error:
        return "error: " + str(error).split(":")[0]
    return x.grad.item()


as_described = True
for kind in (optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad):
    plain, fused = version_after_step(kind, False), version_after_step(kind, True)
    print(f"   {kind.__name__}: one step raises the version by {plain}, with fused=True by {fused}")
    as_described &= plain > 0 and fused == 0
plain, fused = late_backward(False), late_backward(True)
print(f"   gradient with respect to x after the step: {plain}")
print(f"   the same with fused=True: {fused}, where 1.0 is right")
as_described &= str(plain).startswith("error") and fused == 0.5
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
