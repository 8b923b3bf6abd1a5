"""The book's pages: what chapters use to show and record, and the commands that run and build them."""
