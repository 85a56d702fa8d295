"""Configuration of the documentation's build."""

import airflow_imagetag

project = "airflow-provider-imagetag"
copyright = "The contributors of airflow-provider-imagetag"
version = release = airflow_imagetag.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"

# Translations of some pages; scripts/translations.py keeps them in step.
locale_dirs = ["locale"]
gettext_compact = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

# This default overrides a list of names on a page, so such a page says `:no-members:` and has a
# directive for each member.
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
