"""Random inputs for every reader: nothing but the app's own errors escapes. Failures once found stand below by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_app import options, parser
from bids_app.bids.names import parse_name
from bids_app.cohort import ratings
from bids_app.errors import BadInputError, BidsAppError, ScanError, UsageError
from bids_app.files import formats
from bids_app.image import intake, quality
from bids_app.image.geometry import canonical, centred, coarser, stored_like
from bids_app.model import forms, storage
from bids_app.records.scan import Volume

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60" if os.environ.get("LONG_TESTS") else "10"))  # of all targets
FIELDS = st.sampled_from([name for name in options.Options.__dataclass_fields__ if name not in ("bids_dir", "verbose")])


@pytest.mark.parametrize("name", sorted(fuzz.targets()))
def test_nothing_but_the_apps_own_errors_escapes(name: str) -> None:
    """Seeded; what was done within the time depends on the machine. See ``python -m tests.fuzz`` for longer runs."""
    number, refused, failures = fuzz.run(name, SECONDS / len(fuzz.targets()))
    assert not failures, f"input {failures[0].number}: {failures[0].error!r}"
    assert number > 0
    assert refused <= number


def test_the_loop_does_find_a_reader_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(folder: Path) -> int:
        return len((folder / "t.tsv").read_bytes().decode())  # raises on what is no UTF-8

    target = fuzz.Target(careless, {"t.tsv": b"a\tb\n1\t2\n"}, fuzz.mutated)
    monkeypatch.setattr(fuzz, "targets", lambda: {"careless": target})
    first, again = (fuzz.run("careless", 60, most=200)[2] for _ in range(2))
    assert first and {type(failure.error) for failure in first} == {UnicodeDecodeError}
    assert [failure.files for failure in first] == [failure.files for failure in again]  # equal seeds, equal inputs


def test_the_command_for_long_runs_says_what_it_did(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--seconds",
        "0.2",
        "--target",
        "filter",
        "--failures",
        str(tmp_path),
    ]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert (done.returncode, done.stdout[:7]) == (0, "filter:"), done.stderr
    assert not list(tmp_path.iterdir())


# -- Hypothesis: names, options, small volumes ---------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.text(max_size=40), st.from_regex(r"sub-[0-9a-z]{1,3}(_[a-z]{2,4}-[^_]{0,4}){0,3}_FLAIR\.nii(\.gz)?"))
)
def test_any_name_is_parsed_or_refused(name: str) -> None:
    try:
        entities, suffix, extension = parse_name(name)
    except BadInputError as error:
        assert "\n" not in str(error)
    else:
        assert "/" not in "".join([*entities.values(), suffix])
        assert name.endswith(suffix + extension)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(FIELDS, st.one_of(st.none(), st.text(max_size=12), st.integers().map(str))), max_size=5))
def test_any_options_are_read_or_refused(words: list[tuple[str, str | None]]) -> None:
    argv = ["raw", "out", "participant"]
    for name, value in words:
        argv += [f"--{name.replace('_', '-')}", *([] if value is None else [value])]
    try:
        read = parser.parse(argv)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(read, options.Options)


SHAPES = st.tuples(*(st.integers(8, 12),) * 3)
SIGNS = st.tuples(*(st.sampled_from([-1, 1]),) * 3)


@st.composite
def volumes(draw: Any) -> Volume:
    """Any order and direction of axes, any position, few voxels."""
    shape, order, signs = draw(SHAPES), draw(st.permutations(range(3))), draw(SIGNS)
    affine = np.zeros((4, 4))
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        affine[target, axis] = sign * draw(st.floats(12, 30))
    affine[:3, 3], affine[3, 3] = draw(st.tuples(*(st.floats(-5000, 5000),) * 3)), 1
    data = np.random.default_rng(draw(st.integers(0, 99))).random(shape, np.float32) * 900
    return Volume(data, affine)


@settings(max_examples=60, deadline=None)
@given(volumes())
def test_any_grid_goes_to_the_canonical_one_and_back(volume: Volume) -> None:
    seen = centred(canonical(volume))
    assert np.array_equal(np.sort(seen.data, axis=None), np.sort(volume.data, axis=None))
    assert (np.diag(seen.affine)[:3] > 0).all()
    assert np.array_equal(stored_like(seen.data, volume), volume.data)
    assert np.isfinite(coarser(seen, 20.0).data).all()
    again = centred(canonical(Volume(seen.data, seen.affine)))
    assert np.array_equal(again.data, seen.data)


VALUES = st.one_of(st.floats(width=32), st.sampled_from([0.0, -1.0, 1e38, 99.99, 1e-40]))


@settings(max_examples=100, deadline=None)
@given(volumes(), st.lists(st.tuples(st.integers(0, 511), VALUES), max_size=20), st.floats(-1e3, 1e3))
def test_any_voxels_are_taken_finite_or_refused(volume: Volume, spoilt: list[tuple[int, float]], scale: float) -> None:
    import damage

    data = volume.data * np.float32(scale)
    for place, value in spoilt:
        data.flat[place] = value
    image = damage.image_of(data, volume.affine)
    try:
        intake.check_header(image)
        taken, known, _ = intake.to_volume(image, np.asanyarray(image.dataobj))
    except ScanError as error:
        assert "\n" not in str(error)
    else:
        assert known
        assert np.isfinite(taken.data).all()
        assert (taken.data >= 0).all()


@given(st.floats(allow_nan=True), st.floats(0, 1))
def test_no_agreement_and_no_coverage_slip_through(agreement: float, coverage: float) -> None:
    good = agreement >= quality.LOST and coverage >= quality.SLAB
    try:
        quality.refuse_lost(agreement, coverage)
    except ScanError:
        assert not good
    else:
        assert good


# -- found by the loops above, kept ---------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "code\tscan\tread\nR1\tsub-01\tfirst\n\tsub-01\trepeat\n",  # a key without a code was compared with text
        "code\tscan\tread\nR1\tsub-01\tfirst\nR2\tsub-01\tfirst\n",  # one scan first twice: pandas could not reindex
        "code\tscan\tread\nR1\tsub-01\tfirst\nR1\tsub-01\trepeat\n",
        "code\tscan\tread\nR1\tsub-01\tfirst\nR2\tsub-01\tsecond\n",
        "code\tscan\tread\nR1\tsub-01\tfirst\nR2\tn/a\trepeat\n",
    ],
)
def test_a_rating_key_that_was_not_written_is_refused(tmp_path: Path, key: str) -> None:
    formats.write_text(tmp_path / "key.tsv", key)
    formats.write_text(tmp_path / "sheet.tsv", "code\tdecision\nR1\tRRMS\nR2\tNMOSD\n")
    with pytest.raises(BadInputError, match=r"key\.tsv.*that was written with the sheet"):
        ratings.read_sheets([tmp_path / "sheet.tsv"], tmp_path / "key.tsv", ("RRMS", "NMOSD"))


def test_the_model_of_the_loop_is_a_model(tmp_path: Path) -> None:
    """Else every harm to it would be refused for another reason."""
    for name, content in fuzz.model_files().items():
        formats.write_bytes(tmp_path / name, content)
    assert storage.load(tmp_path).purpose.levels == fuzz.LEVELS
    (tmp_path / "model.json").write_bytes(b"[]")
    with pytest.raises(BidsAppError):
        fuzz.read_model(tmp_path)


@pytest.mark.parametrize("kind", sorted(forms.ARRAYS))
def test_so_are_the_models_of_the_loop_that_are_calibrated(kind: str, tmp_path: Path) -> None:
    model = fuzz.calibrated_models()[kind]
    for name, content in fuzz.calibrated_files(model).items():
        formats.write_bytes(tmp_path / name, content)
    found = fuzz.read_model(tmp_path)
    assert type(found.model) is type(model)  # type: ignore[attr-defined]
