"""The book's pages: figures, tables and records of the chapters, and the commands that run and build them."""
