#!/usr/bin/env bash
# Subject: what an evaluation by pyautoattack leaves behind in the program that called it.
#
# Expected: The evaluation takes a model and images and returns adversarial images, and its seed is an argument.
# It should leave the rest of the program as it was: torch's global generator, the trace function of Python, and the
# gradients of the model's parameters, which were None.
#
# Seen: All three change.
# torch's global generator is seeded with the evaluation's seed. What is drawn next depends no more on the program's.
# The trace function is taken away, so a debugger or a coverage tool sees nothing more after it.
# Parameters of the model hold gradients, which an optimizer's next step would take for its own.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir pyautoattack==0.2.0 torch==2.15.0 numpy==2.4.6

cat > "$work/look.py" <<'PY'
import sys
from importlib.metadata import version

import torch
from pyautoattack import AutoAttack

torch.set_num_threads(1)
print("pyautoattack", version("pyautoattack"), "torch", torch.__version__)


def trace(frame, event, argument):
    """A trace function that looks at nothing."""


def evaluation(program_seed):
    """What is drawn after an evaluation, the trace function then, and the largest gradient of each parameter."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10)).eval()
    images = torch.rand(4, 3, 4, 4)
    labels = network(images).argmax(dim=1)
    attack = AutoAttack(network, norm="Linf", eps=1e-3, seed=7)
    torch.manual_seed(program_seed)
    sys.settrace(trace)
    attack.run_standard_evaluation(images, labels, batch_size=4)
    left = sys.gettrace()
    sys.settrace(None)
    gradients = {
        name: None if parameter.grad is None else parameter.grad.abs().max().item()
        for name, parameter in network.named_parameters()
    }
    return torch.rand(3).tolist(), left, gradients


drawn = {}
traced = []
gradients = {}
for program_seed in (1, 2):
    torch.manual_seed(program_seed)
    without = torch.rand(3).tolist()
    drawn[program_seed], left, gradients = evaluation(program_seed)
    traced.append(left)
    print(f"   program's seed {program_seed}: drawn without the evaluation {[round(value, 4) for value in without]}")
    print(f"                    drawn after the evaluation   {[round(value, 4) for value in drawn[program_seed]]}")
print("   trace function after the evaluations:", traced)
print("   largest gradient left in each parameter:", gradients)

as_described = (
    drawn[1] == drawn[2]
    and traced == [None, None]
    and all(value is not None and value > 0 for value in gradients.values())
)
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
