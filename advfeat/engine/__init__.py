"""What makes attacks fast: fused steps, folded networks, convolutions, CUDA graphs. Only the library uses it."""
