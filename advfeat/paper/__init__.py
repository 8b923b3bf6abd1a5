"""All records of the book from one command: which runs, in which order, at which cost. See ``workflow/Snakefile``."""
