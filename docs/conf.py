"""Sphinx's settings; docs/build.py puts the pages together first."""

import prockd

project, author, copyright = "prockd", "The prockd contributors", "the prockd contributors, CC BY 4.0"
version = release = prockd.__version__
root_doc = "docs/index"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "mathml"]
html_theme, html_title = "furo", "prockd"
html_css_files: list[str] = []
nb_execution_mode = "off"  # pages are shown as they were saved
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # explorers are kept as pages of their own, without a kernel
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors, myst_heading_slug_func = 4, "mathml.jupyter_slug"
html_math_renderer = "mathml"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_rtype = False
templates_path: list[str] = []
exclude_patterns = ["**/.ipynb_checkpoints"]
html_copy_source = False
