#!/usr/bin/env bash
# Subject: torchattacks and a network whose BatchNorm layers are frozen, in adversarial training.
#
# Expected: Whoever fine-tunes a network sets it to training mode and its BatchNorm layers to evaluation mode.
# Their running statistics then stay as they are. An attack puts the network into evaluation mode while it runs.
# Afterwards every layer should have its mode again.
#
# Seen: Every layer is in training mode afterwards, the frozen ones too, without a warning.
# The library remembers one mode, that of the whole network, and calls train() on it.
# A training step that follows changes the running statistics that were to stay.
# A network that is in evaluation mode as a whole comes back as it was.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir \
  torchattacks==3.5.1 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6

cat > "$work/look.py" <<'PY'
import sys
import warnings

warnings.simplefilter("ignore")  # the import warns of an old way of writing strings

import torch
import torchattacks
from torch import nn

print("torchattacks 3.5.1, torch", torch.__version__)
generator = torch.Generator().manual_seed(0)
images = torch.rand(16, 3, 8, 8, generator=generator)
labels = torch.arange(16) % 10


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(*layers)


def frozen_in_training():
    found = network().train()
    found[1].eval()
    return found


def moved_statistics(attack):
    """How far one forward pass of training, after an attack, moves the running means that were to stay."""
    model = frozen_in_training()
    before = model[1].running_mean.clone()
    seen = images if attack is None else attack(model)(images, labels)
    model(seen)
    return (model[1].running_mean - before).abs().max().item()


as_described = moved_statistics(None) == 0
print(f"   without an attack a forward pass moves the running means by {moved_statistics(None)}")
for kind in (torchattacks.FGSM, torchattacks.PGD, torchattacks.PGDL2, torchattacks.APGD):
    model = frozen_in_training()
    kind(model)(images, labels)
    modes = [layer.training for layer in model]
    moved = moved_statistics(kind)
    whole = network().eval()
    kind(whole)(images, labels)
    kept = not any(layer.training for layer in whole.modules())
    print(f"   {kind.__name__}: BatchNorm in training mode afterwards {modes[1]}, running means moved by {moved:.3f};")
    print(f"      a network in evaluation mode is so afterwards: {kept}")
    as_described &= all(modes) and moved > 0 and kept
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
