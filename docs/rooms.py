"""The rooms of the package in order: a module imports only from modules named before it. A test holds that."""

from __future__ import annotations

from collections.abc import Iterator

ROOMS: dict[str, tuple[str, ...]] = {  # folder: its modules, both in order; "" is the package's own folder
    "": ("errors", "words", "options", "parser"),
    "files": ("atomic", "tsv", "formats", "arrays"),
    "bids": ("names", "query", "dataset", "validation"),
    "records": (
        *("need", "scan", "lesions", "cohort", "machines", "further", "recommended", "trees", "fitted", "reasons"),
        "results",
    ),
    "machine": ("parallel", "process", "progress", "software"),
    "image": (
        *("geometry", "itk", "atlas", "intake", "networks", "brain", "turns", "pose", "registration"),
        *("tissue", "lesion", "quality", "chain"),
    ),
    "lesions": ("network", "places", "kinds", "regions", "normative", "joint", "cohort_norm", "external", "maps"),
    "learning": (
        *("division", "ranking", "kernels", "starts", "solver", "classifier", "sweep", "refit"),
        *("roc", "measures", "agreement", "characteristics", "protocols"),
    ),
    "recommended": (
        *("features", "linear", "neighbours", "calibration", "products", "kernels", "machine"),
        *("comparison", "nested", "rivals", "contest"),
    ),
    "rivals": ("chosen", "voxels", "loads", "trees", "clinical", "belief", "volumes", "convolution", "cnn", "several"),
    "cohort": ("covariates", "labels", "selected", "remade", "lesion_maps", "beliefs", "ratings"),
    "model": ("seal", "norms", "storage", "deciding", "forms", "calibrated", "stored", "explanation", "prediction"),
    "drawing": (
        "slices",
        "scan_panels",
        "scan_figures",
        "charts",
        "recipe_charts",
        "template_slices",
        "group_view",
        "reasons_figure",
        "group_figures",
    ),
    "report": (
        *("assets", "page", "further_numbers", "recommended_numbers", "group_numbers", "group_sections"),
        *("further_sections", "recommended_sections"),
        *("group_page", "rating_page", "index_page", "checklist"),
    ),
    "participant": (
        "transforms",
        "given",
        "marks",
        "lesion_table",
        "sidecars",
        "derivatives",
        "rethreshold",
        "worker",
        "index",
        "reports",
        "reasons",
        "recipe",
    ),
    "group": (
        "outputs",
        "permutation",
        "maps",
        "kept",
        "entrants",
        "contest",
        "rival_models",
        "further",
        "competition",
        "rating",
        "recipe",
    ),
    "phantom": ("records", "cohort", "scan", "dataset", "further", "__main__"),
}
PURE = ("image", "lesions", "learning", "recommended", "rivals")  # arrays in, arrays out: no disk, clock or log
LAST = "__main__"  # the command line imports from everywhere


def modules() -> Iterator[str]:
    """Return the dotted names of all modules below the package, in order."""
    for folder, names in ROOMS.items():
        yield from (f"{folder}.{name}" if folder else name for name in names)
    yield LAST
