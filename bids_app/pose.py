"""Where the head lies: an exhaustive search over rotations and, by fast Fourier transform, all translations.

Gradient descent from the header alone fails on tilted heads and wrong headers. At 8 mm the normalised
cross-correlation (Lewis, "Fast normalized cross-correlation", 1995) of scan and synthetic head at every shift
costs milliseconds a rotation, so we try them all. The head is left-right symmetric at this scale: a mirrored
header cannot be told from a right one.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import fft
from scipy.spatial.transform import Rotation

from bids_app.geometry import coarser, sample
from bids_app.records import Pose, Volume

SPACING = 8.0  # mm
SCALE = 0.9  # brains are about 1.4 times smaller in volume than the template
CUBE = 40  # samples along each side of the rotated scan: 320 mm
TILTS = (-25, 0, 25)  # degrees about each axis
OVERRULE = 0.02  # the header's orientation is overruled only by a correlation larger by this


def find_pose(scan: Volume, head: Volume, *, trust_header: bool = True) -> Pose:
    """Return the pose of the head in ``scan`` that agrees best with the template's ``head``.

    Parameters
    ----------
    scan, head : Volume
        FLAIR with skull, and synthetic FLAIR head.
    trust_header : bool
        False where the header holds no orientation: then the 24 right-angled turns start equal.
    """
    matcher = _Matcher(coarser(scan, SPACING), coarser(head, SPACING))
    tilts = [Rotation.from_euler("xyz", angles, degrees=True) for angles in product(TILTS, repeat=3)]
    upright = max((matcher(tilt) for tilt in tilts), key=lambda pose: pose.similarity)
    cube = [(turn, matcher(turn)) for turn in Rotation.create_group("O")]
    turn, coarse = max(cube, key=lambda pair: pair[1].similarity)
    if turn.magnitude() < 1e-6 or coarse.similarity < upright.similarity - 2 * OVERRULE:
        return upright
    turned = max((matcher(turn * tilt) for tilt in tilts), key=lambda pose: pose.similarity)
    if turned.similarity < upright.similarity + (OVERRULE if trust_header else 0.0):
        return upright
    return Pose(turned.matrix, turned.translation, turned.similarity, turned=True)


class _Matcher:
    """Correlation of one scan with one head for any rotation, best translation found by FFT."""

    def __init__(self, scan: Volume, head: Volume) -> None:
        self.scan, self.head = scan, head
        self.size = head.data.size
        self.shape = [fft.next_fast_len(CUBE + n - 1, real=True) for n in head.data.shape]
        centred = head.data - head.data.mean()
        self.norm = float(np.sqrt((centred**2).sum()))
        self.template = np.conj(fft.rfftn(centred, self.shape))
        self.window = np.conj(fft.rfftn(np.ones_like(head.data), self.shape))
        self.axis = (np.arange(CUBE) - (CUBE - 1) / 2) * SPACING
        self.cube = np.stack(np.meshgrid(self.axis, self.axis, self.axis, indexing="ij"), axis=-1)
        middle = (np.array(scan.data.shape) - 1) / 2
        self.centre = scan.affine[:3, :3] @ middle + scan.affine[:3, 3]

    def __call__(self, rotation: Rotation) -> Pose:
        matrix = SCALE * rotation.as_matrix()
        moved = sample(self.scan, self.cube @ matrix.T + self.centre)
        spectrum = fft.rfftn(moved, self.shape)
        product_sum = fft.irfftn(spectrum * self.template, self.shape)
        total = fft.irfftn(spectrum * self.window, self.shape)
        squares = fft.irfftn(fft.rfftn(moved**2, self.shape) * self.window, self.shape)
        energy = np.maximum(squares - total**2 / self.size, 1e-3 * max(float(squares.max()), 1e-12))
        score = product_sum / (self.norm * np.sqrt(energy))
        best = np.unravel_index(int(score.argmax()), score.shape)
        shift = np.array([b if b < CUBE else b - n for b, n in zip(best, self.shape, strict=True)])
        # head voxel p, at world h0 + 8 p, meets the cube's sample p + shift, at axis[0] + 8 (p + shift)
        offset = self.axis[0] + SPACING * shift - self.head.affine[:3, 3]
        return Pose(matrix, matrix @ offset + self.centre, float(score[best]), turned=False)
