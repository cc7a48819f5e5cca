"""A stored model decides as the one that was saved, and nothing else is ever loaded."""

from __future__ import annotations

import copy
import io
import json
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rbf import fit
from sklearn.svm import SVC

from bids_app.errors import BadInputError, MissingInputError
from bids_app.files import arrays as npz
from bids_app.files import formats
from bids_app.image.atlas import brain_grid
from bids_app.learning import classifier
from bids_app.model import storage
from bids_app.records.cohort import Model, Threshold
from bids_app.records.recommended import Purpose
from bids_app.records.results import StoredModel

V = int(brain_grid(3).data.sum())
VOXELS = np.random.default_rng(9).permutation(V)[:13]
C, GAMMA = 2.0, 0.25


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = np.arange(60) % 3 > 0
    lesions = np.zeros((60, V), bool)
    lesions[:, VOXELS] = rng.random((60, len(VOXELS))) < np.where(positive, 0.5, 0.2)[:, None]
    return lesions, positive


def save(folder: Path, **more: object) -> tuple[Model, StoredModel]:
    lesions, positive = data()
    model = fit(lesions, positive, VOXELS, C=C, gamma=GAMMA)
    settings: dict = {
        "purpose": Purpose(("RRMS", "NMOSD"), Threshold(0.3306, "training", 0.0261, 0.1199, 60), "published"),
        "protocol": "leakage-free",
        "training": {"n_scans": 60, "lesion_volume_ml_range": np.array([0.0, np.nan])},
        "train_lesions": lesions[:, VOXELS],
    }
    return model, storage.save(model, folder, **{**settings, **more})


def hand_parsed(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the decision function of a LIBSVM text file for features 1 to n, read by its documentation."""
    head, _, body = path.read_text().partition("\nSV\n")
    words = {line.split()[0]: line.split()[1:] for line in head.splitlines()}
    assert words["svm_type"] == ["c_svc"] and words["kernel_type"] == ["rbf"] and words["label"] == ["1", "-1"]
    rows = [line.split() for line in body.splitlines()]
    coef = np.array([float(row[0]) for row in rows])
    support = np.zeros((len(rows), len(VOXELS)))
    for i, row in enumerate(rows):
        for item in row[1:]:
            index, value = item.split(":")
            support[i, int(index) - 1] = float(value)
    first, second = map(int, words["nr_sv"])
    assert len(rows) == int(words["total_sv"][0]) == first + second
    assert (coef[:first] > 0).all() and (coef[first:] < 0).all()
    gamma, rho = float(words["gamma"][0]), float(words["rho"][0])

    def decide(x: np.ndarray) -> np.ndarray:
        squared = ((x[:, None, :] - support[None]) ** 2).sum(axis=2)
        return np.exp(-gamma * squared) @ coef - rho

    return decide


def test_the_loaded_model_decides_as_the_saved_one_sklearn_and_libsvm_text(tmp_path: Path) -> None:
    lesions, positive = data()
    svc = SVC(C=C, gamma=GAMMA).fit(lesions[:, VOXELS].astype(float), positive)
    support = svc.support_vectors_.astype(bool)
    own = Model(VOXELS, support, svc.dual_coef_[0], float(svc.intercept_[0]), C, GAMMA)
    storage.save(
        own,
        tmp_path,
        purpose=Purpose(("RRMS", "NMOSD"), Threshold(0.32, "given"), "cleaned"),
        protocol="published",
        training={},
        train_lesions=lesions[:, VOXELS],
    )
    stored = storage.load(tmp_path)
    new = np.zeros((40, V), bool)
    new[:, VOXELS] = np.random.default_rng(4).random((40, len(VOXELS))) < 0.4
    for maps in (lesions, new):
        chosen = maps[:, VOXELS].astype(float)
        decisions = classifier.decide(stored.model, maps)
        for other in (
            classifier.decide(own, maps),
            svc.decision_function(chosen),
            hand_parsed(tmp_path / "model.libsvm")(chosen),
        ):
            np.testing.assert_allclose(decisions, other, rtol=0, atol=1e-9)


def test_all_that_was_saved_is_loaded(tmp_path: Path) -> None:
    lesions, _ = data()
    model, saved = save(tmp_path)
    stored = storage.load(tmp_path)
    for name in ("voxels", "support", "dual_coef"):
        np.testing.assert_array_equal(getattr(stored.model, name), getattr(model, name))
    assert (stored.model.C, stored.model.gamma, stored.model.intercept) == (C, GAMMA, model.intercept)
    assert stored.purpose.threshold == Threshold(0.3306, "training", 0.0261, 0.1199, 60)
    assert (stored.purpose.levels, stored.purpose.lesion_map, stored.protocol) == (
        ("RRMS", "NMOSD"),
        "published",
        "leakage-free",
    )
    assert stored.digest == saved.digest
    np.testing.assert_array_equal(stored.patterns, np.unique(lesions[:, VOXELS], axis=0))


def test_what_is_known_of_the_training_scans(tmp_path: Path) -> None:
    lesions, _ = data()
    model, stored = save(tmp_path)
    decisions = classifier.decide(model, lesions)
    chosen = lesions[:, VOXELS]
    distances = [(chosen[i] != np.delete(chosen, i, axis=0)).sum(axis=1).min() for i in range(len(chosen))]
    assert stored.training["n_scans"] == 60
    assert stored.training["decision_range"] == pytest.approx([decisions.min(), decisions.max()], abs=1e-12)
    assert stored.training["nearest_distance_max"] == max(distances)
    assert stored.training["nearest_distance_quantiles"] == list(np.quantile(distances, storage.QUANTILES))
    np.testing.assert_array_equal(storage.nearest(chosen, stored.patterns), 0)
    one = storage.nearest(~chosen[:1], stored.patterns)
    assert one[0] == (~chosen[:1] != chosen).sum(axis=1).min()
    with pytest.raises(BadInputError, match="training maps are"):
        save(tmp_path, train_lesions=lesions)


def test_equal_models_are_equal_bytes_and_the_mask_shows_the_voxels(tmp_path: Path) -> None:
    _, first = save(tmp_path / "a")
    _, second = save(tmp_path / "b")
    assert first.digest == second.digest
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(["model.json", storage.ARRAYS, "model.libsvm", storage.MASK])
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    image = nib.load(tmp_path / "a" / storage.MASK)
    inside = np.asarray(image.dataobj)[brain_grid(3).data]
    assert np.flatnonzero(inside).tolist() == sorted(VOXELS.tolist())
    _, other = save(tmp_path / "c", protocol="published")
    assert other.digest != first.digest


def test_arrays_survive_and_numpy_itself_reads_them(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.zeros((0, 4), np.uint8),
        "c": np.array([np.pi]),
        "d": np.array(True),
    }
    formats.write_bytes(tmp_path / "a.npz", npz.pack(arrays))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as others:
        for loaded in (npz.unpack(tmp_path / "a.npz"), others):
            assert list(loaded) == list(arrays)
            for name, array in arrays.items():
                np.testing.assert_array_equal(loaded[name], array)
                assert loaded[name].dtype == array.dtype


def test_equal_arrays_are_equal_bytes_at_any_time_and_in_any_order_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(12).reshape(3, 4)
    first = npz.pack({"a": array})
    for now in (0, 2e9):  # 1970, before any date that a zip can hold, and 2033
        monkeypatch.setattr(time, "time", lambda now=now: now)
        monkeypatch.setattr(time, "localtime", lambda *_, now=now: time.gmtime(now))
        assert npz.pack({"a": np.asfortranarray(array)}) == first
    assert npz.pack({"a": array + 1}) != first


def change(folder: Path, *keys: str, to: object) -> None:
    """Change one field of model.json."""
    content = json.loads((folder / "model.json").read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    (folder / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format_version",), 3, "format_version is 3, this version reads 2; train the model again with this version"),
        (("format_version",), "2", "format_version is 2, this version reads 2"),
        (("bids_app",), "9.1.0", r"made by bids_app 9\.1\.0"),
        (("threshold_rule",), "belief >= threshold", "threshold_rule"),
        (("grid", "shape"), [91, 109, 91], r"another grid \(shape\)"),
        (("grid", "brain_sha256"), "0", r"another grid \(brain_sha256\)"),
        (("grid", "brain_voxels"), 10, r"another grid \(brain_voxels\)"),
        (("gamma",), 0.5, r"arrays\.npz: disagrees"),
        (("C",), 1.0, r"arrays\.npz: disagrees"),
        (("intercept",), 0.0, r"arrays\.npz: disagrees"),
        (("n_support",), 1, r"arrays\.npz: disagrees"),
        (("voxels",), sorted(VOXELS.tolist()), r"arrays\.npz: disagrees"),
        (("voxels",), [*VOXELS.tolist()[:-1], 0], "selected_mask.*disagrees with the voxels"),
        (("voxels",), [*VOXELS.tolist()[:-1], V], "voxels must be whole numbers"),
        (("voxels",), [*VOXELS.tolist()[:-1], int(VOXELS[0])], "different ones"),
        (("voxels",), "all", "voxels must be|wrong kind"),
        (("voxels",), [[1], 2], "wrong kind"),
        (("levels", "positive"), "NMOSD", r"changed after it was written \(digest\)"),
        (("threshold", "value"), 0.1, r"changed after it was written \(digest\)"),
        (("training", "decision_range"), [-9, 9], r"changed after it was written \(digest\)"),
        (("sha256",), {}, r"changed after it was written \(digest\)"),
        (("sha256", "../model.json"), "0", r"changed after it was written \(SHA-256\)"),
        (("threshold",), None, "digest|wrong kind"),
        (("grid",), None, "wrong kind"),
    ],
)
def test_a_changed_json_is_refused_by_name(tmp_path: Path, keys: tuple[str, ...], value: object, message: str) -> None:
    save(tmp_path)
    change(tmp_path, *keys, to=value)
    with pytest.raises(BadInputError, match=message):
        storage.load(tmp_path)


def test_a_model_of_the_format_before_is_refused_in_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / storage.ARRAYS).rename(tmp_path / "model.skops")
    change(tmp_path, "format_version", to=1)
    with pytest.raises(BadInputError) as refused:
        storage.load(tmp_path)
    says = "format_version is 1, this version reads 2; run the group level again: it makes the model anew"
    assert str(refused.value) == f"{tmp_path / 'model.json'}: {says}"


@pytest.mark.parametrize("name", ["model.json", storage.ARRAYS, storage.MASK, "model.libsvm"])
def test_truncated_changed_and_missing_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:-3], b"", whole[:20] + bytes([whole[20] ^ 0xFF]) + whole[21:]):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(BadInputError, match=name.replace(".", r"\.")):
            storage.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(MissingInputError, match=name.replace(".", r"\.")):
        storage.load(tmp_path)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def lying_array() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    return stream.getvalue() + bytes(64)


def written(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def lying_directory(good: bytes) -> bytes:
    """Every member listed twice over the same bytes, under other names: it unpacks to more than it holds."""
    source = zipfile.ZipFile(io.BytesIO(good))
    target = io.BytesIO(good)
    with zipfile.ZipFile(target, "a") as archive:
        for entry in source.infolist():
            other = copy.copy(entry)
            other.filename = entry.filename.replace(".npy", "_again.npy")
            archive.filelist += [other] * 20
        archive._didModify = True  # type: ignore[attr-defined]
    return target.getvalue()


def foreign_files() -> dict[str, tuple[bytes, str]]:
    """Return files of arrays that must not be loaded, and what their refusal says."""
    whole = npz.pack({"voxels": np.arange(300)})
    good = members_of(whole)
    voxels = good["voxels.npy"]
    objects, saved = io.BytesIO(), io.BytesIO()
    np.savez(objects, voxels=np.array([{}], object))
    np.save(saved, np.arange(3))
    lies = {"voxels.npy": lying_array()}
    packed = [(kind, zipfile.__dict__[f"ZIP_{kind}"]) for kind in ("DEFLATED", "BZIP2", "LZMA")]
    return {
        "object array": (objects.getvalue(), r"voxels\.npy holds object, no numbers"),
        "text": (zipped({"voxels.npy": written(np.array(["a"]))}), "holds <U1, no numbers"),
        "records": (zipped({"voxels.npy": written(np.zeros(2, "i4,f8"))}), r"holds \[.*no numbers"),
        "dates": (zipped({"voxels.npy": written(np.zeros(2, "M8[s]"))}), "holds datetime64.*no numbers"),
        "other arrays": (whole, "arrays are voxels, not"),
        **{
            f"bomb, {kind}": (zipped({"voxels.npy": bytes(10**7)}, way), "holds packed members") for kind, way in packed
        },
        "lie": (zipped(lies), r"voxels\.npy claims"),
        "lying directory": (lying_directory(whole), "claims more than it holds"),
        "a member that is no array": (zipped({**good, "schema.json": b"{}"}), r"no array \('schema\.json'\)"),
        "a path": (zipped({"../voxels.npy": voxels}), "no array"),
        "one name twice": (zipped_twice(voxels), "two members of one name"),
        "longer than its claim": (zipped({"voxels.npy": voxels + b"0"}), r"voxels\.npy claims"),
        "another version": (zipped({"voxels.npy": voxels.replace(b"NUMPY\1", b"NUMPY\2")}), r"version \(2, 0\)"),
        "no magic": (zipped({"voxels.npy": b"voxels"}), "not a readable npz file"),
        "code for a header": (zipped({"voxels.npy": voxels.replace(b"False", b"exit")}), "not a readable npz file"),
        "one array": (saved.getvalue(), "not a readable npz file"),
        "no arrays": (zipped({}), "arrays are , not"),
        "pickle": (b"\x80\x04cposix\nsystem\n.", "not a readable npz file"),
    }


def zipped_twice(member: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("voxels.npy", member)
        archive.writestr("voxels.npy", member)
    return target.getvalue()


@pytest.mark.parametrize("case", foreign_files())
def test_foreign_types_bombs_and_lies_are_refused(tmp_path: Path, case: str) -> None:
    save(tmp_path)
    content, message = foreign_files()[case]
    (tmp_path / storage.ARRAYS).write_bytes(content)
    with pytest.raises(BadInputError, match=rf"arrays\.npz.*{message}"):
        storage.load(tmp_path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MOST_BYTES", 2000)
    formats.write_bytes(tmp_path / "a.npz", npz.pack({"a": np.zeros(250)}))
    with pytest.raises(BadInputError, match="larger than any model"):
        npz.unpack(tmp_path / "a.npz")


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / storage.ARRAYS
    arrays = npz.unpack(path)
    for changed in (
        {"support": arrays["support"][1:]},
        {"patterns": arrays["patterns"][:, :1]},
        {"dual_coef": arrays["dual_coef"].astype(np.float32)},
        {"dual_coef": arrays["dual_coef"] * np.nan},
        {"voxels": arrays["voxels"][1:]},
        {"parameters": arrays["parameters"][:2]},
    ):
        path.write_bytes(npz.pack({**arrays, **changed}))
        with pytest.raises(BadInputError, match=r"arrays\.npz"):
            storage.load(tmp_path)
