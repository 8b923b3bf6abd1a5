"""The engine below the attacks: fused steps, folded networks, convolutions, CUDA graphs. It is private."""
