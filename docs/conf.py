"""Sphinx configuration: `pip install ".[docs]" && sphinx-build -W docs docs/_build`."""

from importlib.metadata import version as installed_version

project = "llm-stability"
version = release = installed_version("llm-stability")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
exclude_patterns = ["_build"]
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
html_theme = "alabaster"
