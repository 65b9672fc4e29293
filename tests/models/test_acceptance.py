"""What is taken in as it is, what is changed in a model's files, and what is refused in one line."""

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import tiny_folders
import torch
from families import FAMILIES
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from qthink_core import hub
from qthink_core.benchmarks import bounded_rendering
from qthink_core.benchmarks.rendering import render
from qthink_core.errors import DataError
from qthink_core.method import hidden_states
from qthink_core.models import loading, model_folder, sources, think_tokens
from qthink_core.models.acceptance import chat_template, configs, forward, tokenizer_files
from qthink_core.models.acceptance.chat_template import following
from qthink_core.models.base_params import Base
from qthink_core.planning import source_checks

START = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]"
SWITCH = "{% if enable_thinking is defined and enable_thinking is false %}"


def with_template(template: str) -> Any:
    tokenizer = families.tokenizer(FAMILIES["Qwen3"])
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "thinking", "thoughtful", "direct"),
    [
        # a template that opens the block itself, in each way of writing newlines
        ("<think>\n{% endif %}", "native", "<think>\n", "<think>\n\n</think>\n\n"),
        ("{{ '<think>\\n' }}{% endif %}", "native", "<think>\n", "<think>\n\n</think>\n\n"),
        ("{{ '<think>' }}{% endif %}", "native", "<think>", "<think>\n\n</think>\n\n"),
        ("{{ '<think>\\n\\n' }}{% endif %}", "native", "<think>\n\n", "<think>\n\n</think>\n\n"),
        ("{{ '<think>\\n\\n\\n' }}{% endif %}", "native", "<think>\n\n\n", "<think>\n\n\n</think>\n\n"),
        ("{{ '<think>\\n' }}{% endif %}", "added", "<think>\n", "<think>\n\n</think>\n\n"),
        ("{{ '<think>' }}{% endif %}\n", "added", "<think>", "<think>\n\n</think>\n\n"),
        # a template with a switch is left as it is, whatever it writes between the marks
        (SWITCH + "<think></think>{% endif %}{% endif %}", "native", "", "<think></think>"),
        (SWITCH + "{{ '<think>\\n</think>\\n' }}{% endif %}{% endif %}", "added", "", "<think>\n</think>\n"),
        (
            SWITCH + "{{ '<think>\\n\\n</think>\\n\\n' }}{% else %}{{ '<think>\\n' }}{% endif %}{% endif %}",
            "native",
            "<think>\n",
            "<think>\n\n</think>\n\n",
        ),
        # a template that knows no thinking
        ("{% endif %}", "added", "<think>\n", "<think>\n\n</think>\n\n"),
        ("{% endif %}\n", "added", "<think>\n", "<think>\n\n</think>\n\n"),
    ],
)
def test_a_template_follows_the_convention_without_a_mark_too_many(
    end: str, thinking: str, thoughtful: str, direct: str
) -> None:
    tokenizer = with_template(START + end)
    tokenizer.chat_template, _ = following(tokenizer, thinking, "x")
    start = "[user]Hello<|im_end|>[assistant]"
    assert chat_template.prompts(tokenizer, "x") == (start + direct, start + thoughtful)
    assert chat_template.empty_block(tokenizer, "x") == direct
    assert following(tokenizer, thinking, "x") == (tokenizer.chat_template, [])  # once is enough
    assert chat_template.conversation(tokenizer, "x") == "[user]Hello<|im_end|>[assistant]Goodbye<|im_end|>"


@pytest.mark.parametrize(
    ("template", "thinking", "said"),
    [
        (START + "{% endif %}", "native", r"is expected: set thinking to `added`, or take a model that thinks"),
        (START + "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}", "added", "where no thought can begin"),
        (START + "</think>{% endif %}", "added", "where no thought can begin"),
        (START + "{{ '<think>\\nOkay' }}{% endif %}", "added", "where no thought can begin"),
        (START + "{{ '<think> ' }}{% endif %}", "native", "where no thought can begin"),
        (
            SWITCH + "/no {% endif %}" + START + SWITCH + "<think></think>{% endif %}{% endif %}",
            "native",
            "changes more with",
        ),
        (START + SWITCH + "be brief{% endif %}{% endif %}", "added", "where an empty think block"),
        ("{{ raise_exception('no chat') }}", "added", r"^x cannot be used \(no chat\): take another model$"),
        ("{% for %}", "added", "cannot be used"),
        ("{{ strftime_now(format) }}" + START + "{% endif %}", "added", "today's date in a form that is not known"),
        *(
            (clock + START + "{% endif %}", "added", "today's date in a form")
            for clock in (
                "{{ strftime_now('%Y') }}{{ strftime_now(f) }}",
                "{% set now = strftime_now %}{{ now('%Y') }}",
                "{{ strftime_now(format='%Y') }}",
                "{{ strftime_now('%Y' + '%m') }}",
                "{{ ['%Y'] | map(strftime_now) | first }}",
                "{# macro strftime_now #}{{ strftime_now(f) }}",
            )
        ),
        *((text + START + "{% endif %}", "added", "something random") for text in ("{{ [1, 2]|random }}", "{{ lipsum() }}")),
    ],
)
def test_a_template_that_cannot_follow_is_refused_in_one_line(template: str, thinking: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        following(with_template(template), thinking, "x")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_date_in_any_spelling_of_the_call_is_that_of_the_day(tmp_path: Path) -> None:
    tokenizer = with_template(
        "{% if strftime_now is defined %}{{ strftime_now ( '%Y-%m' ) }}{% endif %}" + START + "{% endif %}"
    )
    tokenizer.chat_template, changes = following(tokenizer, "added", "x")
    assert chat_template.conversation(tokenizer, "x").startswith("2024-07[user]")
    assert len(changes) == 2


BOMBS = {
    "time": "{% for a in range(9999) %}" * 3 + "{% endfor %}" * 3,
    "memory": "{{ 'a' * 10 ** 10 }}",
    "a direct prompt alone": SWITCH + "{{ 'a' * 10 ** 10 }}{% endif %}",
    "text": "{{ 'a' * 2 ** 20 }}",
}


@pytest.mark.bounded
@pytest.mark.parametrize("bomb", [pytest.param("time", marks=pytest.mark.slow), *sorted({*BOMBS} - {"time"})])
def test_a_template_that_would_take_all_time_or_memory_is_ended_and_refused(
    bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_rendering, "SECONDS", 1)
    monkeypatch.setattr(bounded_rendering, "MAX_REPLY_BYTES", 1 << 20)
    said = r"^x takes more than 1 s, 1 GiB of memory or 1 MiB of text for a short conversation: take another model$"
    with pytest.raises(DataError, match=said):
        following(with_template(BOMBS[bomb] + START + "{% endif %}"), "added", "x")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Llama-3.2", "Granite-3"])
def test_a_prompt_does_not_depend_on_the_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = families.tokenizer(FAMILIES[name])
    tokenizer.chat_template, changes = following(tokenizer, "added", "x")
    assert changes[0] == "the chat template writes 2024-07-26 in place of today's date"
    text, _ = chat_template.prompts(tokenizer, "x")
    assert {"Llama-3.2": "Today Date: 26 Jul 2024\n", "Granite-3": "Today's Date: July 26, 2024.\n"}[name] in text


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_begins_with_one_bos_or_none(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    tokenizer, written = families.tokenizer(family), "bos_token" in family.template
    assert (tokenizer("Hi")["input_ids"][0] == tokenizer.bos_token_id) == written
    (tmp_path / "page.py").write_text(
        "messages = " + PAGE.read_text().partition("messages = ")[2].partition("with torch")[0]
    )
    found = runpy.run_path(str(tmp_path / "page.py"), {"tokenizer": tokenizer})
    ids = render(tokenizer, "QUESTION", thinking=False)
    assert found["inputs"]["input_ids"].tolist() == [ids]
    assert ids[:2].count(tokenizer.bos_token_id) == written


def rope(**values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 512} | values}


PAGE = Path(__file__).parents[2] / "docs/use.md"
SMALL_STATE = {"mamba_d_ssm": 32, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_parameters": None}, "the rule 'dynamic'"),
        (rope(rope_type="dynamic"), "the rule 'dynamic', which depends on the longest sequence of a batch"),
        (rope(rope_type="longrope", **FACTORS), "the rule 'longrope'"),
        ({"model_type": "gemma3", "text_config": {}, "vision_config": {}}, "not a decoder of text alone"),
        ({"model_type": "t5"}, "not a decoder of text alone"),
        ({"model_type": "no-such-model"}, "cannot be loaded"),
        ({"hidden_size": "wide"}, "cannot be loaded"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused_in_one_line(edit: dict[str, Any], said: str, tmp_path: Path) -> None:
    families.save(tmp_path, FAMILIES["Qwen3"])
    content = json.loads((tmp_path / "config.json").read_bytes()) | edit
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=said) as error:
        configs.config_of(tmp_path)
    assert "\n" not in str(error.value)


def test_a_rule_that_does_not_depend_on_the_batch_is_taken(tmp_path: Path) -> None:
    for kind in ("linear", "yarn"):
        families.save(tmp_path / kind, FAMILIES["Qwen3"], **rope(rope_type=kind))
        configs.config_of(tmp_path / kind)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_logits_are_bit_for_bit_those_of_the_models_own_forward(name: str, dtype: str, tmp_path: Path) -> None:
    model = families.save(tmp_path, FAMILIES[name]).to(getattr(torch, dtype))
    ids = torch.arange(12).reshape(2, 6)
    own = model(input_ids=ids).logits.float()
    hidden = hidden_states.last_hidden(model, input_ids=ids, mask=torch.ones_like(ids))
    assert torch.equal(hidden_states.logits(model, hidden), own)
    if name in ("Granite-3", "Gemma-2", "Command-R"):
        assert not torch.equal(model.get_output_embeddings()(hidden).float(), own)


@pytest.mark.parametrize(
    ("kind", "config", "part"),
    [
        ("hyperclovax", {"logits_scaling": 0.25}, "the logits after its output head would be computed wrongly"),
        ("gemma4_text", {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300}, "inputs that are embeddings"),
        ("falcon_h1", SMALL_STATE, "keeps more than keys and values: LinearAttentionAndFullAttentionLayer"),
    ],
)
def test_an_architecture_that_would_be_computed_wrongly_is_refused_by_name(
    kind: str, config: dict[str, Any], part: str, tmp_path: Path
) -> None:
    model = families.save(tmp_path, FAMILIES["Qwen2.5-Math"]._replace(kind=kind, config=config))
    with pytest.raises(DataError, match=part) as error:
        forward.check(tmp_path)
    assert type(model).__name__ in str(error.value)


def test_a_cap_that_small_weights_do_not_reach_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    families.save(tmp_path, FAMILIES["Gemma-2"], initializer_range=0.002)
    forward.check(tmp_path)
    monkeypatch.setattr(forward, "logits", lambda model, hidden: model.get_output_embeddings()(hidden).float())
    with pytest.raises(DataError, match="Gemma2ForCausalLM, of which the logits after its output head"):
        forward.check(tmp_path)


def test_attention_that_is_capped_is_not_computed_by_the_kernel_that_leaves_the_cap_out(tmp_path: Path) -> None:
    families.save(tmp_path, FAMILIES["Gemma-2"], attn_logit_softcapping=0.5)
    model = loading.load_model(tmp_path, torch.device("cpu"), "float32")
    ids = torch.arange(10)[None]
    by_kernel = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert not torch.allclose(model(ids).logits, by_kernel(ids).logits, rtol=1e-2)
    by_hand = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert torch.equal(model(ids).logits, by_hand(ids).logits)


def source(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, **options: Any) -> Path:
    tiny_folders.save(folder, tokenizer or tiny_folders.plain_tokenizer(), **options)
    return folder


def edited(folder: Path, name: str, **values: Any) -> None:
    content = json.loads((folder / name).read_bytes()) | values
    (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def settled(folder: Path, out: Path) -> list[str]:
    sources.from_folder(folder, out)
    return tokenizer_files.settle(out)


@pytest.mark.slow
def test_a_tokenizer_that_needs_nothing_is_left_as_it_is(tmp_path: Path) -> None:
    assert settled(source(tmp_path / "a"), tmp_path / "b") == []


@pytest.mark.slow
def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    edited(source(tmp_path / "a"), "tokenizer_config.json", pad_token=None)
    assert settled(tmp_path / "a", tmp_path / "b") == ["pad_token is <|im_end|>, since there was none"]
    assert loading.load_tokenizer(tmp_path / "b").pad_token_id == 2


@pytest.mark.slow
def test_the_end_token_is_what_ends_a_turn(tmp_path: Path) -> None:
    edited(source(tmp_path / "a"), "tokenizer_config.json", eos_token="<|endoftext|>")
    edited(tmp_path / "a", "generation_config.json", eos_token_id=0)
    changes = settled(tmp_path / "a", tmp_path / "b")
    assert changes[0] == "eos_token is <|im_end|>, which ends a turn, in place of <|endoftext|>"
    assert loading.load_tokenizer(tmp_path / "b").eos_token_id == 2
    assert model_folder.read_json(tmp_path / "b/generation_config.json")["eos_token_id"] == [2, 0]
    assert model_folder.check(tmp_path / "b")["tokens"]


@pytest.mark.slow
def test_special_tokens_that_only_an_older_file_names_are_read(tmp_path: Path) -> None:
    edited(source(tmp_path / "a"), "tokenizer_config.json", eos_token=None, pad_token=None)
    (tmp_path / "a/special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>", "pad_token": "<|im_start|>"}))
    assert settled(tmp_path / "a", tmp_path / "b") == []
    assert loading.load_tokenizer(tmp_path / "b").pad_token == "<|im_start|>"


@pytest.mark.slow
@pytest.mark.parametrize("listed", ["a", [2, "a"], -1, 10**12, 2.5])
def test_an_end_of_generation_that_is_no_token_is_refused(tmp_path: Path, listed: Any) -> None:
    edited(source(tmp_path / "a"), "generation_config.json", eos_token_id=listed)
    with pytest.raises(DataError, match=r"generation_config\.json has the eos_token_id \S+, which is no token: correct it$"):
        settled(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_lengths_to_cut_and_to_pad_to_change_no_think_token(tmp_path: Path) -> None:
    lengths = {
        "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 99},
            "direction": "Right",
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
    }
    for name, values in (("plain", {}), ("cut", lengths)):
        edited(source(tmp_path / name), "tokenizer.json", **values)
        assert settled(tmp_path / name, tmp_path / f"{name} out") == []
        think_tokens.with_thinking(tmp_path / f"{name} out", "added")
    weights = [(tmp_path / f"{name} out" / model_folder.WEIGHTS).read_bytes() for name in ("plain", "cut")]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("thinking", ["native", "added"])
def test_marks_that_are_special_tokens_are_kept_by_decoding_afterwards(tmp_path: Path, thinking: str) -> None:
    tokenizer = tiny_folders.plain_tokenizer()
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in ("<think>", "</think>")], special_tokens=True)
    tokenizer.chat_template = families.QWEN3_THINKING
    source(tmp_path / "a", tokenizer)
    edited(tmp_path / "a", "tokenizer_config.json", extra_special_tokens=["<think>", "</think>"])
    said = "</think> and <think> are no special tokens, so decoding keeps them"
    assert settled(tmp_path / "a", tmp_path / "b") == [said]
    think_tokens.with_thinking(tmp_path / "b", thinking)  # type: ignore[arg-type]
    after = loading.load_tokenizer(tmp_path / "b")
    ids = after.encode("<think>\nthink</think><|im_end|>", add_special_tokens=False)
    assert after.decode(ids, skip_special_tokens=True) == "<think>\nthink</think>"
    assert len(after) == len(tokenizer)


@pytest.mark.slow
def test_a_class_that_reads_the_tokenizer_otherwise_than_it_is_written_is_replaced(tmp_path: Path) -> None:
    """As for DeepSeek-R1-Distill-Llama, which transformers know by its name on the hub alone."""
    edited(source(tmp_path / "a"), "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    assert loading.load_tokenizer(tmp_path / "a").encode("a b", add_special_tokens=False) != [68, 32, 69]
    (said,) = settled(tmp_path / "a", tmp_path / "b")
    assert said.startswith("tokenizer_class is PreTrainedTokenizerFast in place of LlamaTokenizerFast")
    written = tiny_folders.plain_tokenizer().encode("a  b\n\nc", add_special_tokens=False)
    assert loading.load_tokenizer(tmp_path / "b").encode("a  b\n\nc", add_special_tokens=False) == written


@pytest.mark.slow
def test_added_tokens_are_listed_where_a_class_reads_them_from(tmp_path: Path) -> None:
    source(tmp_path / "a")
    entry = {"content": "<|endoftext|>", "special": True, "lstrip": False, "rstrip": False, "single_word": False}
    edited(tmp_path / "a", "tokenizer_config.json", added_tokens_decoder={"0": entry | {"normalized": False}})
    sources.from_folder(tmp_path / "a", tmp_path / "b")
    think_tokens.with_thinking(tmp_path / "b", "added")
    listed = model_folder.read_json(tmp_path / "b/tokenizer_config.json")["added_tokens_decoder"]
    assert {number: one["content"] for number, one in listed.items()} == {
        "0": "<|endoftext|>",
        "266": "<think>",
        "267": "</think>",
    }


def test_a_tokenizer_that_is_larger_than_the_embeddings_gets_no_rows_of_zeros(tmp_path: Path) -> None:
    tokenizer = tiny_folders.plain_tokenizer()
    tokenizer.add_tokens(["one more"])
    source(tmp_path / "a", tokenizer, rows=266)
    sources.from_folder(tmp_path / "a", tmp_path / "b")
    with pytest.raises(DataError, match=r"has 267 tokens \(the last is 'one more'\) but 266 embedding rows"):
        think_tokens.with_thinking(tmp_path / "b", "added")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = model_folder.read_tensors(folder / model_folder.WEIGHTS)
    change(tensors)
    model_folder.write_tensors(folder, tensors)


def add_frequencies(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)


def repeat_embeddings(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


@pytest.mark.parametrize("change", [add_frequencies, repeat_embeddings])
def test_tensors_that_say_nothing_new_are_left_out(tmp_path: Path, change: Callable[[Any], None]) -> None:
    sources.from_folder(source(tmp_path / "plain", tied=True), tmp_path / "a")
    change_tensors(source(tmp_path / "more", tied=True), change)
    sources.from_folder(tmp_path / "more", tmp_path / "b")
    weights = (tmp_path / "a" / model_folder.WEIGHTS).read_bytes()
    assert (tmp_path / "b" / model_folder.WEIGHTS).read_bytes() == weights


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_of_8_bits_are_refused_as_quantised(tmp_path: Path, dtype: torch.dtype) -> None:
    change_tensors(source(tmp_path / "a"), lambda held: held.update({name: one.to(dtype) for name, one in held.items()}))
    sources.from_folder(tmp_path / "a", tmp_path / "b")
    said = rf"in {str(dtype).removeprefix('torch.')}, which is quantised: take the unquantised model$"
    with pytest.raises(DataError, match=said):
        model_folder.check(tmp_path / "b")


@pytest.mark.parametrize("name", [model_folder.WEIGHTS, model_folder.TOKENIZER])
def test_a_pointer_of_git_lfs_in_place_of_a_file_is_said_to_be_one(tmp_path: Path, name: str) -> None:
    (source(tmp_path / "a") / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:90d9\nsize 10\n")
    with pytest.raises(DataError, match=rf"a/{name} is a pointer of Git LFS and not the file: run `git lfs pull`"):
        sources.from_folder(tmp_path / "a", tmp_path / "b")


TEMPLATES = [
    (b"\xff", None, r"chat_template\.jinja of .*a is not UTF-8 \(byte 1\): fetch it again$"),
    (None, ["x"], "has no chat template"),
    (None, [{"name": "tools", "template": "x"}], "has no chat template"),
    (None, [{"template": "x"}, {"name": "default"}], "has no chat template"),
    (None, [{"name": "tools", "template": "x"}, {"name": "default", "template": START + "{% endif %}"}], None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "listed", "said"), TEMPLATES)
def test_preflight_and_base_read_the_same_template_of_several_or_refuse_it_alike(
    tmp_path: Path, file: bytes | None, listed: list[Any] | None, said: str | None
) -> None:
    path = source(tmp_path / "a") / model_folder.TEMPLATE
    path.unlink() if file is None else path.write_bytes(file)
    edited(tmp_path / "a", "tokenizer_config.json", chat_template=listed)
    (check,) = source_checks.base_model(Base.model_validate({"thinking": "added", "folder": str(tmp_path / "a")}))
    assert isinstance(check, source_checks.Check)
    if said is None:
        sources.from_folder(tmp_path / "a", tmp_path / "b")
        assert check.passed
        assert (tmp_path / "b" / model_folder.TEMPLATE).read_text() == START + "{% endif %}"
        return
    assert not check.passed
    with pytest.raises(DataError, match=said) as error:
        sources.from_folder(tmp_path / "a", tmp_path / "b")
    assert str(error.value) == check.text


def test_a_tied_output_head_that_differs_is_refused(tmp_path: Path) -> None:
    change_tensors(source(tmp_path / "a", tied=True), lambda held: held.update({"lm_head.weight": torch.ones(266, 32)}))
    with pytest.raises(DataError, match=r"its lm_head\.weight differs from model\.embed_tokens\.weight"):
        sources.from_folder(tmp_path / "a", tmp_path / "b")


def test_shards_of_any_names_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is a folder here, of which only the files that are asked for arrive."""
    remote, local = source(tmp_path / "remote", max_shard_size="20KB"), tmp_path / "local"
    index = json.loads((remote / model_folder.INDEX).read_bytes())
    new = {shard: f"part {number} [of many].safetensors" for number, shard in enumerate(set(index["weight_map"].values()))}
    for old, name in new.items():
        (remote / old).rename(remote / name)
    index["weight_map"] = {tensor: new[shard] for tensor, shard in index["weight_map"].items()}
    (remote / model_folder.INDEX).write_text(json.dumps(index))

    def fetched(repo: str, revision: str, files: list[str]) -> Path:
        local.mkdir(exist_ok=True)
        from huggingface_hub.utils import filter_repo_objects

        for name in filter_repo_objects([path.name for path in remote.iterdir()], allow_patterns=files):
            shutil.copy(remote / name, local / name)
        return local

    monkeypatch.setattr(hub, "model_folder", fetched)
    monkeypatch.setattr(hub, "cached_model_folder", lambda repo, revision: None)
    sources.from_hub("owner/name", "0" * 40, tmp_path / "a")
    sources.from_folder(source(tmp_path / "whole"), tmp_path / "b")
    for name in model_folder.FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_a_mixture_of_experts_is_refused_by_that_name(tmp_path: Path) -> None:
    families.save(tmp_path / "a", FAMILIES["Qwen3"]._replace(kind="qwen3_moe", config={}))
    sources.from_folder(tmp_path / "a", tmp_path / "b")
    with pytest.raises(DataError, match="holds a mixture of experts"):
        model_folder.check(tmp_path / "b")


def test_settings_of_generation_that_transformers_would_not_save_are_refused_here(tmp_path: Path) -> None:
    edited(source(tmp_path / "a"), "generation_config.json", do_sample=False, num_beams=1, num_return_sequences=3)
    sources.from_folder(tmp_path / "a", tmp_path / "b")
    with pytest.raises(DataError, match="holds no usable language model"):
        model_folder.check(tmp_path / "b")
    assert AutoConfig.from_pretrained(tmp_path / "b").model_type == "llama"
