"""`audit` and `evaluate` on a random Qwen3 in the published layout, and the verdict recomputed from the audit's own files.

The golds are what the model itself answers as trained. Its latents therefore matter, by construction, and the verdict has
something to find.
"""

import fcntl
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoints import plain, published
from imports import ROOT
from question_files import questions, read_rows, write_rows

from qthink_core.benchmarks.graders import gsm8k
from qthink_core.errors import DataError, ParamError, StoppedError
from qthink_core.inference.evaluation import audit as auditing
from qthink_core.inference.evaluation import contestants
from qthink_core.inference.evaluation import questions as asking
from qthink_core.inference.evaluation.audit import Others, audit
from qthink_core.inference.evaluation.contestants import How
from qthink_core.inference.evaluation.evaluate import evaluate
from qthink_core.inference.evaluation.verdict_file import VerdictFile
from qthink_core.inference.reasoner import LatentReasoner

pytestmark = pytest.mark.slow
K, N, LIMIT, BATCH = 3, 18, 8, 5
HOW = How(max_new_tokens=LIMIT, batch=BATCH)
SUBSTITUTES = ["K=0", "zeros", "noise", "other", "mean"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> SimpleNamespace:
    """A latent checkpoint, a control and a base, and questions; all golds but three are the checkpoint's own numbers."""
    from lively import lively_qwen3

    from qthink_core.method.projection_head import ProjectionHead

    torch.manual_seed(1)
    head, folder = ProjectionHead(32), tmp_path_factory.mktemp("audited")
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter))
    model = published(folder / "latent", lively_qwen3(tokenizer), tokenizer, head)
    control = plain(folder / "control", lively_qwen3(tokenizer, seed=2), tokenizer)
    base = plain(folder / "base", lively_qwen3(tokenizer, seed=3), tokenizer)
    rows = questions(4 * N)
    reasoner = LatentReasoner.from_pretrained(model, K=K)
    answers = reasoner.generate([row["question"] for row in rows], max_new_tokens=LIMIT)
    stated: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for row, answer in zip(rows, answers, strict=True):
        numbers = [one for one in re.findall(r"\d+", answer.text) if gsm8k.grade(one, answer.text).verdict == "right"]
        stated[bool(numbers)].append(row | {"answer": f"#### {numbers[-1] if numbers else 7}"})
    rows = [*stated[True][: N - 3], *stated[False][:3]]
    data = write_rows(folder / "problems.jsonl", rows)
    asked = asking.read("gsm8k", data, None)
    others = Others(str(control), str(base))
    out = folder / "out"
    done = audit(str(model), asked, HOW, out, K=K, others=others)
    return SimpleNamespace(
        folder=folder, model=model, control=control, base=base, data=data, asked=asked, others=others, out=out, done=done
    )


def right(rows: list[dict[str, Any]], system: str, condition: str) -> dict[str, bool]:
    return {row["id"]: row["verdict"] == "right" for row in rows if (row["system"], row["condition"]) == (system, condition)}


def exact_p(one: dict[str, bool], other: dict[str, bool]) -> float:
    """McNemar's exact test, from binomial coefficients."""
    won = sum(one[name] and not other[name] for name in one)
    lost = sum(other[name] and not one[name] for name in one)
    tail = sum(math.comb(won + lost, i) for i in range(min(won, lost) + 1)) / 2 ** (won + lost)
    return min(1.0, 2 * tail)


def judged(rows: list[dict[str, Any]], with_control: bool) -> tuple[str, dict[str, str]]:
    """(the verdict's word, the outcomes) by the rule of verdicts.py, written again."""
    own = right(rows, "model", "trained")
    pairs = {name: right(rows, "model", name) for name in SUBSTITUTES}
    if with_control:
        pairs["answer_only"] = right(rows, "control", "trained")
    p_values = {name: exact_p(own, other) for name, other in pairs.items()}
    outcomes, worst = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda one: p_values[one])):
        worst = max(worst, (len(p_values) - rank) * p_values[name])
        gain = sum(own.values()) - sum(pairs[name].values())
        outcomes[name] = "undecided" if worst >= 0.05 else "better" if gain > 0 else "worse"
    if outcomes["K=0"] != "better":
        return {"undecided": "idle", "worse": "harmful, these weights only"}[outcomes["K=0"]], outcomes
    if not with_control:
        return "used", outcomes
    praised = "earns" if all(outcomes[name] == "better" for name in SUBSTITUTES) else "helps as pauses"
    words = {
        "better": f"{praised}, these weights only",
        "undecided": "used but not better",
        "worse": "used but worse, these weights only",
    }
    return words[outcomes["answer_only"]], outcomes


def test_the_verdict_follows_from_the_files_of_the_audit_alone(made: SimpleNamespace) -> None:
    rows = read_rows(made.out / "verdicts.jsonl")
    found = json.loads((made.out / "audit.json").read_text())["verdict"]
    word, outcomes = judged(rows, with_control=True)
    assert (found["word"], {row["against"]: row["outcome"] for row in found["comparisons"]}) == (word, outcomes)
    assert "undecided" not in (outcomes["K=0"], outcomes["answer_only"])
    assert str(found["sentence"]) in (made.out / "audit.html").read_text().replace("&#39;", "'").replace("&lt;", "<")


def test_every_system_answers_every_question_under_every_condition(made: SimpleNamespace) -> None:
    rows = read_rows(made.out / "verdicts.jsonl")
    ids = {f"gsm8k-test-{i:05d}" for i in range(N)}
    expected = [("model", name) for name in [*SUBSTITUTES, "K=1", "K=2", "trained"]]
    expected += [("control", "trained"), ("base", "trained"), ("base_direct", "trained")]
    assert {(row["system"], row["condition"]) for row in rows} == set(expected)
    assert all(set(right(rows, *key)) == ids for key in expected)
    assert len(rows) == N * len(expected)


def test_as_trained_is_what_the_reasoner_answers(made: SimpleNamespace) -> None:
    for system, folder, settings in (
        ("model", made.model, {"K": K}),
        ("control", made.control, {"K": 0, "thinking": False}),
        ("base", made.base, {"thinking": True}),
    ):
        found = {
            row["id"]: (row["answer"], row["tokens"], row["finish"])
            for row in read_rows(made.out / "verdicts.jsonl")
            if (row["system"], row["condition"]) == (system, "trained")
        }
        reasoner = LatentReasoner.from_pretrained(folder, **settings)
        answers = reasoner.generate([one.question for one in made.asked.problems], max_new_tokens=LIMIT)
        ids = [one.id for one in made.asked.problems]
        assert found == {name: (one.text, one.new_tokens, one.finish) for name, one in zip(ids, answers, strict=True)}


def test_fewer_steps_and_none_are_what_the_reasoner_answers_with_that_K(made: SimpleNamespace) -> None:
    rows = read_rows(made.out / "verdicts.jsonl")
    for steps in range(K):
        reasoner = LatentReasoner.from_pretrained(made.model, K=steps, thinking=False)
        answers = reasoner.generate([one.question for one in made.asked.problems], max_new_tokens=LIMIT)
        found = {row["id"]: row["answer"] for row in rows if (row["system"], row["condition"]) == ("model", f"K={steps}")}
        assert [found[one.id] for one in made.asked.problems] == [one.text for one in answers]


def test_without_a_control_the_content_alone_is_judged(made: SimpleNamespace, tmp_path: Path) -> None:
    done = audit(str(made.model), made.asked, HOW, tmp_path / "out", K=K, sweep=0)
    rows = read_rows(tmp_path / "out/verdicts.jsonl")
    assert {row["condition"] for row in rows} == {*SUBSTITUTES, "trained"}
    assert (done.verdict.word, {row.against: row.outcome for row in done.verdict.rows}) == judged(rows, with_control=False)
    assert done.verdict.worth is None
    assert "Not judged: whether the system is better for its latents" in done.verdict.sentence
    # the rule's numbers are those of the whole audit's answers
    own = [row for row in read_rows(made.out / "verdicts.jsonl") if row["condition"] in {*SUBSTITUTES, "trained"}]
    assert sorted(map(str, rows)) == sorted(map(str, [row for row in own if row["system"] == "model"]))


def recorded(folder: Path, thinking: bool, steps: int) -> str:
    """The folder as an export of this project, whose qthink.json says whether it thinks."""
    (folder / "qthink.json").write_text(json.dumps({"K": steps, "thinking": thinking}))
    return str(folder)


def test_a_model_and_its_control_are_asked_as_they_were_trained(made: SimpleNamespace, tmp_path: Path) -> None:
    few = asking.read("gsm8k", made.data, 3)
    copies = [shutil.copytree(one, tmp_path / one.name) for one in (made.model, made.control)]
    model, control = recorded(copies[0], True, K), recorded(copies[1], True, 0)
    done = audit(model, few, HOW, tmp_path / "out", sweep=0, others=Others(control))
    for system, folder in (("model", model), ("control", control)):
        reasoner = LatentReasoner.from_pretrained(folder)
        assert reasoner.system.thinking
        answers = reasoner.generate([one.question for one in few.problems], max_new_tokens=LIMIT)
        found = {line.id: line.answer for line in done.lines if (line.system, line.condition) == (system, "trained")}
        assert [found[one.id] for one in few.problems] == [one.text for one in answers]
    assert (done.settings["model thinking"], done.settings["control thinking"]) == (True, True)


def test_a_control_that_was_asked_otherwise_is_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    thinks = recorded(shutil.copytree(made.control, tmp_path / "thinks"), True, 0)
    with pytest.raises(DataError, match=r"qthink\.json says that its prompts ask for thinking, unlike those of .*: name a"):
        audit(str(made.model), made.asked, HOW, tmp_path / "out", K=K, others=Others(thinks))
    assert not (tmp_path / "out").exists()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "seconds.jsonl"}


def test_a_killed_audit_continues_and_ends_with_the_same_files(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path) -> None:
        audit(str(made.model), made.asked, HOW, folder, K=K, sweep=0, others=Others(str(made.control)))

    run(tmp_path / "whole")
    added = VerdictFile.add
    for after in (1, 2, 3):  # among the batches of the model, then in those of the control

        def killed(file: VerdictFile, unit: str, lines: Any, seconds: float, after: int = after) -> None:
            if len(file.plan) - len(file.missing) == 2 * after:
                with (file.folder / "verdicts.jsonl").open("ab") as torn:
                    torn.write(lines[0].as_json() + lines[1].as_json()[:20])
                raise KeyboardInterrupt
            added(file, unit, lines, seconds)

        monkeypatch.setattr(VerdictFile, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    monkeypatch.setattr(VerdictFile, "add", added)
    run(tmp_path / "stopped")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_the_pages_list_every_file_of_a_folder(made: SimpleNamespace, tmp_path: Path) -> None:
    evaluate(str(made.model), made.asked, HOW, tmp_path / "out", K=K)
    for page, folder in (("audit", made.out), ("evaluate", tmp_path / "out")):
        listed = re.findall(r"^\| `([\w.]+\.\w+)` \|", (ROOT / f"docs/use/{page}.md").read_text(), re.MULTILINE)
        assert sorted(listed) == sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_finished_audit_is_read_and_not_made_again(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(made.out)
    monkeypatch.setattr(contestants, "load", lambda *_: pytest.fail("a model was loaded"))
    again = audit(str(made.model), made.asked, HOW, made.out, K=K, others=made.others)
    assert again.verdict == made.done.verdict
    assert files(made.out) == before


def test_what_it_costs_is_said_before_the_model_is_loaded(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(contestants, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        audit(str(made.model), made.asked, HOW, tmp_path / "out", K=K, others=made.others, say=said.append)
    # 8 conditions, a control, the base twice: 11 answers a question; latents: 3 read, 4 x 3 replaced, 3 swept
    assert f"together {11 * N} answers, at most {11 * N * LIMIT:,} tokens, and {18 * N} latent passes" in said[0]
    monkeypatch.undo()
    audit(str(made.model), made.asked, HOW, tmp_path / "out", K=K, others=made.others, say=said.append)
    assert re.search(rf"a batch of {BATCH} took .* the {11 * N} answers left take about .* at most about ", said[2])


def test_a_limit_asks_so_many_questions_and_the_same_ones_in_any_order(made: SimpleNamespace, tmp_path: Path) -> None:
    few = asking.read("gsm8k", made.data, 4)
    assert len(few.problems) == 4
    assert {one.id for one in few.problems} <= {one.id for one in made.asked.problems}
    done = evaluate(str(made.model), few, HOW, tmp_path / "out", K=K)
    assert done.cell.n == len(read_rows(tmp_path / "out/verdicts.jsonl")) == 4
    whole = read_rows(made.out / "verdicts.jsonl")
    own = {row["id"]: row for row in whole if (row["system"], row["condition"]) == ("model", "trained")}
    assert all(row == own[row["id"]] for row in read_rows(tmp_path / "out/verdicts.jsonl"))


def test_an_evaluation_has_the_figures_of_its_file(made: SimpleNamespace, tmp_path: Path) -> None:
    done = evaluate(str(made.model), made.asked, HOW, tmp_path / "out", K=K)
    rows = read_rows(tmp_path / "out/verdicts.jsonl")
    p = sum(row["verdict"] == "right" for row in rows) / N
    z = 1.959963984540054  # Wilson's interval, by hand
    centre, half = p + z**2 / (2 * N), z * math.sqrt(p * (1 - p) / N + z**2 / (4 * N**2))
    found = done.as_json()
    assert found["accuracy"] == pytest.approx(p)
    assert found["interval"] == pytest.approx([(centre - half) / (1 + z**2 / N), (centre + half) / (1 + z**2 / N)])
    assert found["mean_tokens"] == pytest.approx(sum(row["tokens"] for row in rows) / N)
    assert found["cut_at_limit"] == pytest.approx(sum(row["finish"] == "length" for row in rows) / N)
    seconds = [row["seconds"] for row in read_rows(tmp_path / "out/seconds.jsonl")]
    assert found["seconds_per_answer"] == pytest.approx(sum(seconds) / N)
    assert 0 < p < 1


def test_a_model_without_a_head_thinks_unless_it_is_told_not_to(made: SimpleNamespace, tmp_path: Path) -> None:
    for thinking, system in ((None, "base"), (False, "base_direct")):
        folder = tmp_path / system
        assert evaluate(str(made.base), made.asked, HOW, folder, thinking=thinking).thinking is (thinking is None)
        own = [row for row in read_rows(made.out / "verdicts.jsonl") if row["system"] == system]
        assert [row["answer"] for row in read_rows(folder / "verdicts.jsonl")] == [row["answer"] for row in own]


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_inert_whatever_a_model_writes(made: SimpleNamespace) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[2J\"'></pre>"
    lines = [line._replace(answer=hostile, extracted=hostile) for line in made.done.lines]
    asked = {name: hostile for name in made.done.asked}
    page = auditing.page(made.done._replace(lines=lines, asked=asked, model=hostile, source=hostile)).decode()
    elements = Elements()
    elements.feed(page)
    names = {tag for tag, _ in elements.found}
    assert not names & {"script", "img", "iframe", "object", "form", "link", "base"}
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert not {attributes.get("href") or "#" for _, attributes in elements.found if "href" in attributes} & {"javascript:"}
    assert all(str(attributes["href"]).startswith("#") for _, attributes in elements.found if "href" in attributes)
    assert "default-src 'none'" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") > N


def changed(made: SimpleNamespace, name: str, folder: Path, change: Callable[[Path], None]) -> str:
    copy = folder / name
    shutil.copytree(made.model, copy)
    change(copy)
    return str(copy)


def test_bad_input_is_refused_in_one_line_before_anything_is_written(made: SimpleNamespace, tmp_path: Path) -> None:
    model, out = str(made.model), tmp_path / "out"

    def start(what: str = model, how: How = HOW, steps: int | None = K, **settings: Any) -> None:
        audit(what, made.asked, how, out, K=steps, **settings)

    damaged = changed(made, "damaged", tmp_path, lambda copy: (copy / "projection_head.pt").write_bytes(b"junk"))
    bare = changed(made, "bare", tmp_path, lambda copy: (copy / "chat_template.jinja").unlink())
    cases: list[tuple[type[Exception], str, Callable[[], None]]] = [
        (ParamError, "no qthink.json, which would say the number of latent steps", lambda: start(steps=None)),
        (DataError, "takes no latent steps, so there is nothing to audit", lambda: start(steps=0)),
        (ParamError, "-2 latent steps were asked for", lambda: start(steps=-2)),
        (DataError, "has no chat template", lambda: start(bare)),
        (ParamError, "positions left for an answer: lower --max-new-tokens", lambda: start(how=How(600))),
        (ParamError, "--max-new-tokens is -1", lambda: start(how=How(-1))),
        (ParamError, "--batch is 0", lambda: start(how=How(batch=0))),
        (ParamError, "--sweep is -1", lambda: start(sweep=-1)),
        (DataError, "has only 512 positions: drop the question", lambda: start(sweep=400)),
        (DataError, "has a projection head", lambda: start(others=Others(control=model))),
        (DataError, "has a projection head", lambda: start(others=Others(base=model))),
        (DataError, "nowhere does not exist", lambda: start(others=Others(base=str(tmp_path / "nowhere")))),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert not out.exists(), message
    with pytest.raises(DataError, match="is not a PyTorch state dict") as caught:
        start(damaged)
    assert "\n" not in str(caught.value)
    assert not (out / "verdicts.jsonl").exists()


def test_a_folder_of_another_run_is_refused_and_stays_as_it_is(made: SimpleNamespace, tmp_path: Path) -> None:
    before = files(made.out)
    with pytest.raises(DataError, match="holds a run with batch 5, now 6: name another folder with --out"):
        audit(str(made.model), made.asked, How(LIMIT, 6), made.out, K=K, others=made.others)
    with pytest.raises(DataError, match="holds a run with base K 0, now none"):
        audit(str(made.model), made.asked, HOW, made.out, K=K)
    with pytest.raises(DataError, match=r"holds an audit, not an evaluation: name another folder with --out$"):
        evaluate(str(made.model), made.asked, HOW, made.out, K=K)
    few = asking.read("gsm8k", made.data, 4)
    with pytest.raises(DataError, match=rf"holds a run with {N} questions of {made.data}, now 4 of {made.data}: name"):
        audit(str(made.model), few, HOW, made.out, K=K, others=made.others)
    assert files(made.out) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds other files and no settings\.json"):
        evaluate(str(made.model), made.asked, HOW, tmp_path, K=K)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_runs_do_not_write_to_one_folder(made: SimpleNamespace) -> None:
    with (
        held(made.out),
        pytest.raises(StoppedError, match="another process is writing to"),
    ):
        audit(str(made.model), made.asked, HOW, made.out, K=K, others=made.others)


def held(folder: Path) -> Any:
    """The lock of the folder, as another process would hold it."""
    file = (folder / ".lock").open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def test_a_line_that_was_changed_is_found(made: SimpleNamespace, tmp_path: Path) -> None:
    evaluate(str(made.model), made.asked, HOW, tmp_path / "out", K=K)
    path = tmp_path / "out/verdicts.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for changed in ([lines[1], lines[0], *lines[2:]], [*lines, lines[0]], ['{"id": 1}\n', *lines[1:]], ["x\n", *lines[1:]]):
        path.write_text("".join(changed))
        with pytest.raises(DataError, match=r"verdicts\.jsonl(, line 1 | has 19 lines).*delete"):
            evaluate(str(made.model), made.asked, HOW, tmp_path / "out", K=K)


def test_the_snippet_of_the_page_counts_the_right_answers(made: SimpleNamespace, tmp_path: Path) -> None:
    snippet = (ROOT / "docs/use/audit.md").read_text().partition("```python\n")[2].partition("```")[0]
    (tmp_path / "audits").mkdir()
    (tmp_path / "audits/gsm8k-uniform").symlink_to(made.out)
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=True)
    cells = json.loads((made.out / "audit.json").read_text())
    counts = [f"model {name} {one['accuracy'] * N:.0f}" for name, one in cells["conditions"].items()]
    counts += [f"{name} trained {one['accuracy'] * N:.0f}" for name, one in cells["others"].items()]
    assert sorted(done.stdout.splitlines()) == sorted(counts)
