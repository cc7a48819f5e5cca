"""The cases that the lesion network learns from: real scans after the app's own chain, and experts' lesions.

Nine raw scans give a belief map each, and the lesions that experts drew on 22 other people, carried to the scan by
its own transform: shapes and places to paint. Three stripped scans in template space come with their experts' lesions.
Ages and sexes in the two tables tell that ``patient01`` and ``sub-01`` are two people, as all others of equal number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from bids_app.image.geometry import Frame, canonical, part
from bids_app.records.scan import Anatomy, Volume

SEED = 0  # of the registrations, as the app's default
THICK = (0.8, 0.8, 4.4)  # mm: a clinical scan made of a labelled one, to check on
THICK_NOISE, THICK_BIAS = 0.04, 0.12  # of the brain's median
MAPS = ("belief", "gm", "wm", "csf")
# The scans "in MNI space" keep their brains' sizes, while the app's template is larger: point there = TO_SCANS @ point
# of the template + OFFSET, mm; the mean of the three scans' poses.
TO_SCANS = ((0.857, -0.009, 0.005), (0.003, 0.851, -0.017), (-0.007, 0.061, 0.783))
OFFSET = (0.5, -3.1, 5.7)


@dataclass(frozen=True)
class Case:
    """One scan for the draws or for a check, on its grid in the app's frame (axes near right, anterior, superior).

    ``belief`` (0 outside the brain), ``gm``, ``wm``, ``csf`` (atlas maps carried to the scan) are float32 (X, Y, Z),
    ``brain`` is bool. ``lesions`` (bool) are an expert's, None where no expert drew any. ``shapes`` (P, X, Y, Z) uint8
    are lesions of the people ``people`` carried to this scan, in 255ths.
    """

    name: str
    belief: np.ndarray
    brain: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    affine: np.ndarray
    lesions: np.ndarray | None
    people: tuple[str, ...]
    shapes: np.ndarray

    @property
    def patient(self) -> str:
        """The person: ``sub-01`` of ``sub-01_ses-1``, ``patient07`` of ``patient07_thick``."""
        return self.name.split("_")[0]

    @property
    def thick(self) -> bool:
        """True for the copy of a labelled scan with thick slices, made to check on."""
        return self.name.endswith("_thick")

    @property
    def grid(self) -> Volume:
        """The belief map with its affine."""
        return Volume(self.belief, self.affine)

    def without(self, patient: str) -> Case:
        """Return the case without the shapes of one person."""
        kept = [index for index, who in enumerate(self.people) if who != patient]
        return Case(**{**self.__dict__, "people": tuple(self.people[k] for k in kept), "shapes": self.shapes[kept]})


def read_image(path: Path) -> Volume:
    """Return a NIfTI as it is stored, float32."""
    image = nibabel.load(path)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=float))  # type: ignore[attr-defined]


def sources(data: Path, mni: Path) -> Iterator[tuple[str, Volume, Volume | None]]:
    """Yield name, FLAIR and expert's lesions: raw scans, then stripped ones, each followed by a thick copy of it."""
    for path in sorted(data.glob("sub-*/**/anat/*_FLAIR.nii.gz")):
        yield path.name.removesuffix("_FLAIR.nii.gz"), read_image(path), None
    for path in sorted(mni.glob("patient*_space-MNI_FLAIR_brain.nii.gz")):
        name = path.name.split("_")[0]
        flair, lesions = read_image(path), read_image(mni / f"{name}_space-MNI_lesions.nii.gz")
        yield name, flair, lesions
        yield f"{name}_thick", *thickened(flair, lesions)


def thickened(flair: Volume, lesions: Volume, spacing: Sequence[float] = THICK) -> tuple[Volume, Volume]:
    """Return both on the thick slices of a clinical scan, the FLAIR with noise and a bias field.

    A voxel is the mean over its slice's thickness; in the plane it is interpolated. Zeros stay zeros.
    """
    flair, lesions = canonical(flair), canonical(lesions)
    step = np.asarray(spacing) / flair.spacing
    shape = np.floor(np.array(flair.data.shape) / step).astype(int)
    affine = flair.affine @ np.diag([*step, 1.0])

    def sliced(data: np.ndarray) -> np.ndarray:
        mean = ndimage.uniform_filter1d(data.astype(np.float32), round(step[2]), axis=2)
        return ndimage.affine_transform(mean, np.diag(step), output_shape=tuple(shape), order=1)

    share = sliced(flair.data > 0)
    values = sliced(flair.data) / np.maximum(share, 0.5)
    level = float(np.median(values[share > 0.9]))
    rng = np.random.default_rng(0)
    field = 1 + THICK_BIAS * np.linspace(-1, 1, shape[0])[:, None, None] * np.linspace(1, -1, shape[1])[None, :, None]
    noise = rng.normal(0, THICK_NOISE * level, (2, *shape)).astype(np.float32)
    values = np.hypot(values * field + noise[0], noise[1]) * (share > 0.5)
    return Volume(values.astype(np.float32), affine), Volume(sliced(lesions.data > 0), affine)


def make(data: Path, mni: Path, folder: Path) -> None:
    """Write every case to ``folder``, one file each; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    masks = {path.name.split("_")[0]: read_image(path) for path in sorted(mni.glob("*_lesions.nii.gz"))}
    for name, flair, lesions in sources(data, mni):
        path = folder / f"{name}.npz"
        if path.exists():
            continue
        from bids_app.image.chain import find_anatomy  # ANTs is not needed where all cases are there

        frame = Frame(flair.like(np.maximum(flair.data, 0)))
        with tempfile.TemporaryDirectory() as place:
            anatomy = find_anatomy(frame.grid, Path(place), seed=SEED, trust_header=True)
            case = case_of(name, anatomy, masks, None if lesions is None else frame.inward(lesions.data) > 0.5)
        write_case(case, folder)
        print(f"{name}\t{anatomy.fit.agreement:.3f}\t{anatomy.measures['brain_volume_ml']:.0f} ml", flush=True)


def case_of(name: str, anatomy: Anatomy, masks: Mapping[str, Volume], lesions: np.ndarray | None) -> Case:
    """Return what the chain found in a scan as a case, with the lesions of others carried to it."""
    fit, belief = anatomy.fit, anatomy.belief.native
    shapes = carried(fit.alignment.inverse, masks, belief.like(fit.tissues.mask))
    priors = (fit.priors.gm, fit.priors.wm, fit.priors.csf)
    return Case(name, belief.data, fit.tissues.mask, *priors, belief.affine, lesions, tuple(masks), shapes)


def carried(inverse: str, masks: Mapping[str, Volume], brain: Volume) -> np.ndarray:
    """Return other people's lesions on the voxels of a scan's brain, linear, in 255ths: (P, X, Y, Z) uint8.

    The transform costs most: three ramps are carried once, and every mask is read where they point to.
    """
    from bids_app.image.registration import to_template

    first = next(iter(masks.values()))
    box = ndimage.find_objects(brain.data.astype(np.uint8))[0]
    inside = part(brain, box)
    ramps = np.indices(first.data.shape).astype(np.float32) + 1  # 0 is where the template does not reach
    index = np.stack([to_template(inverse, first.like(ramp), inside)[inside.data] for ramp in ramps]) - 1
    world = np.asarray(TO_SCANS) @ (first.affine[:3, :3] @ index + first.affine[:3, 3:]) + np.array(OFFSET)[:, None]
    index = np.linalg.solve(first.affine[:3, :3], world - first.affine[:3, 3:])
    shapes = np.zeros((len(masks), *brain.data.shape), np.uint8)
    for shape, mask in zip(shapes, masks.values(), strict=True):
        found = ndimage.map_coordinates((mask.data > 0).astype(np.float32), index, order=1)
        shape[box][inside.data] = np.round(np.clip(found, 0, 1) * 255)
    return shapes


def write_case(case: Case, folder: Path) -> None:
    """Write a case as ``NAME.npz``, its maps in float16."""
    maps = {key: getattr(case, key).astype(np.float16) for key in MAPS}
    maps |= {} if case.lesions is None else {"lesions": case.lesions}
    rest = {"brain": case.brain, "affine": case.affine, "people": np.array(case.people), "shapes": case.shapes}
    np.savez_compressed(folder / f"{case.name}.npz", **(maps | rest))


def read_cases(folder: Path) -> list[Case]:
    """Return the cases that `make` wrote, in the order of their names."""
    cases = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            maps = {key: stored[key].astype(np.float32) for key in MAPS}
            people = tuple(str(who) for who in stored["people"])
            rest = {"brain": stored["brain"], "affine": stored["affine"], "shapes": stored["shapes"]}
            cases.append(Case(path.stem, **maps, **rest, lesions=stored.get("lesions"), people=people))
    return cases
