import dataclasses
import itertools
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest
from keras_vit_export.gpu.reach import Reach
from keras_vit_export.report import page, plots
from keras_vit_export.report.measure import Report

VOID = {"meta", "link", "br", "hr", "img", "input"}
NOT_MEASURED = "Accuracy was not measured: no images with labels were given."
KERAS = Report(
    recipe="keras",
    size_bytes=823_000,
    top1=0.9895,
    agreement=1.0,
    tied_top1=0.0,
    max_difference=0.0,
    mean_difference=0.0,
    cosine=1.0,
    snr_db=200.0,
    latency_ms=0.694,
    latency_all_threads_ms=None,
    threads=4,
    peak_memory_bytes=None,
    images=380,
    operations={},
    environment={"processor": "Abacus <9>", "keras": "3.15.1"},
)
INT8 = Report(
    recipe="static_int8",
    size_bytes=291_400,
    top1=0.9868,
    agreement=0.9974,
    tied_top1=0.0,
    max_difference=0.0625,
    mean_difference=0.00123,
    cosine=0.999123,
    snr_db=31.25,
    latency_ms=0.0512,
    latency_all_threads_ms=0.0387,
    threads=4,
    peak_memory_bytes=1_540_000,
    images=380,
    operations={"FULLY_CONNECTED": {"int8": 17}, "GELU": {"int8": 3, "float32": 1}},
    splits={"calibration": {"split": "train", "images": 64}},
    skipped={"GELU": 1},
    layer_snr_db={"block_00_attention_add": 40.0, "block_00_mlp_add": 35.0},
    rewrites=("fold_scaling", "fold_norms"),
    chosen="percentile",
    smoothed=("block_00_mlp",),
    protected=("block_03_mlp_out;",),
)


class Page(HTMLParser):
    """Tags, their attributes and the cells of each row; fails on unbalanced tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data

    def having(self, tag):
        return [attributes for other, attributes in self.tags if other == tag]


def changed(**fields):
    """Reports of Keras and one recipe, with other values in both."""
    common = {k: v for k, v in fields.items() if k in ("top1", "agreement", "threads")}
    return {
        "keras": dataclasses.replace(KERAS, **common),
        "static_int8": dataclasses.replace(INT8, **fields),
    }


def several(count):
    names = [f"recipe_{index}" for index in range(count)]
    # All at one place: labels have to make room for each other.
    return {"keras": KERAS} | {it: dataclasses.replace(INT8, recipe=it) for it in names}


@pytest.mark.parametrize("count", [1, 8])
def test_the_page_is_well_formed_and_shows_every_recipe(count):
    reports = several(count)
    parsed = Page(page.html(reports, "Title"))
    assert len(parsed.having("details")) == count
    assert [row[0] for row in parsed.rows[1 : count + 2]] == list(reports)
    opened = [it for it in parsed.having("details") if "open" in it]
    assert len(opened) == (1 if count == 1 else 0)


def test_the_page_loads_nothing_from_elsewhere():
    text = page.html(several(8), "Title")
    parsed = Page(text)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    loaded = [
        value
        for _, attributes in parsed.tags
        for name, value in attributes.items()
        if name.endswith(("src", "href"))
    ]
    assert loaded
    assert all(it.startswith("#") for it in loaded)
    assert not re.search(r"@import|url\((?!#)", text)


def test_an_id_stands_once_and_whatever_points_at_one_finds_it():
    text = page.html(several(8), "Title")
    ids = Counter(it["id"] for _, it in Page(text).tags if "id" in it)
    assert max(ids.values()) == 1
    pointed = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert pointed
    assert set(pointed) <= ids.keys()


def test_every_figure_of_a_report_is_in_its_row():
    parsed = Page(page.html(changed(), "Title"))
    head, keras, row = parsed.rows[:3]
    assert dict(zip(head, row, strict=True)) == {
        "format": "static_int8",
        "MB": "0.291",
        "top-1": "98.68%",
        "loss, points": "0.27",
        "agreement": "99.74%",
        "largest difference": "0.062",
        "mean difference": "0.0012",
        "cosine": "0.999123",
        "SNR, dB": "31.2",
        "ms, 1 thread": "0.0512",
        "ms, 4 threads": "0.0387",
        "peak memory, MB": "1.54",
    }
    assert keras[head.index("SNR, dB")] == "exact"
    assert keras[head.index("ms, 4 threads")] == "–"


@pytest.mark.parametrize(("tied", "shown"), [(0.0, False), (0.0132, True)])
def test_ties_have_a_column_only_where_there_are_any(tied, shown):
    rows = Page(page.html(changed(tied_top1=tied), "Title")).rows
    assert ("tied top-1" in rows[0]) is shown
    assert ("1.32%" in rows[2]) is shown


def test_no_column_stands_twice_on_a_machine_of_one_thread():
    head = Page(page.html(changed(threads=1), "Title")).rows[0]
    assert [it for it in head if it.startswith("ms")] == ["ms, 1 thread"]


def test_a_page_without_data_says_so_and_names_random_pixels():
    text = Page(page.html(changed(top1=None, agreement=None), "Title")).text
    assert NOT_MEASURED in text
    assert "380 images of random pixels" in text
    text = Page(page.html(changed(), "Title")).text
    assert NOT_MEASURED not in text
    assert "random" not in text


def test_the_summary_tells_size_loss_and_speed_of_a_single_recipe():
    summary = (
        "static_int8: 0.291 MB, 25% of float32, top-1 98.68%, 0.27 points below "
        "Keras, the same class as Keras for 99.74% of images, 0.0512 ms an image."
    )
    float32 = dataclasses.replace(KERAS, recipe="float32", size_bytes=1_165_600)
    text = Page(page.html(changed() | {"float32": float32}, "Title")).text
    assert summary in text
    text = Page(page.html(changed(), "Title")).text
    assert summary.replace(" 25% of float32,", "") in text


@pytest.mark.parametrize(
    ("top1", "change"), [(0.9995, "1.00 points above Keras"), (0.9895, "as Keras")]
)
def test_a_recipe_that_loses_nothing_is_not_said_to_be_below(top1, change):
    reports = changed(top1=top1) | {"keras": KERAS}
    assert f"top-1 {top1:.2%}, {change}" in Page(page.html(reports, "Title")).text


def test_skipped_operations_are_shown_and_only_then():
    parsed = Page(page.html(changed(), "Title"))
    assert "stayed in floats: 1 GELU." in parsed.text
    assert "21 operations, 1 skipped" in parsed.text
    assert {"class": "alert"} in parsed.having("p")
    assert "skipped" not in Page(page.html(changed(skipped={}), "Title")).text


def test_the_histogram_counts_operations_by_precision():
    rows = Page(page.html(changed(), "Title")).rows
    assert rows[-3:] == [
        ["operation", "int8", "float32", "all"],
        ["FULLY_CONNECTED", "17", "", "17"],
        ["GELU", "3", "1", "4"],
    ]


def test_where_a_file_runs_is_told():
    found = {
        "cpu": Reach("wholly", "", None, None, 9, "passed", 0.5),
        "gpu": Reach("partly", "on the CPU: MEAN (<no>)", 0.75, 0.3, 8, "failed: x", 2),
    }
    half = {"unknown": "CUMSUM"}
    reports = changed(
        accelerators=found, half=half, pitfalls={"block_00": "ADD: <ranks>"}
    )
    parsed = Page(page.html(reports, "Title"))
    assert ["static_int8", "CPU", "wholly", "-", "passed", "0.50"] in parsed.rows
    assert [
        "static_int8",
        "GPU",
        "partly",
        "75.00%",
        "failed: x",
        "2.00",
    ] in parsed.rows
    assert "static_int8 on GPU, partly: on the CPU: MEAN (<no>)." in parsed.text
    assert "A GPU may answer wrongly: block_00, ADD: <ranks>" in parsed.text
    assert "Not tried in 16-bit floats, for want of rules: CUMSUM" in parsed.text
    missing = changed(accelerators={"gpu": Reach("missing", "no Vulkan")})
    assert "GPU: not tried, no Vulkan." in Page(page.html(missing, "Title")).text


def test_how_a_file_was_made_is_told():
    parsed = Page(page.html(changed(), "Title"))
    told = ("fold_scaling", "fold_norms", "percentile", "block_00_mlp")
    for text in (*told, "block_03_mlp_out;", "calibration: 64 (train)"):
        assert text in parsed.text
    plain = changed(rewrites=(), not_rewritten="It has a <Lambda>.", splits={})
    assert "None. It has a <Lambda>." in Page(page.html(plain, "Title")).text


def test_the_footer_names_hardware_and_how_latency_was_measured():
    text = Page(page.html(changed(), "Title")).text
    assert "processor Abacus <9>, keras 3.15.1" in text
    assert "median of interleaved runs of one image, first runs excluded" in text


def test_whatever_comes_from_data_is_escaped():
    bad = '<b onload="x">&$title $1$ --> \\alpha'
    report = dataclasses.replace(
        INT8,
        recipe=bad,
        operations={bad: {bad: 1}},
        splits={bad: {"split": bad, "images": 8}},
        skipped={bad: 1},
        layer_snr_db={bad: 30.0, "logits": 20.0},
        rewrites=(bad,),
        chosen=bad,
        smoothed=(bad,),
        protected=(bad,),
    )
    keras = dataclasses.replace(KERAS, environment={bad: bad})
    parsed = Page(page.html({"keras": keras, bad: report}, bad))
    assert not [it for _, it in parsed.tags if "onload" in it]
    assert parsed.text.count(bad) >= 15
    bare = dataclasses.replace(report, rewrites=(), not_rewritten=bad)
    parsed = Page(page.html({"keras": keras, bad: bare}, bad))
    assert not [it for _, it in parsed.tags if "onload" in it]


def test_the_same_reports_give_the_same_bytes(monkeypatch):
    import matplotlib

    first = page.html(several(3), "Title")
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    assert page.html(several(3), "Title") == first


def test_every_picture_says_what_it_shows():
    parsed = Page(page.html(changed(), "Title"))
    pictures = parsed.having("svg")
    assert [it["role"] for it in pictures] == ["img"] * 3
    for picture, unit in zip(pictures, ("percent", "milliseconds", "dB"), strict=True):
        assert unit in picture["aria-label"]
        assert picture["aria-label"] in parsed.text  # the caption
    unlayered = Page(page.html(changed(layer_snr_db={}), "Title"))
    assert len(unlayered.having("svg")) == 2


@pytest.mark.parametrize(
    ("decibels", "ends"),
    [
        ([200.0, 42.0, 31.0], (30, 60)),
        ([200.0, 200.0], (0, 10)),
        ([-300.0, 12.0], (-10, 30)),
        ([-300.0], (-10, 0)),
    ],
)
def test_exact_and_broken_layers_do_not_stretch_the_axis(decibels, ends):
    assert plots._ends(decibels) == ends


def test_names_of_points_close_together_do_not_cover_each_other():
    boxes = []
    for index in range(9):
        boxes.append(plots._free_box(100, 100 - 3 * index, 60, boxes, (0, 300, 0, 300)))
    for (left, right, middle), other in itertools.combinations(boxes, 2):
        beside = right <= other[0] or other[1] <= left
        assert beside or abs(middle - other[2]) > 10  # letters are 8 points high


def test_a_name_stays_inside_the_axes():
    edges = (0, 300, 0, 300)
    taken = [(0, 300, 296)]  # what is near is not free
    left, right, middle = plots._free_box(290, 298, 60, taken, edges)
    assert 0 < left < right < 290
    assert middle < 290


def test_importing_the_page_loads_nothing_heavy():
    heavy = ["matplotlib", "numpy", "tensorflow", "keras", "keras_vit"]
    check = f"import sys; assert not set({heavy}) & set(sys.modules)"
    path = f"sys.path[:0] = {sys.path!r}"
    code = f"import sys; {path}; import keras_vit_export.report.page; {check}"
    subprocess.run([sys.executable, "-c", code], check=True)
