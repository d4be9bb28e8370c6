"""Jinja templates and the plain C++ and Java sources of the loaders: data, no logic."""
