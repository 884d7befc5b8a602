"""Masks of one's own on the command line: names, values, colours, ignored values and suffixes, from `check` to predictions."""

from __future__ import annotations

import argparse
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from minidcnn.cli import main
from minidcnn.data import DATASETS, DataError, Folder, Value, check, folder
from minidcnn.data.options import OPTIONS, accepted, add_data_options, proposed, taken
from minidcnn.data.written import argument_text, class_names, mask_values, option_text
from minidcnn.interop import load_checkpoint
from minidcnn.segmentation import prepare
from minidcnn.segmentation.config import TrainConfig
from minidcnn.segmentation.options import read_options
from minidcnn.segmentation.rows import legend_entries

ROOT = Path(__file__).resolve().parent.parent
TINY = ("--epochs", "1", "--limit", "2", "--batch-size", "2", "--base", "2", "--depth", "2", "--crop", "16", "--backend", "numpy")
NAMES = ("sky", "road", "ball")
GRAY: tuple[Value, ...] = (0, 128, 255)
RED, BLUE, WHITE, BLACK = (200, 40, 40), (40, 90, 220), (255, 255, 255), (0, 0, 0)
COLOURS: tuple[Value, ...] = (BLACK, BLUE, RED)

Run = Callable[..., tuple[int, str, str]]


def put_folder(root: Path, values: tuple[Value, ...], stray: Value | None = None, suffix: str = "", count: int = 5) -> Path:
    """Photos of bands, of which the k-th is class k of `values`, and masks; two pixels of every second mask hold `stray`."""
    rng = np.random.default_rng(5)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i in range(count):
        labels = np.repeat(np.arange(24) * len(values) // 24, 32).reshape(24, 32)
        photo = 80 * labels[..., None] + rng.integers(0, 60, (24, 32, 3))
        mask = np.array(values, np.uint8)[labels]
        if stray is not None and i % 2 == 0:
            mask[0, :2] = stray
        Image.fromarray(photo.astype(np.uint8)).save(root / "images" / f"p{i}.jpg")
        Image.fromarray(mask).save(root / "masks" / f"p{i}{suffix}.png")
    return root


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """cli("check", ...) or cli("unet", ...) in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        script = ROOT / "examples" / f"train_{name}.py"
        try:
            if script.is_file():
                monkeypatch.setattr(sys, "argv", [script.name, *map(str, words)])
                runpy.run_path(str(script), run_name="__main__")
                code = 0
            else:
                monkeypatch.setattr(sys, "argv", ["minidcnn"])
                code = main([name, *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


# -- as they are written ---------------------------------------------------------------------------------------------------------


VALUES = st.lists(st.integers(0, 65535), min_size=1, max_size=9).map(tuple) | st.lists(
    st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=9
).map(tuple)


@given(VALUES)
def test_values_are_read_as_they_are_shown_and_no_shell_sees_more_in_them(values: tuple[Value, ...]) -> None:
    text = argument_text(values)
    assert mask_values(text) == values and shlex.quote(text) == text
    assert argument_text(json.loads(json.dumps(values))) == text


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1))
@example("-gt")
@example('-"gt')
@example("class 1,-x y")
@example("- x")
@example("")
def test_an_option_can_be_copied_into_a_shell(text: str) -> None:
    words = shlex.split(option_text("suffix", text))
    parser = argparse.ArgumentParser()
    parser.add_argument("--suffix")
    assert parser.parse_args(words).suffix == text


def test_names_and_values() -> None:
    assert class_names("background, traffic light,car") == ("background", "traffic light", "car")
    assert class_names("3") == 3 and class_names("cell") == ("cell",)
    assert mask_values("0, 128") == (0, 128) and mask_values("-1") == (-1,) and mask_values("0/0/0,255/128/7") == (BLACK, (255, 128, 7))
    for text, said in (
        ("red", "'red' is no mask value: give numbers up to 65535 as in 0,128,255, or colours as red/green/blue, as in 255/0/0"),
        ("0,#ff8000", "'#ff8000' is no mask value: .* or colours as red/green/blue, here 255/128/0"),
        ("808080", "'808080' is no mask value: .* here 128/128/128"),
        ("1/2/256", "'1/2/256' is no mask value"),
        ("1/2", "'1/2' is no mask value"),
        ("(255", r"'\(255' is no mask value"),
        ("0,,1", "'' is no mask value"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=said):
            mask_values(text)
    with pytest.raises(
        argparse.ArgumentTypeError, match="'sky,,road' names a class with no name: put one comma and no space between names"
    ):
        class_names("sky,,road")


def test_the_readme_shows_options_that_exist() -> None:
    lines = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `--")]
    parser = argparse.ArgumentParser()
    add_data_options(parser)
    shown: dict[str, list[Any]] = {}
    for text in re.findall(r"`(--[^`]+)`", "\n".join(lines)):
        ((name, value),) = ((n, v) for n, v in vars(parser.parse_args(shlex.split(text))).items() if v is not None and n != "data")
        shown.setdefault(name, []).append(value)
    assert shown.keys() == {"classes", "values", "ignored", "suffix"}
    assert shown["values"] == [(0, 128, 255), (BLACK, (255, 0, 0), (0, 0, 255))] and len(shown["classes"][0]) == 3


def test_every_command_has_the_same_options_in_the_same_words(cli: Run) -> None:
    blocks = set()
    for name in ("unet", "segnet", "fcn", "check", "show", "evaluate"):
        code, out, _ = cli(name, "--help")
        assert code == 0
        block = out[out.index("your own images (--data folder):") :] + "\n"
        blocks.add("".join(block[: block.index("\n\n")].split()))  # lines break elsewhere where longer options stand beside them
    (block,) = blocks
    assert all(f"--{name}" in block for name in OPTIONS if name != "val_fraction")


# -- the whole way ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "stray", "suffix"), [(GRAY, 7, "_mask"), (COLOURS, WHITE, "-gt"), ((2, 0, 1), 9, "label")])
def test_from_check_to_predictions(values: tuple[Value, ...], stray: Value, suffix: str, cli: Run, tmp_path: Path) -> None:
    root = put_folder(tmp_path / "mydata", values, stray, suffix)
    where = ("--data", "folder", "--root", "mydata")
    options = (
        "--classes", ",".join(NAMES), "--values", argument_text(values), "--ignored", argument_text([stray]), f"--suffix={suffix}",
    )  # fmt: skip
    code, out, _ = cli("check", *where, *options)
    assert code == 0 and out.endswith("ok\n") and "found out" not in out and "3 classes" in out
    assert [line.split()[1] for line in out.splitlines()[2:5]] == list(NAMES)

    code, out, _ = cli("show", *where, *options, "--out", "pictures", "--split", "all")
    assert code == 0
    with Image.open(tmp_path / "pictures" / "mydata-all.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    data = Folder(root, "all", classes=NAMES, values=values, ignored=[stray], suffix=suffix)
    assert {tuple(c) for c in data.palette.tolist()} <= colours
    if values is COLOURS:
        assert data.palette.tolist() == [list(c) for c in COLOURS]  # one's own colours are the pictures' colours

    code, out, err = cli("unet", *where, *options, *TINY, "--out", "run")
    assert code == 0, err
    assert all(re.search(rf"^{name} ", out, re.M) for name in NAMES)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["classes"] == list(NAMES) and config["suffix"] == suffix
    assert config["values"] == json.loads(json.dumps(values)) and config["ignored"] == json.loads(json.dumps([stray]))
    info = load_checkpoint(tmp_path / "run" / "best.safetensors").info
    assert info["classes"] == list(NAMES) and info["mask_values"] == config["values"] and info["mask_ignored"] == config["ignored"]

    for more in ((), (*where, f"--suffix={suffix}")):  # as in training by its folder, and elsewhere by what the checkpoint knows
        code, out, err = cli("evaluate", "run/best.safetensors", *more, "--json", "--split", "all")
        assert code == 0, err
        scores = json.loads(out)
        assert scores["classes"] == list(NAMES)
        expected = np.full(3, 5 * 8 * 32) - [3 * 2, 0, 0]  # five photos of bands of 8 rows, without the strays
        np.testing.assert_array_equal(np.sum(scores["confusion"], axis=1), expected)
    assert all(re.search(rf"^{name} ", cli("evaluate", "run/best.safetensors")[1], re.M) for name in NAMES)
    code, out, _ = cli("predict", "run/best.safetensors", "mydata/images/p0.jpg", "--out", "predicted")
    assert code == 0 and any(f"{name} " in out for name in NAMES) and "class " not in out
    with Image.open(tmp_path / "predicted" / "p0.png") as image:
        assert np.reshape(image.getpalette()[:9], (3, 3)).tolist() == data.palette.tolist()


def test_masks_of_another_kind_are_scored_all_the_same(cli: Run, tmp_path: Path) -> None:
    put_folder(tmp_path / "gray", GRAY, 7)
    put_folder(tmp_path / "colour", COLOURS)
    options = ("--values", argument_text(GRAY), "--ignored", "7", "--classes", ",".join(NAMES))
    assert cli("unet", "--data", "folder", "--root", "gray", *options, *TINY, "--out", "run")[0] == 0
    elsewhere = ("evaluate", "run/best.safetensors", "--data", "folder", "--root", "colour", "--split", "all", "--json")
    code, _, err = cli(*elsewhere)
    assert code == 2 and "holds colours, but the classes stand for gray values or indices: 0, 128, 255" in err
    code, out, err = cli(*elsewhere, "--values", argument_text(COLOURS))
    assert code == 0, err
    np.testing.assert_array_equal(np.sum(json.loads(out)["confusion"], axis=1), [5 * 8 * 32] * 3)


def test_training_and_validation_images_are_read_alike_and_masks_looked_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = put_folder(tmp_path / "mydata", GRAY, 7)
    for part in ("images", "masks"):
        for i, path in enumerate(sorted((root / part).iterdir())):
            (root / ("train" if i < 3 else "val") / part).mkdir(parents=True, exist_ok=True)
            path.rename(root / ("train" if i < 3 else "val") / part / path.name)
    for path in (root / "val" / "images").iterdir():
        Image.open(path).convert("L").save(path)  # all of them gray
    scans: list[int] = []
    scan = folder.scan
    monkeypatch.setattr(folder, "scan", lambda sources, strict: scans.append(len(sources)) or scan(sources, strict))
    config = TrainConfig("unet", data="folder", root=str(root), ignored=(7,))
    train, val = prepare.open_data(config)
    assert scans == [5] and (len(train), len(val)) == (3, 2)
    assert train.channels == val.channels == 3 and val[0].image.shape[0] == 3
    assert (train.classes, train.mask_values, train.mask_ignored) == (val.classes, val.mask_values, val.mask_ignored)
    assert np.array_equal(train.palette, val.palette)


def test_the_legend_has_the_names_and_their_colours() -> None:
    entries = legend_entries([np.array([[0, 1, 1], [2, -1, 0]])], NAMES, np.array(COLOURS, np.uint8))
    assert [name for name, _ in entries[:3]] == list(NAMES) and entries[3][0] == "ignored"
    assert [tuple(colour) for _, colour in entries[:3]] == list(COLOURS)


# -- what check proposes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "stray", "suffix", "found"),
    [
        (GRAY, None, "_mask", '--classes "background,class 1,class 2" --values 0,128,255 --suffix _mask'),
        (COLOURS, None, "-gt", '--classes "background,class 1,class 2" --values 0/0/0,40/90/220,200/40/40 --suffix=-gt'),
        ((0, 1, 2), 255, "", '--classes "background,class 1,class 2" --ignored 255'),
        ((0, 255), None, "", "--classes background,foreground --values 0,255"),
    ],
)
def test_check_proposes_options_that_mean_the_same(
    values: tuple[Value, ...], stray: Value | None, suffix: str, found: str, cli: Run, tmp_path: Path
) -> None:
    put_folder(tmp_path / "mydata", values, stray, suffix)
    where = ("check", "--data", "folder", "--root", "mydata")
    code, out, _ = cli(*where)
    assert code == 0 and f"\nnote: found out (put in names of your own): {found}\n" in out
    code, again, _ = cli(*where, *shlex.split(found))
    assert code == 0 and again == re.sub("note: found out.*\n", "", out)


def test_check_proposes_only_what_was_not_said(cli: Run, tmp_path: Path) -> None:
    put_folder(tmp_path / "mydata", GRAY, 7, "_mask", count=6)
    where = ("check", "--data", "folder", "--root", "mydata")
    _, out, _ = cli(*where)
    assert "note: few pixels hold 7: if that is no class, leave it out with --ignored 7\n" in out
    _, out, _ = cli(*where, "--ignored", "7", "--classes", "sky,road,ball")
    assert "note: found out: --values 0,128,255 --suffix _mask\n" in out and "few pixels" not in out
    (tmp_path / "mydata" / "classes.txt").write_text("sky 0\nroad 128\nball 255\nglare 7\n")
    _, out, _ = cli(*where, "--suffix", "_mask")
    assert "found out" not in out and "few pixels" not in out
    (tmp_path / "mydata" / "masks" / "p0_mask.png").unlink()
    data = Folder(tmp_path / "mydata", "all", classes=3, values=(0, 128, 255), ignored=[7], strict=False)
    assert not proposed(data, check(data))  # of half the masks, nothing is found out


def test_a_small_object_is_no_stray_value(tmp_path: Path) -> None:
    data = Folder(put_folder(tmp_path, (0, 0), stray=255), "all")
    notes = proposed(data, check(data))
    assert check(data).frequencies[1] < 0.005 and notes == [
        "found out (put in names of your own): --classes background,foreground --values 0,255"
    ]


def test_more_classes_than_anyone_reads_are_not_written_out(tmp_path: Path) -> None:
    data = Folder(put_folder(tmp_path / "a", tuple(range(10, 30)), count=2), "all")  # 20 values on 24 rows
    (note,) = proposed(data, check(data))
    assert note == f"found out: --values {','.join(map(str, range(10, 30)))}"


def test_masks_that_number_their_objects_are_told_from_classes(tmp_path: Path) -> None:
    for name, most in (("numbered", (2, 5, 3, 7)), ("steps", (2, 5, 3, 7)), ("classes", (5, 5, 5, 5)), ("others", (5, 5, 5, 5))):
        for part in ("images", "masks"):
            (tmp_path / name / part).mkdir(parents=True)
        for i, n in enumerate(most):
            mask = np.repeat(np.arange(n + 1, dtype=np.uint16), 3)[None].repeat(4, 0)
            if (name, i) == ("numbered", 1):
                mask[mask == 1] = 2  # another number lies over it
            if name == "others" and i > 1:
                mask[(mask == 2) | (mask == 5)] = 3
            Image.fromarray(mask * (20 if name == "steps" else 1)).save(tmp_path / name / "masks" / f"{i}.png")
            Image.fromarray((mask > 0).astype(np.uint8) * 200).save(tmp_path / name / "images" / f"{i}.png")
    said = "the masks hold 0 to 7, and higher numbers occur in fewer images: if they number objects, "
    data = Folder(tmp_path / "numbered", "all")
    assert [note for note in proposed(data, check(data)) if note.startswith(said) and note.endswith("save mask > 0 as 0 and 1 instead")]
    named = Folder(tmp_path / "numbered", "all", classes=[f"c{i}" for i in range(8)])
    others = [Folder(tmp_path / name, "all") for name in ("steps", "classes", "others")]
    assert not any("number" in note for data in (named, *others) for note in proposed(data, check(data)))


# -- refused -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text"),
    [("--classes", "a,b"), ("--values", "0,255"), ("--ignored", "7/7/7"), ("--suffix", "_m"), ("--channels", "1"), ("--white", "4095.0")],
)
@pytest.mark.parametrize("data", [name for name in DATASETS if name != "folder"])
def test_other_data_sets_refuse_them(data: str, option: str, text: str, cli: Run, tmp_path: Path) -> None:
    said = f"error: {option} {text} is for --data folder; --data {data} does not take it: leave it out, or use --data folder\n"
    root = () if data == "cells" else ("--root", ".")
    for command in ("unet", "check"):
        assert cli(command, "--data", data, *root, option, text) == (2, "", said)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError, match=f"{option} .* is for --data folder"):
        TrainConfig("unet", data=data, **{option[2:]: {"--classes": ("a", "b"), "--suffix": "_m"}.get(option, 1)})


def test_the_part_held_out_is_refused_where_data_is_divided() -> None:
    assert [name for name in DATASETS if "val_fraction" in taken(name)] == ["folder", "oxford_pet"]
    with pytest.raises(DataError, match=r"--val-fraction 0\.3 is for --data folder or oxford_pet; --data camvid does not take it"):
        accepted("camvid", {"val_fraction": 0.3})
    for name, value, said in (
        ("val_fraction", 1.0, "must lie between 0 and 1, got 1.0"),
        ("channels", 0, "must be at least 1, got 0"),
        ("white", 0.0, "must be a positive number, got 0.0"),
    ):
        with pytest.raises(DataError, match=f"--{name.replace('_', '-')} {said}"):
            accepted("folder", {name: value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--classes sky,road", "classes=... (--classes) names 2 (sky, road) but the masks hold 4 values (0, 7, 128, 255; 7 in mydata/masks/p"),
        ("--classes road,ball --ignored 7", "is background missing from the names? It is a class, too; each value needs a name, or belongs into ignored=..."),
        ("--classes a,b,c,d,e,f,g --values 0,255", "(--classes) has 7 (a, b, c, d, e and 2 more) but values=... (--values) 2 (0, 255); each"),
        ("--classes sky,road,ball --values 0,255", "(--classes) has 3 (sky, road, ball) but values=... (--values) 2 (0, 255); each class needs one value"),
        ("--values 0,128,255", "7 at row 0, column 0, which is no class; the known values are 0, 128, 255; name it in values=... (--values), or leave"),
        ("--values 0,128,255 --ignored 9", "the known values are 0, 128, 255 and, ignored, 9; name it"),
        ("--values 0,128,128", "got 0, 128, 128; name each once; a colour is one value: values=[(255, 0, 0), ...] (--values 255/0/0,...)"),
        ("--values 0,128,255 --ignored 0", "can mean one class only, or be ignored, got 0, 128, 255 and, ignored, 0"),
        ("--values 0/0/0,255", "mask values must be all gray values or all colours, got 0/0/0, 255; mend values=... or ignored=... (--values, --ignored)"),
        ("--values 0/0/0,9/9/9", "holds 7/7/7 at row 0, column 0, which is no class; the known values are 0/0/0, 9/9/9"),
        ("--classes sky,road,sky --ignored 7", "classes=... (--classes): 'sky' is named twice; give each class a name of its own"),
        ("--classes 1", "classes=... (--classes) must be at least 2, got 1: background is a class, too"),
        ("--suffix _msk", "p0_msk.png is expected; if p0_mask.png is meant, say suffix='_mask' (--suffix _mask) (9 more problems; python -m minidcnn check"),
        ("--suffix _mask.png", "if p0_mask.png is meant, say suffix='_mask' (--suffix _mask)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_masks_is_one_sentence(options: str, said: str, cli: Run, tmp_path: Path) -> None:
    put_folder(tmp_path / "mydata", GRAY, 7, "_mask")
    code, out, err = cli("unet", "--data", "folder", "--root", "mydata", *options.split(), *TINY)
    assert code == 2 and not out and err.startswith("error: ") and said in err and err.count("\n") == 1, err
    assert not list((tmp_path / "runs").iterdir())
    code, out, err = cli("check", "--data", "folder", "--root", "mydata", *options.split())
    assert code and said.split(" (9 more")[0] in out + err


@pytest.mark.parametrize(
    ("held", "names", "ignored", "said"),
    [
        ((0, 1, 2, 3), "sky,road,ball,void", 3, "names 4, for the values 0 to 3, but 3 is ignored: leave the names of ignored values out"),
        ((0, 1, 2), "road,house,tree", 0, "names 3, for the values 0 to 2, but 0 is ignored: leave the names of ignored values out"),
        ((0, 1), "road,house", 0, "names 2, for the values 0 to 1, but 0 is ignored: leave the names of ignored values out"),
    ],
)
def test_names_of_ignored_values_are_one_too_many(
    held: tuple[Value, ...], names: str, ignored: int, said: str, cli: Run, tmp_path: Path
) -> None:
    put_folder(tmp_path / "mydata", held)
    code, _, err = cli("check", "--data", "folder", "--root", "mydata", "--classes", names, "--ignored", ignored)
    assert (
        code == 2
        and err == f"error: mydata: classes=... (--classes) {said}, or say which value each class has with values=... (--values)\n"
    )


def test_names_beside_ignored_values_that_they_leave_out(tmp_path: Path) -> None:
    data = Folder(put_folder(tmp_path / "a", (0, 1, 2)), "all", classes=("road", "house", "tree"), values=(1, 2, 3), ignored=[0])
    assert data.mask_values == (1, 2, 3) and set(data[0].mask.ravel().tolist()) == {255, 0, 1}  # no tree so far
    data = Folder(put_folder(tmp_path / "b", (0, 1, 2)), "all", classes=("road", "house"), ignored=[0])
    assert data.mask_values == (1, 2) and data.mask_ignored == (0,)
    data = Folder(put_folder(tmp_path / "c", (0, 1, 3)), "all", classes=("sky", "road", "ball"), ignored=[3])
    assert data.mask_values == (0, 1, 2) and data.mask_ignored == (3,)  # no ball so far


def test_the_value_without_a_name_is_told_where_values_are_indices(cli: Run, tmp_path: Path) -> None:
    put_folder(tmp_path / "mydata", (0, 2, 3), 1)  # 1 is the rarest, but 3 is the one without a name
    _, _, err = cli("check", "--data", "folder", "--root", "mydata", "--classes", "sky,road,ball")
    assert "names 3 (sky, road, ball) but the masks hold 4 values (0, 1, 2, 3; 3 in mydata/masks/p0.png); is background missing" in err
    assert err.endswith("each value needs a name, or belongs into ignored=... (--ignored 3)\n")
    _, _, err = cli("check", "--data", "folder", "--root", "mydata", "--classes", "sky,road")
    assert "(0, 1, 2, 3; 2 in mydata/masks/p0.png); each value needs a name, or belongs into ignored=... (--ignored)\n" in err


@pytest.mark.parametrize("name", ["unet", "check"])
def test_names_are_printed_where_the_output_cannot_hold_them(name: str, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put_folder(tmp_path / "mydata", GRAY)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    options = (*TINY, "--out", tmp_path / "straße") if name == "unet" else ()
    assert cli(name, "--data", "folder", "--root", root, "--classes", "sky,straße,ball", *options)[0] == 0
    assert rb"stra\xdfe" in written.getvalue()


def test_what_cannot_be_read_is_said_after_one_line_of_usage(cli: Run) -> None:
    code, _, err = cli("unet", "--data", "folder", "--values", "0,red")
    assert code == 2 and err.count("\n") == 2 and "--values: 'red' is no mask value: give numbers" in err


@pytest.mark.parametrize("name", ["unet", "check"])
def test_names_with_spaces_between_are_told_how_they_are_written(name: str, cli: Run) -> None:
    code, _, err = cli(name, "--data", "folder", "--classes", "sky", "road", "ball")
    assert code == 2 and "unrecognized arguments: road ball; what belongs to an option follows its name, " in err
    assert "several names or values as one word: --root mydata --classes background,road,car" in err
    assert "one word" not in cli(name, "--clases", "sky")[2]


def test_colour_masks_and_gray_values(cli: Run, tmp_path: Path) -> None:
    put_folder(tmp_path / "mydata", COLOURS)
    code, out, _ = cli("check", "--data", "folder", "--root", "mydata", "--values", "200,40,41", "--classes", "3")
    assert code == 1 and "p0.png holds colours, but the classes stand for gray values or indices: 200, 40, 41; a colour is one value" in out


def test_masks_that_belong_to_no_image(cli: Run, tmp_path: Path) -> None:
    root = put_folder(tmp_path / "mydata", GRAY, suffix="gt")  # nothing divides the ending from the name, so that it is not guessed
    where = ("check", "--data", "folder", "--root", "mydata")
    code, out, err = cli(*where)
    first, *others = err.splitlines()
    assert code == 2 and not out and first.endswith("is expected; if p0gt.png is meant, say suffix='gt' (--suffix gt)") and len(others) == 9
    assert cli(*where, "--suffix", "gt")[0] == 0
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(path.name.replace("gt", "")))
    assert "p0.png is called as the image: leave suffix=... (--suffix) out" in cli(*where, "--suffix", "gt")[2]


def test_smooth_edges_are_told_with_the_values_that_stand_out(tmp_path: Path) -> None:
    root = put_folder(tmp_path, (0, 255), count=2)
    mask = np.asarray(Image.open(root / "masks" / "p0.png")).copy()
    mask[:2] = 1 + 3 * np.arange(64).reshape(2, 32)
    Image.fromarray(mask).save(root / "masks" / "p0.png")
    with pytest.raises(
        DataError, match=r"hold 66 different values \(0, 1, 4, 7, 10 and 61 more\), too many .*; 0, 255 are 96 % of the pixels\)"
    ):
        Folder(root)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"values": ()}, r"values=\.\.\. \(--values\) is empty"),
        ({"values": [(0, 0), (1, 1)]}, r"values=\.\.\. \(--values\): \(0, 0\) is no colour, which is three numbers from 0 to 255"),
        ({"ignored": [(0, 0, 256)]}, r"ignored=\.\.\. \(--ignored\): \(0, 0, 256\) is no colour"),
    ],
)
def test_values_that_no_mask_can_hold(arguments: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        Folder(put_folder(tmp_path / "mydata", GRAY), **arguments)


# -- going on ----------------------------------------------------------------------------------------------------------------------


def test_resuming_knows_them_and_takes_no_others(cli: Run, tmp_path: Path) -> None:
    root = put_folder(tmp_path / "mydata", COLOURS, WHITE, "_mask")
    options = ("--classes", "sky,road,ball", "--values", argument_text(COLOURS), "--ignored", "255/255/255", "--suffix", "_mask")
    assert cli("unet", "--data", "folder", "--root", "mydata", *options, *TINY, "--out", "run")[0] == 0
    before = (tmp_path / "run" / "config.json").read_text()
    again = ("unet", "--out", "run", "--resume", "--epochs", "2")
    for option, value, said in (
        ("--classes", "a,b,c", "--classes is a,b,c now, but the run in run was started with sky,road,ball: leave it out to resume"),
        ("--values", "0,1,2", "--values is 0,1,2 now, but the run in run was started with 0/0/0,40/90/220,200/40/40: leave it out"),
        ("--ignored", "1/1/1", "--ignored is 1/1/1 now, but the run in run was started with 255/255/255: leave it out"),
        ("--suffix", "_m", "--suffix is _m now, but the run in run was started with _mask: leave it out"),
        ("--channels", "1", "--channels is 1 now, but the run in run was started without it: leave it out"),
    ):
        code, _, err = cli(*again, option, value)
        assert code == 2 and err.startswith(f"error: {said}") and err.count("\n") == 1
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert cli(*again, *options)[0] == 0  # the same may be said again
    assert cli("unet", "--out", "run", "--resume", "--epochs", "3")[0] == 0  # and need not
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(path.name.replace("_mask", "")))
    assert "has no mask" in cli("unet", "--out", "run", "--resume", "--epochs", "4")[2]


def test_resuming_on_masks_that_mean_something_else_is_refused(cli: Run, tmp_path: Path) -> None:
    root = put_folder(tmp_path / "mydata", GRAY)
    assert cli("unet", "--data", "folder", "--root", "mydata", *TINY, "--out", "run")[0] == 0
    again = ("unet", "--out", "run", "--resume", "--epochs", "2")
    (root / "classes.txt").write_text("sky\nroad\nball\n")
    code, _, err = cli(*again)
    assert code == 2 and err == (
        "error: the run in run was started with the classes background,class 1,class 2, now they are sky,road,ball: put the data back as it was, "
        "or start a new run with another --out\n"
    )
    (root / "classes.txt").unlink()
    for path in (root / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    way_out = "(if the masks did not change, --values 0,128,255 goes on): put the data back"
    assert f"with the mask values 0,128,255, now they are 0,64,127 {way_out}" in cli(*again)[2]


def test_resuming_with_pixels_left_out_that_counted_is_refused(cli: Run, tmp_path: Path) -> None:
    put_folder(tmp_path / "mydata", (0, 128))
    assert cli("unet", "--data", "folder", "--root", "mydata", *TINY, "--out", "run")[0] == 0
    again = ("unet", "--out", "run", "--resume", "--epochs", "2")
    code, _, err = cli(*again, "--ignored", "7")
    assert code == 2 and err == (
        "error: the run in run was started with the ignored mask values none, now they are 7 (if the masks did not change, --values 0,128 goes "
        "on): put the data back as it was, or start a new run with another --out\n"
    )
    assert cli(*again)[0] == 0


@pytest.mark.parametrize("values", [GRAY, COLOURS])
def test_the_options_of_a_run_survive_json(values: tuple[Value, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "--data",
        "folder",
        "--root",
        "x",
        "--classes",
        "a,b,c",
        "--values",
        argument_text(values),
        "--ignored",
        argument_text(values[:1]),
    ]
    config = read_options("unet", words).config
    assert config.classes == ("a", "b", "c") and config.values == values and config.ignored == values[:1] and config.suffix is None
    assert TrainConfig.from_json(config.to_json()) == config
    assert config.data_options() == {"val_fraction": 0.2, "classes": ("a", "b", "c"), "values": values, "ignored": values[:1]}


def test_a_run_goes_on_with_what_an_older_version_found_out(cli: Run, tmp_path: Path) -> None:
    root = put_folder(tmp_path / "mydata", (0, 128), 255)
    where = ("--data", "folder", "--root", "mydata", "--values", "0,128")
    assert cli("unet", *where, "--ignored", "255", *TINY, "--out", "run")[0] == 0
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"values": None, "ignored": None}))  # as if both had been found out
    assert cli("evaluate", "run/best.safetensors")[0] == 0
    again = ("unet", "--out", "run", "--resume", "--epochs", "2")
    way_out = " (if the masks did not change, --values 0,128 --ignored 255 goes on): put the data back"
    assert f"with the classes background,foreground, now they are background,class 1,class 2{way_out}" in cli(*again)[2]
    assert f"with the mask values 0,128, now they are 0,255{way_out}" in cli(*again, "--values", "0,255", "--ignored", "128")[2]
    assert cli(*again, "--values", "0,128", "--ignored", "255")[0] == 0
    assert json.loads(config.read_text())["ignored"] == [255] and Folder(root, "all").mask_values == (0, 128, 255)
    assert cli("unet", "--out", "run", "--resume", "--epochs", "3")[0] == 0
