"""The report page: every figure in it, no text that acts or hides, nothing from outside, the same bytes each time."""

import base64
import hashlib
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imports import ROOT
from sample_findings import ACCURACIES, HOSTILE, SYSTEMS, TOKENS, cell, sample

from qthink_core.evidence import published
from qthink_core.evidence.findings import Answered, Comparison, Conditions, Findings, Power, Question
from qthink_core.evidence.power import Scatter
from qthink_core.report import page as report_page
from qthink_core.report import plots
from qthink_core.report.display import first_words, plain, visible
from qthink_core.report.overview import best, claim_lines, matrix
from qthink_core.report.page import page
from qthink_core.report.plots import spread_out, swept, thinned
from qthink_core.report.sentences import power, summary

CSS = (report_page.TEMPLATES / "page.css").read_text()
VOID = {"meta", "br", "link", "img", "input", "hr", "base", "embed", "source"}
MAX_BYTES = 3_000_000


@dataclass
class Element:
    """An element as a browser's parser sees it; `children` are elements and pieces of text."""

    tag: str
    attributes: dict[str, str]
    children: list[Any] = field(default_factory=list)

    def walk(self) -> Iterator["Element"]:
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def text(self) -> str:
        return "".join(child.text() if isinstance(child, Element) else child for child in self.children)

    def all(self, tag: str, **attributes: str) -> list["Element"]:
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [one for one in self.walk() if one.tag == tag and wanted.items() <= one.attributes.items()]


class Tree(HTMLParser):
    """Builds elements and insists that every one is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(findings: Findings) -> Element:
    return Tree(page(findings).decode()).root


@pytest.fixture(scope="module")
def full() -> bytes:
    return page(sample())


@pytest.fixture(scope="module")
def tree(full: bytes) -> Element:
    return Tree(full.decode()).root


def rows(table: Element) -> list[list[str]]:
    return [[" ".join(one.text().split()) for one in row.walk() if one.tag in {"th", "td"}] for row in table.all("tr")]


def region(tree: Element, label: str) -> list[list[str]]:
    (found,) = tree.all("div", aria_label=label) or [one for one in tree.walk() if one.attributes.get("aria-label") == label]
    return rows(found)


# Nothing that differs from machine to machine


@pytest.mark.slow
def test_the_same_findings_are_the_same_bytes_in_another_process_with_other_habits(full: bytes, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nsvg.fonttype: path\nfont.size: 30\naxes.facecolor: red\n")
    program = "import sys; from sample_findings import sample; from qthink_core.report.page import page; "
    program += "sys.stdout.buffer.write(page(sample()))"
    habits = {
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": "1",
        "MPLCONFIGDIR": str(tmp_path),
    }
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | habits | {"PYTHONPATH": path},
        capture_output=True,
        check=True,
    )
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(full).hexdigest()


@pytest.mark.slow
def test_sixty_questions_with_readouts_stay_below_three_megabytes() -> None:
    assert len(page(sample(20))) < MAX_BYTES


def test_a_runaway_answer_is_shown_up_to_a_limit_with_the_count_of_the_rest() -> None:
    shown = str(visible("a" * 4000 + "b" * 12_345))
    assert shown == "a" * 4000 + '<span class="hidden-char">… 12,345 more characters</span>'
    assert str(visible("a" * 4000)) == "a" * 4000


# Nothing from outside, and nothing that acts


@pytest.mark.slow
def test_the_page_refers_to_nothing_but_its_own_places(tree: Element) -> None:
    ids = [one.attributes["id"] for one in tree.walk() if "id" in one.attributes]
    assert len(ids) == len(set(ids)), "an id appears twice"
    for one in tree.walk():
        assert one.tag not in {
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "image",
            "audio",
            "video",
            "foreignobject",
        }
        for name, value in one.attributes.items():
            assert not name.startswith("on"), f"<{one.tag} {name}>"
            assert name not in {"src", "srcset", "action", "formaction", "data", "ping", "xlink:href", "background"}
            if name in {"href", "aria-labelledby"}:
                assert value.removeprefix("#") in ids, f"<{one.tag} {name}={value}>"
            for target in re.findall(r"url\(([^)]*)\)", value):
                assert target.removeprefix("#") in ids
    (style,) = tree.all("style")
    assert not re.search(r"@import|url\(|expression", style.text())


@pytest.mark.slow
def test_the_policy_allows_styles_and_the_one_script_by_its_hash(tree: Element) -> None:
    (script,) = tree.all("script")
    (policy,) = tree.all("meta", **{"http-equiv": "Content-Security-Policy"})
    digest = base64.b64encode(hashlib.sha256(script.text().encode()).digest()).decode()
    assert policy.attributes["content"] == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    # a policy holds from its place on
    head = [one.tag for one in tree.all("head")[0].children if isinstance(one, Element)]
    assert head[:2] == ["meta", "meta"]


def test_every_character_of_the_page_is_one_that_shows(full: bytes) -> None:
    assert not {hex(ord(one)) for one in full.decode() if one != "\n" and not one.isprintable()}


def harmless(findings: Findings) -> Findings:
    """The same run with every text of a model, of a problem or of a verdict replaced by a plain word."""
    questions = [
        Question(
            one.task,
            "x",
            "x",
            "x",
            {
                system: answer._replace(
                    text="x",
                    extracted=None if answer.extracted is None else "x",
                    readout=[[("x", share) for _, share in step] for step in answer.readout],
                )
                for system, answer in one.answers.items()
            },
        )
        for one in findings.questions
    ]
    conditions = {
        task: {system: one._replace(sentence="x") for system, one in row.items()}
        for task, row in findings.conditions.items()
    }
    return findings._replace(questions=questions, conditions=conditions)


def skeleton(tree: Element) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.tag, tuple(one.attributes)) for one in tree.walk() if one.attributes.get("class") != "hidden-char"]


@pytest.mark.slow
def test_hostile_text_changes_no_element_of_the_page() -> None:
    findings = sample()
    assert skeleton(parsed(findings)) == skeleton(parsed(harmless(findings)))


@pytest.mark.slow
def test_every_text_of_a_model_stands_in_the_page_as_it_is_with_what_hides_named(tree: Element) -> None:
    texts = {one.text() for one in tree.all("pre", class_="text")}
    codes = {one.text() for one in tree.all("code")}
    for question in sample().questions:
        assert plain(question.prompt) in texts
        assert plain(question.gold) in codes
        assert plain(question.id) in {one.text() for one in tree.all("span", class_="id")}
        asked = f"{plain(first_words(question.prompt))} {plain(question.id)}"
        assert asked in {one.text() for one in tree.all("span", class_="asked")}
        for answer in question.answers.values():
            assert plain(answer.text) in texts
            assert answer.extracted is None or plain(answer.extracted) in codes
    assert {"␣12", "↵", "<b>", "⟨U+202E⟩", "answer"} <= codes


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["scale", "setting", "system", "mark", "task", "made_with", "claim", "word", "scorer", "set"]
)
def test_hostile_text_is_harmless_in_every_other_place_too(place: str) -> None:
    text = '" onload="x'.join(["", *HOSTILE, ""])
    findings = sample(1)._replace(curves={}, conditions={})
    benign, hostile = (
        {
            "scale": lambda to: findings._replace(scale=to),
            "setting": lambda to: findings._replace(setting=to),
            "system": lambda to: findings._replace(systems=SYSTEMS | {"sft": SYSTEMS["sft"]._replace(name=to)}),
            "mark": lambda to: findings._replace(systems=SYSTEMS | {"sft": SYSTEMS["sft"]._replace(marks=[to])}),
            "task": lambda to: findings._replace(
                cells={to: findings.cells["gsm8k"]},
                curves={to: sample(0).curves["gsm8k"]},
                test_sets={to: findings.test_sets["gsm8k"]},
            ),
            "made_with": lambda to: findings._replace(made_with={to: to}),
            "claim": lambda to: findings._replace(claims=[findings.claims[0]._replace(words=to, benchmark=to, note=to)]),
            "word": lambda to: findings._replace(
                conditions={"gsm8k": {"uniform": Conditions({to: cell(0.5), "trained": cell(0.4)}, to, to)}}
            ),
            "scorer": lambda to: findings._replace(further={"gsm8k": {"sft": {to: 0.5}}}),
            "set": lambda to: findings._replace(test_sets={"gsm8k": {to: findings.cells["gsm8k"]}}),
        }[place](to)
        for to in ("x", text)
    )
    if place == "task":
        benign, hostile = (
            one._replace(comparisons=[], conditions={}, questions=[], further={}) for one in (benign, hostile)
        )
    found = parsed(hostile)
    assert skeleton(found) == skeleton(parsed(benign))
    assert re.sub(r"\s+", "", plain(text)) in re.sub(r"\s+", "", found.text())


@given(st.text(st.characters(exclude_characters="⟨"), max_size=60))
def test_visible_text_loses_nothing_and_holds_no_element_but_its_marks(text: str) -> None:
    tree = Tree(str(visible(text))).root
    assert {one.tag for one in tree.walk()} <= {"", "span"}
    assert tree.text() == plain(text)
    assert re.sub(r"⟨U\+(\w+)⟩", lambda found: chr(int(found[1], 16)), tree.text()) == text
    tree.text().encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a⟨U+0000⟩b"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("\u202egnp", "⟨U+202E⟩gnp"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("a\u00a0b", "a⟨U+00A0⟩b"),
        ("\ud800", "⟨U+D800⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\u3164\ufe0f", "⟨U+3164⟩⟨U+FE0F⟩"),
        ("a\r\n\tb", "a⟨U+000D⟩\n⟨U+0009⟩b"),
        ("3 ≤ π, naïve, 日本, שלום", "3 ≤ π, naïve, 日本, שלום"),
    ],
)
def test_what_would_act_or_hide_is_named_and_ordinary_writing_stays(text: str, shown: str) -> None:
    assert plain(text) == shown


# Every figure


def test_the_overview_has_every_accuracy_with_its_standard_error(tree: Element) -> None:
    assert region(tree, "Accuracy of every system on every benchmark") == [
        ["System", "GSM8K", "MATH-500", "Tooluse"],
        ["Base, thinking", "95.5 ± 1.5", "98.5 ± 0.9", "91.5 ± 2.0"],
        ["Base, not thinking", "9.0 ± 2.0", "7.0 ± 1.8", "10.0 ± 2.1"],
        ["SFT on think + answer", "96.0 ± 1.4", "97.5 ± 1.1", "95.5 ± 1.5"],
        ["SFT on the answer only", "31.2 ± 3.3", "8.0 ± 1.9", "7.0 ± 1.8"],
        ["QThink uniform per-step", "38.4 ± 3.4", "7.0 ± 1.8", "10.5 ± 2.2"],
        ["QThink reward-weighted per-step", "35.1 ± 3.4", "10.0 ± 2.1", "9.5 ± 2.1"],
        ["Reward-weighted final-step (CODI)12", "27.5 ± 3.2", "7.5 ± 1.9", "8.0 ± 1.9"],
    ]
    (notes,) = tree.all("ol", class_="notes")
    assert [one.text() for one in notes.all("li")] == [*SYSTEMS["final_step"].marks]


def test_other_test_sets_have_a_table_with_intervals_and_the_spread_over_seeds(tree: Element) -> None:
    head, first, *_, last = region(tree, "Accuracy on other test sets, systems of GSM8K")
    assert head == ["System", "gsm_hard, n = 1,319", "svamp, n = 300"]
    assert first == ["Base, thinking", "47.8 ± 1.4 (1.3)[45.1, 50.4]", "98.5 ± 0.7[96.4, 99.4]"]
    assert len([*_, first, last]) == len(SYSTEMS)


def test_ours_stand_beside_the_published_results_of_the_same_row(tree: Element) -> None:
    head, names, *found = region(tree, "GSM8K, ours beside the published")
    assert head[1:] == ["This run, n = 200", "Published, Qwen3-1.7B, n = 1,319"]
    assert names == ["System", "Accuracy", "Seeds", "Spread", "Tokens", "At limit", "Accuracy", "Tokens"]
    assert found[0] == [
        *("Base, thinking", "95.5 ± 1.5[91.7, 97.6]", "3", "1.3", "32.2", "1.5"),
        *("77.3[75.0, 79.5]", "1,399think + answer"),
    ]
    assert found[1][-1] == "not published"
    assert len(found[1]) == len(found[0]) - 1
    assert found[4][-2:] == ["83.2[81.1, 85.1]", "1,025answer only"]
    assert "says nothing about the method" in tree.all("aside")[0].text()


def test_further_scores_have_the_published_ones_in_brackets(tree: Element) -> None:
    found = region(tree, "Tooluse, every scorer")
    assert found[0] == ["System", "published action", "published exact", "strict action", "strict exact"]
    assert found[1] == ["Base, thinking", "85.0 (75.0)", "91.5 (47.1)", "86.0", "91.5"]
    assert found[2] == ["Base, not thinking", "85.0", "10.0", "86.0", "10.0"]


def test_every_difference_stands_with_interval_and_both_p_values(tree: Element) -> None:
    found = region(tree, "Differences on GSM8K")
    # 38.4 - 31.2 = 7.2; exp(-90 * 0.072) = 0.00153, times 5 = 0.00767
    assert [one for one in found[1] if one] == [
        *("QThink uniform per-step less SFT on the answer only", "+7.2", "[+1.2, +13.2]", "0.002", "0.008", "yes")
    ]
    assert len(found) == 1 + sum(row.task == "gsm8k" for row in sample().comparisons)


def test_conditions_stand_in_order_with_the_control_beside_them_and_their_verdicts(tree: Element) -> None:
    head, *found = region(tree, "Conditions on GSM8K")
    assert head == [
        *(
            "System",
            "as trained",
            "no latent steps",
            "zeros",
            "noise of the same scale",
            "another question's",
            "mean latent",
        ),
        *("teacher states", "SFT on the answer only", "Base, not thinking"),
    ]
    assert [one.partition("[")[0] for one in found[0]] == [
        *("QThink uniform per-step", "38.4", "19.2", "15.4", "11.5", "23.0", "26.9", "34.6", "31.2", "9.0")
    ]
    terms = [one.text().split() for one in tree.all("dl", class_="verdicts")[0].all("dt")]
    assert [one[-1] for one in terms] == ["earns", "idle", "harmful"]
    sentences = [one.text() for one in tree.all("dl", class_="verdicts")[0].all("dd")]
    assert sentences == [one.sentence for one in sample().conditions["gsm8k"].values()]


def test_the_sweep_has_a_column_for_each_number_of_latent_steps(tree: Element) -> None:
    head, *found = region(tree, "Sweep of latent steps on GSM8K")
    assert head[1:] == [str(k) for k in range(13)]
    # 38.4 % at K = 6, a twelfth less for each step beside it
    assert [one.partition("[")[0] for one in found[0][6:9]] == ["35.2", "38.4", "35.2"]


def test_a_claim_is_one_line_with_its_figures_folded_in_points_or_in_its_unit(tree: Element) -> None:
    claims = tree.all("details", class_="claim")
    lines = [" ".join(one.all("summary")[0].text().split()) for one in claims]
    assert lines == [
        "Per-step supervision is better than final-step GSM8K holds",
        "Latents are better than SFT on think + answer GSM8K opposite",
        "Tokens saved against the base GSM8K holds",
        "All rollouts averaged are better than the right ones GSM8K undecided",
        "256 answer tokens are better than 128 GSM8K undecided",
    ]
    assert not any("open" in one.attributes for one in claims)
    assert [rows(one)[1:] for one in claims] == [
        [["GSM8K", "holds", "+2.3", "+10.9[+5.0, +16.8]", "3", ""]],
        [["GSM8K", "opposite", "+2.5", "−57.6[−64.0, −51.0]", "3", ""]],
        [["GSM8K", "holds", "+374 tokens", "+26.1 tokens[+25.4, +26.9]", "3", ""]],
        [["GSM8K", "undecided", "+0.5", "−3.3[−9.0, +2.7]", "3", ""]],
        [["GSM8K", "undecided", "+3.0", "not run", "0", "not in this run"]],
    ]


@pytest.mark.slow
def test_a_claim_has_a_row_for_each_benchmark_and_says_what_was_not_published() -> None:
    one, other, *_ = sample(0).claims
    both = [one._replace(verdict="undecided"), other, one._replace(benchmark="math500", published=None)]
    assert [(line.words, line.decided) for line in claim_lines(both)] == [(one.words, True), (other.words, False)]
    (first, _) = parsed(sample(0)._replace(claims=both)).all("details", class_="claim")
    assert [row[:3] for row in rows(first)[1:]] == [["GSM8K", "undecided", "+2.3"], ["MATH-500", "holds", "not published"]]


@pytest.mark.slow
def test_claims_with_too_few_seeds_say_above_once_what_to_run() -> None:
    few = [one._replace(seeds=min(one.seeds, 2)) for one in sample().claims]
    assert b"seeds=[" not in page(sample())
    assert page(sample()._replace(claims=few)).count(b"seeds=[0,1,2]") == 1


def test_the_settings_close_the_page(tree: Element) -> None:
    (made,) = tree.all("dl", class_="made")
    found = dict(zip((one.text() for one in made.all("dt")), (one.text() for one in made.all("dd")), strict=True))
    assert found == {name: str(value) for name, value in sample().made_with.items()}


def test_a_question_carries_the_verdict_of_every_system_for_the_filter(tree: Element) -> None:
    verdicts = {one.attributes["data-verdicts"] for one in tree.all("details", class_="question")}
    first = sample().questions[0].answers.values()
    assert " ".join(f"{number}:{answer.verdict}" for number, answer in enumerate(first)) in verdicts


# The sentence on top, and what may be bold


def outcome(differences: list[float], p: float, trainings: int = 3) -> Findings:
    findings = sample(0)
    systems = ["uniform", "reward_weighted", "final_step"]
    found = [
        Comparison("gsm8k", system, control, gain, -1, 1, p, p, trainings)
        for system, difference in zip(systems, differences, strict=True)
        for control, gain in (("answer_only", difference), ("base_direct", 0.2))
    ]
    return findings._replace(comparisons=found, cells={"gsm8k": findings.cells["gsm8k"]})


@pytest.mark.parametrize(
    ("differences", "p", "words"),
    [
        ([0.1, 0.2, 0.3], 0.05, "no latent system is distinguishable from SFT on the answer only, and no latent system"),
        ([0.1, 0.2, 0.3], 0.04, "every latent system is better than SFT on the answer only, and every latent"),
        ([-0.1, -0.2, -0.3], 0.04, "every latent system is worse than SFT on the answer only, and every latent"),
        (
            [0.1, -0.2, -0.3],
            0.04,
            "of 3 results of latent systems 1 is better than SFT on the answer only, 2 are worse and 0 are not",
        ),
    ],
)
def test_the_summary_says_how_latent_systems_stand_to_both_controls(differences: list[float], p: float, words: str) -> None:
    found = summary(outcome(differences, p))
    assert words in found
    assert found.startswith("On 1 benchmark of 200 questions, with 3 training seeds, ")
    assert found.endswith(
        " Right answers: latent systems 27.5–38.4 %; SFT on the answer only 31.2 %; Base, not thinking 9.0 %; "
        "the best system without latents 96.0 %."
    )


def test_the_summary_gives_both_controls_or_none() -> None:
    findings = outcome([0.1, 0.2, 0.3], 0.01)
    for missing in ("control", "direct"):
        said = summary(findings._replace(**{missing: None}))
        assert said == "7 systems on 1 benchmark of 200 questions, with 3 training seeds: accuracy 9.0–96.0 %."


@pytest.mark.parametrize(("trainings", "about"), [(2, True), (3, False)])
def test_below_three_trainings_the_page_calls_differences_those_of_these_weights(trainings: int, about: bool) -> None:
    findings = outcome([0.1, 0.2, 0.3], 0.01, trainings)
    assert ("Base, not thinking (these weights only). Right answers" in summary(findings)) == about
    tree = parsed(findings._replace(curves={}, conditions={}, further={}, power={}))
    assert {row[-1] for row in region(tree, "Differences on GSM8K")[1:]} == {"these weights only" if about else "yes"}
    said = "This is about these weights only: a statement about the method needs 3 trainings."
    assert (said in [one.text() for one in tree.all("strong")]) == about


@pytest.mark.slow
def test_the_power_line_names_questions_trainings_and_what_was_measured() -> None:
    one = Power("uniform", 200, 1, Scatter(0.125, 1.0, 0.0), 0.0934, 0.1512)
    findings = sample(0)._replace(power={"gsm8k": one, "tooluse": one._replace(n=68, alone=0.21, corrected=None)})
    said = power(findings)
    assert "is at most 9.3 points on gsm8k (n=200), 21.0 points on tooluse (n=68). With Holm's correction" in said
    assert f"the only difference among the {len(findings.comparisons)}: 15.1 points, more than possible. " in said
    assert "difference: QThink uniform per-step, QThink uniform per-step; 12.5, 12.5 % of their questions" in said
    assert "(one training, so this is about these weights). A smaller" in said
    three = findings._replace(power={"gsm8k": one._replace(seeds=3, scatter=Scatter(0.125, 0.5, 0.02))})
    assert "(3 trainings with a standard deviation of 2.0 points between them). A smaller" in power(three)
    assert power(findings) in [" ".join(one.text().split()) for one in parsed(findings).all("p", class_="caption")]


def test_the_summary_does_not_mind_which_side_of_a_comparison_the_control_is_on() -> None:
    one = outcome([0.1, 0.2, 0.3], 0.01)
    turned = [row._replace(left=row.right, right=row.left, difference=-row.difference) for row in one.comparisons]
    assert summary(one._replace(comparisons=turned)) == summary(one)


@pytest.mark.slow
def test_a_system_is_bold_only_when_it_is_distinguishable_from_every_other_one() -> None:
    findings = sample(0)
    others = [system for system in SYSTEMS if system != "sft"]
    won = [Comparison("gsm8k", "sft", other, 0.1, 0, 1, 0.001, 0.01) for other in others]
    assert best(findings._replace(comparisons=won), "gsm8k") == "sft"
    assert best(findings._replace(comparisons=won[1:]), "gsm8k") is None
    assert best(findings._replace(comparisons=[won[0]._replace(adjusted_p=0.05), *won[1:]]), "gsm8k") is None
    bold = parsed(findings._replace(comparisons=won)).all("span", class_="best")
    assert [one.text() for one in bold] == ["96.0", "96.0"]


def test_the_matrix_has_every_difference_in_both_directions_and_none_that_was_not_compared() -> None:
    found = matrix(sample(0), "gsm8k")
    assert found.systems == list(SYSTEMS)
    assert found.differences["uniform", "answer_only"] == (pytest.approx(0.072), True)
    assert found.differences["answer_only", "uniform"] == (pytest.approx(-0.072), True)
    assert found.differences["uniform", "reward_weighted"] == (pytest.approx(0.033), False)
    assert ("base", "uniform") not in found.differences


def test_the_matrix_on_the_page_is_rows_less_columns_with_a_dot_for_what_is_not_distinguishable(tree: Element) -> None:
    head, *found = region(tree, "What differs on GSM8K")
    assert head == ["Row less column, points", *(system.name for system in SYSTEMS.values())]
    # 38.4 less 9.0, 96.0, 31.2, 35.1 and 27.5; base was not compared with it, and 3.3 points are not distinguishable
    assert found[4] == ["QThink uniform per-step", "", "+29.4", "−57.6", "+7.2", "", "·", "+10.9"]
    assert found[3][5] == "−7.2"
    coloured = [one.text() for one in tree.all("td", class_="number above")]
    assert "+29.4" in coloured
    assert not any(one.startswith("−") for one in coloured)


# Runs with less in them


@pytest.mark.slow
def test_one_seed_has_no_spread_column() -> None:
    findings = sample(1)
    cells = {task: {key: cell(0.5, 6.0, seeds=1) for key in row} for task, row in findings.cells.items()}
    tree = parsed(findings._replace(cells=cells))
    assert "Spread" not in region(tree, "GSM8K, ours beside the published")[1]
    assert "1 training seed" in tree.all("p", class_="lead")[0].text()


def test_a_run_of_one_task_without_latent_systems_is_a_page_of_results_and_tokens() -> None:
    findings = Findings("tiny", "x", {}, 6, {"base": SYSTEMS["base"]}, {"gsm8k": {"base": cell(0.955, 32.2, seeds=1)}})
    tree = parsed(findings)
    assert [one.attributes["id"] for one in tree.all("section")] == ["results", "tokens", "benchmarks", "made"]
    assert tree.all("p", class_="lead")[0].text() == (
        "1 system on 1 benchmark of 200 questions, with 1 training seed: accuracy 95.5 %."
    )
    assert not tree.all("script")
    links = [one.attributes["href"] for one in tree.all("nav")[0].all("a")]
    assert links == ["#results", "#tokens", "#benchmarks", "#made"]


def test_a_benchmark_and_a_system_that_were_never_published_stand_alone() -> None:
    findings = Findings("mine", "x", {}, 2, {"mine": SYSTEMS["base"]}, {"riddles": {"mine": cell(0.5)}})
    tree = parsed(findings)
    assert region(tree, "riddles, ours beside the published")[1] == [
        "System",
        "Accuracy",
        "Seeds",
        "Spread",
        "Tokens",
        "At limit",
    ]
    assert not tree.all("aside")


@pytest.mark.slow
def test_an_answer_without_text_or_readout_is_shown() -> None:
    question = Question("gsm8k", "q", "p", "1", {"base": Answered("", "unparsable", None, 0, "length")})
    tree = parsed(sample(0)._replace(questions=[question]))
    (answer,) = tree.all("div", class_="answer")
    assert "nothing extracted · 0 tokens · ran into the limit" in answer.text()


# Nothing buries the reader, and no column is cut off in silence


def test_the_page_leads_with_headline_table_verdicts_and_claims(tree: Element) -> None:
    order = ["results", "latents", "claims", "tokens", "sweep", "comparisons", "benchmarks"]
    order += ["training", "questions", "made"]
    assert [one.attributes["id"] for one in tree.all("section")] == order
    assert [one.attributes["href"] for one in tree.all("nav")[0].all("a")] == [f"#{one}" for one in order]
    (first, *_) = tree.all("table")
    assert first.attributes["class"] == "overview"


def test_verdicts_are_a_table_of_words_with_their_sentences_folded(tree: Element) -> None:
    assert region(tree, "The verdict on the latents of every system") == [
        ["System", "GSM8K", "MATH-500", "Tooluse"],
        ["QThink uniform per-step", "earns", "earns", "earns"],
        ["QThink reward-weighted per-step", "idle", "idle", "idle"],
        ["Reward-weighted final-step (CODI)12", "harmful", "harmful", "harmful"],
    ]
    (latents,) = tree.all("section", id="latents")
    folded = [one for details in latents.all("details") for one in details.all("dl", class_="verdicts")]
    assert len(folded) == len(latents.all("dl", class_="verdicts")) == 3


def above(tree: Element, tag: str) -> Iterator[tuple[Element, list[Element]]]:
    """Every element of a kind with those that it is in."""

    def walk(one: Element, outer: list[Element]) -> Iterator[tuple[Element, list[Element]]]:
        if one.tag == tag:
            yield one, outer
        for child in one.children:
            if isinstance(child, Element):
                yield from walk(child, [*outer, one])

    yield from walk(tree, [])


def test_every_table_scrolls_in_a_region_that_a_keyboard_reaches(tree: Element) -> None:
    found = list(above(tree, "table"))
    assert len(found) > 20
    for _, outer in found:
        assert outer[-1].attributes["class"] == "scroll"
        assert outer[-1].attributes["tabindex"] == "0"
        assert outer[-1].attributes["aria-label"]


def rule(selector: str) -> str:
    """The declarations of the first rule with this selector."""
    found = re.search(rf"^{re.escape(selector)} \{{(.*?)\}}", CSS, re.DOTALL | re.MULTILINE)
    assert found, selector
    return found[1]


def test_hidden_columns_leave_a_shadow_at_the_edge() -> None:
    """Four layers, the first on top: covers that scroll with the table hide the shadows, which stay, where it ends."""
    scroll = rule(".scroll")
    assert "overflow-x: auto" in scroll
    layers = re.findall(r"linear-gradient\(to (right|left), var\(--(paper|shade)\).*? no-repeat (local|scroll)", scroll)
    assert layers == [
        ("right", "paper", "local"),
        ("left", "paper", "local"),
        ("right", "shade", "scroll"),
        ("left", "shade", "scroll"),
    ]
    # what is drawn on a cell would hide the shadow: only the fixed first column and the row under the pointer have a ground
    grounds = re.findall(r"^([^\n{]*\b(?:t[dhr]|tbody|table)\b[^\n{]*)\{[^}]*background", CSS, re.MULTILINE)
    assert [one.strip() for one in grounds] == [
        'table th[scope="row"]:first-child',
        "tbody tr:hover > td",
        ".readout td",
    ]


def test_a_narrow_screen_says_that_tables_scroll(tree: Element) -> None:
    (hint,) = tree.all("p", class_="caption sideways")
    assert "scroll sideways" in hint.text()
    assert "display: none" in rule(".sideways")
    assert re.search(r"@media \(max-width: 48rem\) \{ \.sideways \{ display: block; \} \}", CSS)  # 390 px are 24 rem


def test_nothing_but_tables_is_wider_than_a_screen_of_390_pixels() -> None:
    """Fixed widths outside of tables, in rem of 16 px; 390 px less the margins of 1 rem on each side are 22.4 rem."""
    for selector, body in re.findall(r"^([^@\s{}][^{}]*?) \{([^{}]*)\}", CSS, re.MULTILINE):
        if re.search(r"\b(t[dhr]|table|caption)\b|strip|claims|overview|matrix|beside|readout", selector):
            continue
        for width in re.findall(r"(?<![-\w])(?:min-)?width: ([\d.]+)rem", body):
            assert float(width) <= 22.4, selector
        for least in re.findall(r"minmax\((?!0)([^)]*\)?)", body):
            assert least.startswith("min("), f"{selector}: {least}"


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("Mia has 11 pens.\nHow many   now?", "Mia has 11 pens. How many now?"),
        ("Your task is to use tools.\n\nBegin!\nQuestion: Send mails. Take 7.", "Send mails. Take 7."),
        ("word " * 40, "word " * 18 + "…"),
        ("x" * 200, "x" * 90 + " …"),
        ("", ""),
    ],
)
def test_questions_are_listed_by_their_first_words(prompt: str, shown: str) -> None:
    assert first_words(prompt) == shown


# Plots


def test_a_plot_takes_its_colours_from_the_page_and_leaves_text_as_text(tree: Element) -> None:
    figures = [figure.all("svg")[0] for figure in tree.all("figure")]
    assert len(figures) == 3 + 6 + 9 + 3
    for svg in figures:
        styles = " ".join(one.attributes.get("style", "") for one in svg.walk())
        assert not re.search(r"#[0-9a-f]{3,8}|rgb|black|white", styles)
        assert set(re.findall(r"var\((--\w+)\)", styles)) >= {"--ink", "--line"}
        assert svg.attributes["role"] == "img"
        assert svg.all("title")[0].text()
    (tokens,) = tree.all("section", id="tokens")
    assert {"accuracy (%)", "mean generated tokens + latent passes"} <= {one.text() for one in tokens.all("text")}


def test_the_variables_of_the_plots_are_those_of_the_page(tree: Element) -> None:
    defined = set(re.findall(r"(--[\w-]+):", tree.all("style")[0].text()))
    assert {name[4:-1] for name in plots.VARIABLES.values()} <= defined


def test_points_nearer_than_a_marker_are_set_side_by_side_and_others_stay() -> None:
    # 2.2 % of the largest, 100, is 2.2: the two sixes lie around six
    assert spread_out([100.0, 6.0, 6.0]) == [100.0, pytest.approx(4.9), pytest.approx(7.1)]
    assert spread_out([100.0, 50.0, 6.0]) == [100.0, 50.0, 6.0]


def test_long_curves_are_means_of_equally_many_steps() -> None:
    assert thinned(list(range(150))) == list(range(150))
    assert thinned([float(one) for one in range(300)]) == [2 * one + 0.5 for one in range(150)]
    assert thinned([]) == []


def test_the_sweep_is_in_the_order_of_its_steps_and_of_what_probe_decoded() -> None:
    cells = {"trained": cell(0.7), "zeros": cell(0.1), "K=10": cell(0.5), "K=6": cell(0.6), "K=2": cell(0.3)}
    assert swept(Conditions(cells, "", "")) == {2: cell(0.3), 6: cell(0.6), 10: cell(0.5)}


# Colours that can be read

THEMES = {"light": 0, "dark": 1}


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_a_contrast_of_4_5_and_marks_of_3_in_both_themes(theme: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[THEMES[theme]]))
    for text, ground in [
        *(
            ("ink", "paper"),
            ("ink", "tint"),
            ("ink", "plain-tint"),
            ("quiet", "paper"),
            ("quiet", "tint"),
            ("accent", "paper"),
        ),
        *(("good", "good-tint"), ("bad", "bad-tint"), ("hidden", "tint"), ("hidden", "paper"), ("quiet", "plain-tint")),
        *(("good", "paper"), ("bad", "paper")),
    ]:
        assert contrast(colours[text], colours[ground]) >= 4.5, f"{text} on {ground}"
    for number in range(8):
        assert contrast(colours[f"s{number}"], colours["paper"]) >= 3, f"series {number}"


# What was published


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return middle - half, middle + half


@pytest.mark.parametrize(("task", "system"), [(task, system) for task, row in published.RESULTS.items() for system in row])
def test_the_interval_of_a_published_accuracy_is_wilsons(task: str, system: str) -> None:
    row = published.RESULTS[task][system]
    # the accuracy is known to 0.05 points and the interval written to 0.05
    assert (row.low, row.high) == pytest.approx(wilson(row.accuracy, row.n), abs=0.0011)
    assert row.n == {"gsm8k": 1319, "math500": 500, "tooluse": 68}[task]


def test_published_tooluse_scores_are_whole_numbers_of_68_questions() -> None:
    for row in published.FURTHER["tooluse"].values():
        for share in row.values():
            assert abs(68 * share - round(68 * share)) <= 68 * 0.0005


def test_the_sample_covers_what_it_says() -> None:
    assert [len(row) for row in ACCURACIES.values()] == [len(SYSTEMS)] * 3 == [len(TOKENS)] * 3
