"""Names round-trip, outputs of scans never collide, and the scans asked for are the scans found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bidsschematools.schema import load_schema
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_app.bids import dataset
from bids_app.bids.names import (
    GIVEN,
    GROUP_OUTPUTS,
    ORDER,
    OUTPUTS,
    PREDICTED,
    SET_OUTPUTS,
    Scan,
    build_name,
    parse_name,
)
from bids_app.bids.query import find_scans, read_filters
from bids_app.errors import BadInputError, MissingInputError, NothingSelectedError
from bids_app.model import storage

LABELS = st.text("0123456789abcXYZ", min_size=1, max_size=6)
SUFFIXES = st.sampled_from(["FLAIR", "mask", "dseg", "probseg", "xfm"])
EXTENSIONS = st.sampled_from([".nii.gz", ".nii", ".json", ".h5"])
ENTITIES = st.builds(
    lambda sub, rest: {"sub": sub, **rest}, LABELS, st.dictionaries(st.sampled_from(ORDER[1:]), LABELS, max_size=6)
)
OF_A_SCAN = ("ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk")  # none that an output adds
SCANS = st.builds(
    lambda sub, rest: Scan(tuple((k, {"sub": sub, **rest}[k]) for k in ORDER if k in {"sub", *rest}), "x"),
    LABELS,
    st.dictionaries(st.sampled_from(OF_A_SCAN), LABELS, max_size=5),
)


def make_tree(root: Path, *paths: str) -> Path:
    """Empty files: pybids reads names only."""
    root.mkdir(exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "names", "BIDSVersion": "1.10.0"}))
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(
        tmp_path_factory.mktemp("tree") / "raw",
        "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-3D_run-1_FLAIR.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-3D_run-2_FLAIR.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-2D_FLAIR.nii",
        "sub-03/ses-1/anat/sub-03_ses-1_T1w.nii.gz",
        "sub-010/anat/sub-010_FLAIR.nii.gz",
        "derivatives/other/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_FLAIR.nii.gz",
        "sourcedata/sub-09/anat/sub-09_FLAIR.nii.gz",
    )


ALL = [
    "sub-010",
    "sub-01_ses-1",
    "sub-01_ses-2",
    "sub-02_ses-1_acq-2D",
    "sub-02_ses-1_acq-3D_run-1",
    "sub-02_ses-1_acq-3D_run-2",
]


# -- names ---------------------------------------------------------------------------------------


@given(ENTITIES, SUFFIXES, EXTENSIONS)
def test_names_round_trip(entities: dict[str, str], suffix: str, extension: str) -> None:
    name = build_name(entities, suffix, extension)
    assert parse_name(name) == (entities, suffix, extension)
    back, *rest = parse_name(name)
    assert build_name(back, *rest) == name
    assert list(back) == sorted(back, key=ORDER.index)


@given(SCANS)
def test_every_output_has_its_own_name_and_keeps_the_entities(scan: Scan) -> None:
    names = {key: scan.output(key) for key in OUTPUTS}
    assert len(set(names.values())) == len(OUTPUTS)
    assert len({name.split(".")[0] for name in names.values()}) == len(OUTPUTS)  # so sidecars do not collide
    for key, path in names.items():
        folder, name = path.rsplit("/", 1)
        entities, suffix, extension = parse_name(name)
        assert folder == scan.folder
        assert dict(scan.entities).items() <= entities.items()
        assert (suffix, extension) == (OUTPUTS[key].suffix, OUTPUTS[key].extension)


def test_names_are_those_users_rely_on() -> None:
    scan = Scan((("sub", "X"), ("ses", "Y"), ("run", "2")), "x")
    names = {key: scan.output(key).removeprefix("sub-X/ses-Y/anat/sub-X_ses-Y_run-2_") for key in OUTPUTS}
    mni = "space-MNI152NLin2009aSym_res-3"
    assert names == {
        "preproc": "desc-preproc_FLAIR.nii.gz",
        "brain": "desc-brain_mask.nii.gz",
        "dseg": "dseg.nii.gz",
        "gm": "label-GM_probseg.nii.gz",
        "wm": "label-WM_probseg.nii.gz",
        "csf": "label-CSF_probseg.nii.gz",
        "belief": "desc-belief_FLAIR.nii.gz",
        "lesion": "label-L_mask.nii.gz",
        "normative": "label-L_desc-normative_mask.nii.gz",
        "network": "label-L_desc-network_mask.nii.gz",
        "probability": "label-L_probseg.nii.gz",
        "cleaned": "label-L_desc-cleaned_mask.nii.gz",
        "belief_mni": f"{mni}_desc-belief_FLAIR.nii.gz",
        "lesion_mni": f"{mni}_label-L_mask.nii.gz",
        "normative_mni": f"{mni}_label-L_desc-normative_mask.nii.gz",
        "network_mni": f"{mni}_label-L_desc-network_mask.nii.gz",
        "probability_mni": f"{mni}_label-L_probseg.nii.gz",
        "cleaned_mni": f"{mni}_label-L_desc-cleaned_mask.nii.gz",
        "forward": "from-FLAIR_to-MNI152NLin2009aSym_mode-image_xfm.h5",
        "inverse": "from-MNI152NLin2009aSym_to-FLAIR_mode-image_xfm.h5",
    }
    added = {key: scan.output(key).removeprefix("sub-X/ses-Y/anat/sub-X_ses-Y_run-2_") for key in (*GIVEN, *PREDICTED)}
    assert added == {
        "external": "label-L_desc-external_mask.nii.gz",
        "external_mni": f"{mni}_label-L_desc-external_mask.nii.gz",
        "contribution": f"{mni}_stat-contribution_statmap.nii.gz",
    }
    assert scan.figure("belief") == "sub-X/figures/sub-X_ses-Y_run-2_desc-belief_FLAIR.png"


def test_names_of_files_of_no_single_scan_are_those_users_rely_on() -> None:
    assert {key: row.path for key, row in SET_OUTPUTS.items()} == {
        "index": "index.html",
        "report": "{participant}.html",
        "table": "participants_lesions.tsv",
        "predictions": "phenotype/bids_app_predictions.tsv",
        "method": "logs/CITATION.md",
        "references": "logs/CITATION.bib",
    }
    template = "tpl-MNI152NLin2009aSym/anat/tpl-MNI152NLin2009aSym_res-3"
    assert {key: row.path for key, row in GROUP_OUTPUTS.items()} == {
        "report": "group.html",
        "metrics": "group/metrics.json",
        "table": "group/{name}.tsv",
        "division": "group/division.tsv",
        "model": "group/model/{evaluation}",
        "cache": "group/cache",
        "checklist": "group/checklist.html",
        "checklist_table": "group/checklist.tsv",
        "model_card": "group/model_card.md",
        "figure": "group/figures/{name}.png",
        "rating_sheet": "group/rating/rating_sheet.tsv",
        "rating_page": "group/rating/{name}.html",
        "rating_key": "group/rating/key/rating_key.tsv",
        "rater_decisions": "phenotype/rater_decisions.tsv",
        "readings": "group/rating/key/readings.tsv",
        "frequency": f"{template}_label-L_desc-{{level}}_probseg.nii.gz",
        "chi2": f"{template}{{desc}}_stat-chi2_statmap.nii.gz",
        "weights": f"{template}_desc-recommended_stat-weight_statmap.nii.gz",
        "selected": f"{template}_desc-selected{{evaluation}}_mask.nii.gz",
        "method": "logs/CITATION_group.md",
        "references": "logs/CITATION_group.bib",
    }
    assert storage.MASK == "tpl-MNI152NLin2009aSym_res-3_desc-selected_mask.nii.gz"
    assert dataset.BIDSIGNORE[-2:] == ("participants_lesions.*", "phenotype/bids_app_predictions.*")


@given(SCANS, SCANS)
def test_outputs_of_two_scans_never_collide(one: Scan, other: Scan) -> None:
    shared = {one.output(key) for key in OUTPUTS} & {other.output(key) for key in OUTPUTS}
    assert bool(shared) == (one.entities == other.entities)


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_sub-02_FLAIR.nii.gz",  # repeated
        "sub-01_colour-red_FLAIR.nii.gz",  # unknown
        "sub-0-1_FLAIR.nii.gz",
        "ses-1_FLAIR.nii.gz",  # whose?
        "sub-01_.nii.gz",
        "FLAIR.nii.gz",
    ],
)
def test_what_is_no_bids_name_is_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="rename the file"):
        parse_name(name)


def test_entities_stand_in_the_order_of_the_schema_of_bids() -> None:
    """The schema is the standard for programs; it holds no entities of transforms and statistics yet."""
    schema = load_schema()
    order = [schema.objects.entities[key].name for key in schema.rules.entities]
    assert [key for key in ORDER if key in order] == [key for key in order if key in ORDER]
    assert set(ORDER) - set(order) == {"from", "to", "mode", "stat"}


def test_every_entity_that_the_schema_lets_a_flair_have_is_known() -> None:
    schema = load_schema()
    rules = [rule for rule in schema.rules.files.raw.anat.values() if "FLAIR" in rule.suffixes]
    allowed = {schema.objects.entities[key].name for rule in rules for key in rule.entities}
    assert {"sub", "ses", "acq", "run"} <= allowed  # else nothing was read
    assert allowed <= set(ORDER)


# -- finding scans -------------------------------------------------------------------------------


def names_of(found: tuple[list[Scan], list[str]]) -> list[str]:
    return sorted(scan.name for scan in found[0])


def test_all_raw_scans_are_found_and_who_has_none_is_told(tree: Path) -> None:
    found = find_scans(tree)
    assert names_of(found) == ALL
    assert found[1] == ["sub-03"]
    assert all((tree / scan.path).is_file() for scan in found[0])


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"participants": ("01",)}, ALL[1:3]),  # and not sub-010
        ({"participants": ("010", "02")}, [ALL[0], *ALL[3:]]),
        ({"sessions": ("2",)}, ALL[2:3]),
        ({"participants": ("02",), "sessions": ("1",)}, ALL[3:]),
        ({"filters": {"acquisition": "3D"}}, ALL[4:]),
        ({"filters": {"acquisition": ["3D", "2D"], "run": 2}}, ALL[5:]),
        ({"filters": {"acquisition": None}}, ALL[:3]),
        ({"filters": {"session": "*"}}, ALL[1:]),
    ],
)
def test_participants_sessions_and_filters_choose(tree: Path, asked: dict, names: list[str]) -> None:
    assert names_of(find_scans(tree, **asked)) == names


def test_a_participant_who_is_not_there_is_told_with_those_who_are(tree: Path) -> None:
    with pytest.raises(NothingSelectedError, match=r"sub-99.*there are: sub-01, sub-010, sub-02, sub-03"):
        find_scans(tree, participants=("99",))
    scans, without = find_scans(tree, participants=("01", "99"))
    assert [scan.participant for scan in scans] == ["sub-01", "sub-01"]
    assert without == ["sub-99"]


def test_selecting_nothing_says_what_was_asked(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingSelectedError, match="session 7"):
        find_scans(tree, sessions=("7",))
    with pytest.raises(NothingSelectedError, match=r"filter .*nowhere"):
        find_scans(tree, filters={"acquisition": "nowhere"})
    with pytest.raises(NothingSelectedError, match="sub-03"):
        find_scans(tree, participants=("03",))
    with pytest.raises(MissingInputError, match="no such folder"):
        find_scans(tmp_path / "absent")
    with pytest.raises(MissingInputError, match=r"no folder sub-\*"):
        find_scans(make_tree(tmp_path / "empty"))


def test_three_of_two_thousand_participants(tmp_path: Path) -> None:
    labels = [f"{n:04d}" for n in range(2000)]
    root = make_tree(tmp_path / "raw", *(f"sub-{n}/anat/sub-{n}_FLAIR.nii.gz" for n in labels[7:2000:700]))
    for label in labels:
        (root / f"sub-{label}").mkdir(exist_ok=True)
    scans, without = find_scans(root, participants=("0007", "0707", "1407"))
    assert [scan.name for scan in scans] == ["sub-0007", "sub-0707", "sub-1407"]
    assert without == []


# -- filter files --------------------------------------------------------------------------------


def test_filter_files_of_other_programs_warn(tmp_path: Path) -> None:
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"t1w": {"acquisition": "x"}, "FLAIR": {"run": 2, "suffix": "T2w"}}))
    filters, said = read_filters(path)
    assert filters == {"run": 2}
    assert len(said) == 2
    assert "t1w" in said[0]
    assert "suffix" in said[1]


@pytest.mark.parametrize("content", [{"t1w": {}}, {}, {"flair": "x"}, {"flair": ["x"]}, []])
def test_a_filter_file_without_flair_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "filter.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadInputError, match=str(path)):
        read_filters(path)


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from(["acquisition", "run", "session"]), st.text(max_size=5)))
def test_filters_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, filters: dict) -> None:
    path = tmp_path_factory.mktemp("filters") / "filter.json"
    path.write_text(json.dumps({"flair": filters}), encoding="utf-8")
    assert read_filters(path) == (filters, [])
