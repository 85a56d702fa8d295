"""Configuration of the documentation's build."""

import zlib
from pathlib import Path

import airflow_imagetag

project = "airflow-provider-imagetag"
copyright = "The contributors of airflow-provider-imagetag"
version = release = airflow_imagetag.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "inventories"]
html_theme = "furo"
html_title = f"{project} {release}"
html_logo = html_favicon = "images/logo.svg"

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

# Every reference must lead somewhere. These classes are private: base classes of public ones, and
# aliases in their signatures.
nitpicky = True
nitpick_ignore = [
    ("py:class", name)
    for name in (
        "ApiName",
        "Garbage",
        "Moment",
        "Number",
        "Packed",
        "airflow_imagetag.adapters.descriptions.Description",
        "airflow_imagetag.adapters.templating.TemplatedFields",
        "airflow_imagetag.classifiers.settings.LocalModel",
        "airflow_imagetag.hooks.account.AccountHook",
        "airflow_imagetag.operators.label_map.LabelMapField",
        "airflow_imagetag.operators.lineage_methods.LineageMethods",
        "airflow_imagetag.sources.images_field.ImagesField",
        "airflow_imagetag.stores.folders.FolderLabelStore",
    )
]

SITES = {
    "airflow": "https://airflow.apache.org/docs/apache-airflow/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "python": "https://docs.python.org/3/",
    "task-sdk": "https://airflow.apache.org/docs/task-sdk/stable/",
}
"""Documentation of other projects that this one leads to, by the name of a list in inventories."""


def inventory(name: str) -> str:
    """Return the path of a project's inventory, made from its list: no build needs a network.

    :param name: the list, which has a class and its place in each line.
    """
    here = Path(__file__).parent
    lines = (here / "inventories" / f"{name}.txt").read_text().splitlines()
    entries = (line.split() for line in lines)
    body = "".join(f"{entry} py:class 1 {place} -\n" for entry, place in entries)
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    made = here / "_build" / "inventories" / f"{name}.inv"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(head.encode() + zlib.compress(body.encode()))
    return str(made)


intersphinx_mapping = {name: (site, inventory(name)) for name, site in SITES.items()}
