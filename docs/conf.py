"""Sphinx configuration. The build needs no network: no intersphinx."""

from importlib.metadata import version as version_of

project = "slipstream_trio"
author = "slipstream_trio contributors"
project_copyright = "2026, slipstream_trio contributors"
version = release = version_of("slipstream-trio")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"slipstream_trio {release}"
