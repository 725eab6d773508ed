"""Sphinx configuration: `pip install ".[docs]" && sphinx-build -W docs docs/_build`."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(DOCS.parent), os.environ.get("PYTHONPATH")])
)  # of notebooks

project = "llm-stability"
version = release = installed_version("llm-stability")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "generated",
]
exclude_patterns = ["_build", "_ext", "_generated", "_templates", "conf.py"]
templates_path = ["_templates"]

# Markdown
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

# Notebooks: jupytext percent scripts, run when they change
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

# Public names
autosummary_generate = True
autosummary_filename_map = {  # functions and classes that differ in case only, on file systems that ignore it
    f"stability.{name}": f"stability.{name}-function"
    for name in ("replica", "transient", "catalog.gpu", "catalog.model")
}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
nitpicky = True

html_theme = "alabaster"
html_static_path = ["_static"]
html_title = "llm-stability"
html_theme_options = {
    "description": "Is an LLM serving fleet stable, by how much, what binds, and what to change?",
    "page_width": "1180px",
    "sidebar_width": "260px",
    "body_max_width": "none",
    "fixed_sidebar": False,
    "font_family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "head_font_family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "link": "#0072B2",
    "show_powered_by": False,
    "show_relbars": True,
    "sidebar_collapse": True,
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
