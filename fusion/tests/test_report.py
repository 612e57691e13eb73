"""The report: complete in one file, true to `evaluate --json`, safe whatever names contain."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mepr_fusion.cli import main
from mepr_fusion.report import baseline_store
from mepr_fusion.report.figures import draw_calibration, draw_steps
from mepr_fusion.report.reproduce import changed_settings, reproduce_command
from mepr_fusion.report.words import compared, verdict
from mepr_shared.contract import EmotionOutput, ExportInfo, ExportWriter
from mepr_shared.contract.schema import EncoderRef, ModelInfo
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.labels import EmotionScale
from mepr_shared.train.runs import Run

CLIPS = 150
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>|`**"
QUICK = ("--set", "fit.epochs=2", "--set", "model.width=16", "--set", "model.heads=2")


def make_corpus(folder: Path, name: str, *, multi_label: bool) -> Corpus:
    """`films`: one emotion each, and traits; `talks`: several emotions, no traits."""
    random = np.random.default_rng(len(name))
    columns = {
        "sample_id": [f"{name}{i:03d}" for i in range(CLIPS)],
        "source_id": [f"{name}-{i // 2 % 60}" for i in range(CLIPS)],
        "split": ["train"] * 90 + ["val"] * 60,
    }
    if multi_label:
        several = random.integers(0, 2, (CLIPS, 7)).astype(np.float32)
        several[:, 0] = several[:, 1:].sum(axis=1) == 0
        columns["emotion"] = several
    else:
        columns["emotion"] = np.eye(7, dtype=np.float32)[random.integers(0, 7, CLIPS)]
        columns["traits"] = random.uniform(0.2, 0.8, (CLIPS, 5)).astype(np.float32)
    scale = EmotionScale("multi_label" if multi_label else "single_label")
    return Corpus.build(CorpusMeta(name, scale, licence=ATTACK), columns).write(
        folder / f"{name}.parquet"
    )


def make_export(root: Path, corpus: Corpus, modality: str, missing: slice) -> None:
    """Noisy views of the labels; some samples lack the modality."""
    random = np.random.default_rng(len(corpus.name) + len(modality))
    info = ExportInfo(
        modality,
        "stage2",
        emotion_output=EmotionOutput("sigmoid" if corpus.meta.scale.is_multi_label else "softmax"),
        model=ModelInfo(encoder=EncoderRef(ATTACK, "r1")),
    )
    writer = ExportWriter(root, corpus=corpus, info=info)
    traits = np.nan_to_num(corpus.trait_values, nan=0.5)
    logits = 2 * corpus.emotion_targets() + random.normal(size=(CLIPS, 7)) - 1
    scores = np.clip(traits + random.normal(0, 0.1, traits.shape), 0, 1)
    embedding = np.concatenate([logits, scores], axis=1) @ random.normal(size=(12, 6))
    arrays = {
        "emotion_logits": logits,
        "trait_scores": scores,
        "emotion_embedding": embedding[:, :4],
        "trait_embedding": embedding[:, 4:],
    }
    absent = np.zeros(CLIPS, dtype=bool)
    absent[missing] = True
    for values in arrays.values():
        values[absent] = np.nan
    ((part, _),) = writer.pending()
    writer.write_part(
        part, {"status": [f"no_{modality}" if gone else "ok" for gone in absent], **arrays}
    )
    writer.commit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("report")
    for name, multi_label in (("films", False), ("talks", True)):
        corpus = make_corpus(path, name, multi_label=multi_label)
        make_export(path / "exports", corpus, "text", slice(0, None, 3))
        make_export(path / "exports", corpus, "face", slice(1, None, 3))
    corpora = [
        word for name in ("films", "talks") for word in ("--corpus", f"{path}/{name}.parquet")
    ]
    where = ("--exports", str(path / "exports"), "--run", str(path / "run"))
    assert main(["train", *corpora, *where, *QUICK]) == 0
    return path


class Page(HTMLParser):
    """What a report's HTML consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.open: list[str] = []
        self.caption = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if tag in ("td", "th"):
            self.tables[self.caption][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        elif {"td", "th"} & set(self.open):
            self.tables[self.caption][-1][-1] += data

    def row(self, caption: str, name: str) -> dict[str, str]:
        """A row of a table, by column."""
        head, *rows = self.tables[caption]
        [found] = [row for row in rows if row[0] == name]
        return dict(zip(head, found, strict=True))


@pytest.fixture(scope="module")
def page(folder) -> Page:
    return Page((folder / "run" / "report.html").read_text("utf-8"))


def number(cell: str) -> float:
    return float(cell.split()[0])


def test_every_promised_part_is_there(folder, page):
    for part in (
        *("Of the tasks judged", "a linear model on the same embeddings", "best modality alone"),
        *("95 %", "unseen", "Confusion", "Coverage", "no_face", "Dropped", "mepr-fusion train"),
        *("embeddings_linear", "unimodal_mean", "constant", "Versions", "not a diagnosis"),
        *("Configurations tried", "Seed", "SHA-256", "Epoch chosen"),
    ):
        assert part.lower() in (page.text + str(page.tags)).lower(), part
    for key in json.loads((folder / "run" / "exports.lock").read_text())["exports"].values():
        assert key in page.text
    absent = ("Calibration", "Ablation")
    assert not any(title in page.text for title in absent), "sections of what was not made"


def test_the_page_is_complete_and_needs_nothing(page):
    assert page.open == []
    names = [tag for tag, _ in page.tags]
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(names)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) >= 7
    for attributes in pictures:
        assert attributes["src"].startswith("data:image/png;base64,")
        assert len(attributes["alt"]) > 20
        assert not any(name.startswith("on") for name in attributes)
    for tag, attributes in page.tags:
        for name in ("href", "src"):
            if name in attributes:
                assert attributes[name].startswith(("#", "data:")), (tag, attributes)
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert links and links <= anchors


def test_names_from_data_are_text_and_nothing_else(folder, page):
    assert ATTACK in page.text
    for name in ("report.html", "report.md", "MODEL_CARD.md"):
        text = (folder / "run" / name).read_text("utf-8")
        assert "<script" not in text and "<img src=x" not in text
    card = (folder / "run" / "MODEL_CARD.md").read_text("utf-8")
    tables = [line for line in card.splitlines() if "alert(1)" in line]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert widths == {8}, "a | in a name makes no column"


def test_numbers_are_those_of_evaluate(folder, page, capsys):
    capsys.readouterr()
    assert main(["evaluate", "--run", str(folder / "run"), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    compared_scores = 0
    for record in records:
        rows = {"stage 3": record, "constant": record["baseline"], **record["modalities"]}
        for name, tasks in rows.items():
            shown = page.row(f"Scores on {record['corpus']} val", name)
            for task in ("emotion", "traits"):
                for score in ("mwacc", "macro_f1", "ccc", "macc"):
                    value = (tasks[task] or {}).get(score)
                    if value is None or score not in shown:
                        continue
                    assert number(shown[score]) == pytest.approx(value, abs=5.1e-5)
                    interval = (tasks[task].get("ci") or {}).get(score)
                    if interval:
                        assert f"[{interval[0]:.3f}, {interval[1]:.3f}]" in shown[score]
                    compared_scores += 1
    assert compared_scores > 15
    films = records[0]
    assert films["traits"]["ci"], "the corpus is large enough for intervals"
    per_trait = page.row("films val: each trait", "openness")
    assert number(per_trait["ccc"]) == pytest.approx(
        films["traits"]["per_trait"]["openness"]["ccc"], abs=5.1e-5
    )


def test_differences_are_those_of_the_rows(page):
    """On the same samples a paired difference is the difference of the two rows."""
    rows = {name: page.row("Scores on films val", name) for name in ("stage 3", "constant")}
    linear = page.row("Scores on films val", "embeddings_linear")
    table = "films val, apparent traits: stage 3"
    for name, other in (("constant", rows["constant"]), ("embeddings_linear", linear)):
        told = page.row(table, f"less {name}")
        by_hand = number(rows["stage 3"]["ccc"]) - number(other["ccc"])
        assert number(told["ccc"]) == pytest.approx(by_hand, abs=2e-4)
        assert "[" in told["ccc"]


def test_a_second_report_refits_nothing_and_says_the_same(folder, monkeypatch, capsys):
    run = folder / "run"
    before = {name: (run / name).read_bytes() for name in ("report.html", "MODEL_CARD.md")}

    def refit(_):
        raise AssertionError("the baselines were fitted already")

    monkeypatch.setattr(baseline_store, "fit_linear_model", refit)
    capsys.readouterr()
    assert main(["report", "--run", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["html"] == str(run / "report.html") and Path(told["card"]).exists()
    assert {name: (run / name).read_bytes() for name in before} == before


def test_what_other_verbs_left_beside_the_run_is_drawn(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    (run / "steps").mkdir(exist_ok=True)
    for epoch in (1, 2):
        table = {"loss/emotion": [1.0, 0.5], "weight/emotion": [1.0, 1.2]}
        table |= {"pseudo/emotion_rate": [None, 0.3]} if epoch == 2 else {}
        pq.write_table(pa.table(table), run / "steps" / f"epoch-{epoch:04d}.parquet")
    overall = {"bins": [{"probability": 0.3, "frequency": 0.2, "n": 9}], "ece": 0.125}
    after = {"after": {"overall": overall, "classes": {"fear": overall}}}
    (run / "calibration.json").write_text(json.dumps({"films": {"emotion": after}}))
    full = {"variant": "full", "seeds": [0, 1], "score": {"mean": 0.5, "std": 0.01}}
    full |= {"scores": {"films/ccc": {"mean": 0.4, "std": 0.02}}, "differences": {}}
    less = {"difference": -0.1, "ci": [-0.2, -0.05], "significant": True}
    other = {**full, "variant": "no_graph_attention", "differences": {"films/ccc": less}}
    (run / "ablation.json").write_text(json.dumps({"split": "val", "variants": [full, other]}))
    assert main(["report", "--run", str(run)]) == 0
    page = Page((run / "report.html").read_text("utf-8"))
    alts = " ".join(str(attributes.get("alt")) for tag, attributes in page.tags if tag == "img")
    for said in ("weight over 4 steps: emotion from 1 to 1.2", "share over 4 steps: emotion_rate"):
        assert said in alts
    assert page.text.count("Calibration, films emotion after: ") == 1
    assert "Expected calibration error 0.125" in page.text
    table = page.row("Without a modality or a block, val split", "no_graph_attention")
    assert table["films/ccc less full"] == "-0.1000* [-0.2000, -0.0500]"


def test_the_command_repeats_the_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    command = reproduce_command(Run.load(folder / "run"))
    assert str(folder) not in command, "paths under the current folder are relative"
    program, *words = shlex.split(command.replace("\\\n", " "))
    words[words.index("--run") + 1] = str(tmp_path / "again")
    assert program == "mepr-fusion" and main(words) == 0
    weights = [path / "weights.safetensors" for path in (folder / "run", tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_only_changed_settings_are_named():
    settings = {"a": 1, "b": {"c": None, "d": True}, "e": [1, 2]}
    defaults = {"a": 1, "b": {"c": 0.5, "d": True}, "e": [1]}
    assert list(changed_settings(settings, defaults)) == [("b.c", None), ("e", [1, 2])]


def test_the_model_card_has_its_front_matter(folder):
    yaml = pytest.importorskip("yaml")
    card = (folder / "run" / "MODEL_CARD.md").read_text("utf-8")
    _, front, body = card.split("---\n", 2)
    content = yaml.safe_load(front)
    assert content["datasets"] == ["films", "talks"] and "license" not in content
    assert {"emotion-recognition", "face", "text"} <= set(content["tags"])
    results = content["model-index"][0]["results"]
    assert {(r["dataset"]["name"], r["task"]["name"]) for r in results} == {
        ("films", "emotion"),
        ("films", "traits"),
        ("talks", "emotion"),
    }
    assert set(content["metrics"]) == {r["metrics"][0]["type"] for r in results}
    for said in ("Intended use", "no diagnosis", "AI Act", "in-sample", "Seed 0", "Run.load"):
        assert said in body


@pytest.mark.parametrize(
    ("interval", "said"),
    [((0.01, 0.2), "better"), ((-0.2, -0.01), "worse"), ((-0.1, 0.1), "not distinguishable")],
)
def test_the_words_follow_the_interval(interval, said):
    assert said in compared({"difference": sum(interval) / 2, "ci": list(interval)})
    assert "above" in compared({"difference": 0.1, "ci": None})


def test_the_verdict_counts_only_what_has_an_interval():
    def record(corpus: str, ci: list[float] | None) -> dict:
        found = {"difference": 0.1, "ci": ci}
        scores = {"mwacc": None, "uar": 0.6, "n": 30, "ci": {"uar": [0.5, 0.7]} if ci else None}
        return {
            **{"corpus": corpus, "split": "test", "emotion": scores, "traits": None},
            "best_single": {"emotion": None, "traits": None},
            "differences": {"emotion": {"constant": {"uar": found}}, "traits": {}},
        }

    metrics = {"best_epoch": 0, "samples": {"x": {"train": 3}}}
    clear, few = record("x", [0.05, 0.15]), record("y", None)
    overall, details = verdict([clear, few], metrics, ["text"])
    assert "beats a constant on 1 of 1. For 1 more there are too few sources" in overall
    assert "UAR 0.600 [0.500, 0.700]" in details and "mean of the unimodal" in details
    overall, details = verdict([few], metrics, ["text"])
    assert "cannot be said" in overall and "fewer than 20 sources" in details


def test_a_task_without_labels_is_not_judged():
    record = {"corpus": "x", "split": "test", "emotion": None, "traits": None}
    record |= {"best_single": {}, "differences": {"emotion": {}, "traits": {}}}
    metrics = {"best_epoch": 1, "samples": {"x": {"train": 3}}}
    overall, details = verdict([record], metrics, ["text"])
    assert "nothing to compare" in overall and "too good" not in details


def test_figures_of_nothing_are_left_out():
    assert draw_steps("weight", {"emotion": np.full(4, np.nan)}, "weight", "c") is None
    assert draw_steps("weight", {}, "weight", "c") is None
    assert draw_calibration("emotion", {"bins": [{"probability": None, "frequency": None}]}) is None
    long = draw_steps("weight", {"emotion": np.linspace(1, 2, 5000)}, "weight", "c")
    assert long is not None and "over 5000 steps: emotion from 1 to 2" in long.alt
