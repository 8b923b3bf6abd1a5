"""Code behind *Adversarial Examples Are Not Bugs, They Are Features*, executable edition.

Images are float32 in [0, 1], laid out (n, 3, height, width); radii, step sizes and distances are in those pixel
units. Normalisation happens inside the model. Randomness is always an argument.
"""

__version__ = "0.1.0"
