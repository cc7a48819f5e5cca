"""Squared distances between scans on nested sets of voxels, and RBF kernels from them.

Lesion maps are binary, so the squared Euclidean distance of two scans is the number of voxels in which
they differ (their Hamming distance), an integer, and the RBF kernel exp(-gamma d) is a table of integers d.
The voxel sets of a sweep are nested: the first n of one ranking. So the distances on n voxels are those on
the previous set plus the differences in the voxels added since, and the whole sweep reads each voxel once.

Maps are kept as bits, 64 a word, in two layouts:

- by voxel, (V, ceil(N / 64)): bit i of a row is scan i. Counting lesions in a group of scans, which the
  ranking needs in every fold, is a population count under the group's bit mask.
- by scan, (N, ceil(n / 64)): bit r of a row is the voxel of rank r. Two scans differ in
  popcount(x xor y) voxels.

Only the sweep imports this module, since numba takes a moment to load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WORD = 64
ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
WORD_TILE = 16  # words of all scans compared at a time, which stay in the cache: 128 KiB for 1,000 scans

_compile = njit(cache=True, nogil=True, error_model="numpy")


def _generate_popcount(typing_context: Any, word: Any) -> Any:
    """Count the ones of a 64-bit word by the processor's own instruction (numba has no name for it)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_popcount: Any = intrinsic(_generate_popcount)


def pack_by_voxel(lesions: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Pack lesion maps (N, V), bool, or some rows of them, to words by voxel (V, ceil(N / 64)), uint64."""
    rows, n_voxels = np.arange(len(lesions)) if rows is None else rows, lesions.shape[1]
    by_voxel = np.zeros((n_voxels, -(-len(rows) // WORD) * 8), np.uint8)
    for first in range(0, len(rows), 8):  # eight scans fill a byte: three times as fast as np.packbits
        byte = np.zeros(n_voxels, np.uint8)
        for bit, row in enumerate(rows[first : first + 8]):
            byte |= lesions[row].view(np.uint8) << np.uint8(bit)
        by_voxel[:, first // 8] = byte
    return by_voxel.view("<u8")


def row_mask(rows: np.ndarray, n_scans: int) -> np.ndarray:
    """Return the words (ceil(N / 64),) whose bits are set at these rows."""
    member = np.zeros(-(-n_scans // WORD) * WORD, bool)
    member[rows] = True
    return np.packbits(member, bitorder="little").view("<u8")


@_compile
def lesion_counts(by_voxel: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Count, at every voxel, the scans of the mask with a lesion: (V, W) and (W,) words to (V,) int64."""
    counts = np.empty(by_voxel.shape[0], np.int64)
    for v in range(by_voxel.shape[0]):
        total = np.uint64(0)
        for w in range(mask.shape[0]):
            total += _popcount(by_voxel[v, w] & mask[w])
        counts[v] = np.int64(total)
    return counts


@_compile
def _transpose_bits(block: np.ndarray) -> None:
    """Transpose a 64 x 64 matrix of bits in place (Warren, Hacker's Delight, section 7-3).

    Swap the off-diagonal quarters, then those of each quarter, and so on: six rounds of 32 swaps.
    """
    half = 32
    mask = np.uint64(0x00000000FFFFFFFF)
    while half:
        shift = np.uint64(half)
        row = 0
        while row < 64:
            swap = ((block[row] >> shift) ^ block[row + half]) & mask
            block[row] ^= swap << shift
            block[row + half] ^= swap
            row = (row + half + 1) & ~half
        half >>= 1
        mask ^= mask << np.uint64(half)


@_compile
def pack_by_scan(by_voxel: np.ndarray, order: np.ndarray, n_scans: int) -> np.ndarray:
    """Reorder words by voxel (V, W) into words by scan (N, ceil(n / 64)) of the n voxels in ``order``."""
    n_voxels, n_words = len(order), by_voxel.shape[1]
    by_scan = np.zeros((n_words * WORD, (n_voxels + WORD - 1) // WORD), np.uint64)
    block = np.empty(WORD, np.uint64)
    for column in range(by_scan.shape[1]):
        for w in range(n_words):
            for k in range(WORD):
                rank = column * WORD + k
                block[k] = by_voxel[order[rank], w] if rank < n_voxels else np.uint64(0)
            _transpose_bits(block)
            for k in range(WORD):
                by_scan[w * WORD + k, column] = block[k]
    return by_scan[:n_scans]


@_compile
def _add_differences(distances: np.ndarray, by_word: np.ndarray, keep: np.uint64) -> None:
    """Add, for every pair i > j, popcount((x_i xor x_j) and keep) over some words; word by word (n, N)."""
    for i in range(1, len(distances)):
        row = distances[i]
        for w in range(len(by_word)):
            words = by_word[w]
            x = words[i]
            for j in range(i):  # many scans a word rather than many words a scan: that compiles to vector instructions
                row[j] += np.int32(_popcount((words[j] ^ x) & keep))


def _add_words(distances: np.ndarray, by_scan: np.ndarray, first: int, last: int, keep: np.uint64) -> None:
    for start in range(first, last, WORD_TILE):
        part = by_scan[:, start : min(start + WORD_TILE, last)]
        _add_differences(distances, np.ascontiguousarray(part.T), keep)


def nested_distances(by_scan: np.ndarray, counts: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (n, squared distances of all scans on the n top-ranked voxels) for ascending counts n.

    Parameters
    ----------
    by_scan : ndarray of uint64, shape (N, W)
        Words by scan, voxels in ranked order.
    counts : sequence of int
        Strictly ascending, the last at most 64 W.

    Yields
    ------
    n : int
    distances : ndarray of int32, shape (N, N)
        Lower triangle; zero on and above the diagonal. The same array each time, so copy what is to stay.

    Examples
    --------
    >>> lesions = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0]], bool)
    >>> by_scan = pack_by_scan(pack_by_voxel(lesions), np.arange(3), 3)
    >>> [(n, d[1, 0].item(), d[2, 1].item()) for n, d in nested_distances(by_scan, [1, 3])]
    [(1, 1, 0), (3, 1, 2)]
    """
    distances = np.zeros((len(by_scan), len(by_scan)), np.int32)
    done = 0
    for n in counts:
        while done < n:
            word, bit = divmod(done, WORD)
            if bit or n - done < WORD:  # a part of one word: from its bit on, up to n or the word's end
                stop = min(n, (word + 1) * WORD)
                keep = np.uint64((1 << (stop - word * WORD)) - (1 << bit))
                _add_words(distances, by_scan, word, word + 1, keep)
                done = stop
            else:
                _add_words(distances, by_scan, word, n // WORD, ALL_BITS)
                done = n // WORD * WORD
        yield n, distances


class Variables(NamedTuple):
    """Scans merged by pattern and label: U variables.

    ``of_scan`` (N,) is the variable of each scan, -1 if the scan takes no part; ``sign`` (U,) +-1;
    ``opposite`` (U,) the variable with the same pattern and the other label, or -1; ``distances`` (U, U)
    int32, symmetric; ``least`` the smallest of them above 0, ``largest`` the largest.
    """

    of_scan: np.ndarray
    sign: np.ndarray
    opposite: np.ndarray
    distances: np.ndarray
    least: int
    largest: int

    def sum(self, weights: np.ndarray) -> np.ndarray:
        """Sum weights of scans (folds, N) by variable: (folds, U)."""
        taken = self.of_scan >= 0
        return np.stack([np.bincount(self.of_scan[taken], fold[taken], len(self.sign)) for fold in weights])


@_compile
def _merge(
    distances: np.ndarray, positive: np.ndarray, active: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give each active scan a variable; return (of_scan, first scan of each variable, opposite)."""
    n_scans = len(distances)
    of_scan = np.full(n_scans, -1, np.int64)
    first = np.empty(n_scans, np.int64)
    opposite = np.full(n_scans, -1, np.int64)
    n = 0
    for i in range(n_scans):
        if not active[i]:
            continue
        other = -1
        for v in range(n):
            if distances[i, first[v]] == 0:
                if positive[first[v]] == positive[i]:
                    of_scan[i] = v
                    break
                other = v
        if of_scan[i] < 0:
            of_scan[i], first[n] = n, i
            if other >= 0:
                opposite[n], opposite[other] = other, n
            n += 1
    return of_scan, first[:n], opposite[:n]


@_compile
def _between(distances: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the full distances between variables, and the smallest above 0 (2^31 - 1 if there is none)."""
    n = len(first)
    between = np.zeros((n, n), np.int32)
    least = 2**31 - 1
    for a in range(n):
        row = distances[first[a]]
        for b in range(a):
            d = row[first[b]]
            between[a, b], between[b, a] = d, d
            if d > 0:
                least = min(least, d)
    return between, least


def merge_scans(distances: np.ndarray, positive: np.ndarray, active: np.ndarray) -> Variables:
    """Merge scans of equal pattern (distance 0) and label into one variable each.

    Parameters
    ----------
    distances : ndarray of int32, shape (N, N)
        Squared distances, lower triangle.
    positive, active : ndarray of bool, shape (N,)
        Label of each scan, and whether it takes part at all.
    """
    of_scan, first, opposite = _merge(distances, positive, active)
    between, least = _between(distances, first)
    sign = np.where(positive[first], 1.0, -1.0)
    return Variables(of_scan, sign, opposite, between, int(least), int(between.max()))


def rbf_table(variables: Variables, gamma: float) -> np.ndarray:
    """Return exp(-gamma d) for every distance d from 0 to the largest, float32: an error of 6e-8, half the memory."""
    return np.exp(-gamma * np.arange(variables.largest + 1)).astype(np.float32)


@_compile
def fill_kernel(distances: np.ndarray, rbf: np.ndarray, kernel: np.ndarray) -> None:
    """Write kernel = rbf[distances]; both (U, U)."""
    for a in range(len(distances)):
        row, kernel_row = distances[a], kernel[a]
        for b in range(len(row)):
            kernel_row[b] = rbf[row[b]]


@_compile
def _count_near(distances: np.ndarray, reach: int) -> int:
    found = 0
    for a in range(len(distances)):
        row = distances[a]
        here = np.int32(0)  # as narrow as the distances, so that the loop vectorises
        for b in range(a):
            here += np.int32(row[b] <= reach)
        found += int(here)
    return found


@_compile
def _list_near(distances: np.ndarray, reach: int, pairs: np.ndarray) -> None:
    found = 0
    for a in range(len(distances)):
        for b in range(a):
            if distances[a, b] <= reach:
                pairs[found] = a, b
                found += 1


def near_pairs(distances: np.ndarray, reach: int, most: int) -> np.ndarray | None:
    """Return the pairs (P, 2) of variables at a distance of at most ``reach``; None where they exceed ``most``."""
    found = _count_near(distances, reach)
    if found > most:
        return None
    pairs = np.empty((found, 2), np.int64)
    _list_near(distances, reach, pairs)
    return pairs
