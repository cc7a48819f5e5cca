"""What lesion maps there are, what their measures are called, and the regions that lesions are counted in."""

from __future__ import annotations

from bids_app.lesions.places import DEFINITIONS as PLACES

NAMES = {  # of the lesion maps, and what each is
    "published": "belief above the threshold",
    "normative": "belief over the norm of its place",
    "network": "what the trained network and the norm together call lesion",
    "external": "what another tool or a reader called lesion",
    "cleaned": "belief above the threshold, without what is rarely a lesion",
}
CUT = {  # what makes a voxel lesion in the maps that the threshold of belief does not make
    "normative": 0.25,  # belief over the norm
    "network": 0.5,  # probability
    "probability": 0.5,
    "external": 0.5,  # share of a voxel
}
BRIGHT = 0.25  # belief that the maps of norm and network ask of a voxel of each lesion; experts' that are found pass
BY_REGION = ("published", "normative", "network", "external")  # maps whose lesions are told by region
CORTEX_MM = 3.0  # white matter nearer to the cortex is juxtacortical
DEEP = ((-32.0, 32.0), (-36.0, 24.0), (-14.0, 24.0))  # mm; gray matter in here is no cortex
REGIONS = {  # names as in the measures, in the order in which a voxel finds its region
    "infratentorial": f"brainstem ({PLACES['brainstem']}) or cerebellum ({PLACES['cerebellum']})",
    "corpus_callosum": PLACES["corpus callosum"],
    "periventricular": f"{PLACES['periventricular white matter']}, or inside them",
    "juxtacortical": f"cortex, or white matter within {CORTEX_MM:g} mm of it; cortex is gray matter but that of the "
    "deep nuclei (within 32 mm of the midline, y from -36 to 24 mm, z from -14 to 24 mm)",
    "deep_white_matter": "white matter nowhere above",
    "elsewhere": "the rest: deep gray matter and fluid",
}


def prefix(name: str) -> str:
    """Return what the measures of a map begin with.

    >>> prefix("published"), prefix("network")
    ('lesion', 'network')
    """
    return "lesion" if name == "published" else name


PREFIXES = tuple(f"{prefix(name)}_" for name in NAMES)  # of all measures of lesion maps
