"""Is the engine right, and how fast is it: on this machine, beside other libraries."""
