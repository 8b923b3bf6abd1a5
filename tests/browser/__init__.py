"""Looks at the built pages in a real browser. A package, so that its conftest is not the one of all tests."""
