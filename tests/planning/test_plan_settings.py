"""`-S` of `qthink plan` and `qthink preflight`: what it makes of the parameters is what DVC would write into the files."""

import shutil
from pathlib import Path

import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides
from imports import ROOT

from qthink_core.errors import ParamError
from qthink_core.pipeline.graph import checked_parameters
from qthink_core.planning.settings import checked_with

SETTINGS = [
    ["scale=small"],
    ["tasks=[gsm8k]"],
    ["scale=small", "params/small.yaml:probe.sweep=2", "params.yaml:gamma=1.0"],
    ["scale=paper", "params/paper.yaml:prepare.n_train=all", "params/paper.yaml:train.lr_multiplier=2.0e-1"],
    ["params/tiny.yaml:train.lora.merged=false", "K=3", "seeds=[0,1]"],
    ["~systems.finetuned.sft", "systems.trained=[answer_only,uniform,reward_weighted,undistilled,final_step]"],
    ["params/tiny.yaml:~base.pretrain", "params/tiny.yaml:+base.folder=bases/mine"],
    ["+systems.distilled.uniform.gamma=1.0"],
]


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_a_setting_has_the_effect_that_it_has_in_dvc(settings: list[str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    found = checked_with(tmp_path, None, settings)
    assert found != checked_parameters(tmp_path)
    for one in settings:
        ((file, overrides),) = to_path_overrides([one]).items()
        apply_overrides(tmp_path / file, overrides)
    assert found == checked_parameters(tmp_path)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("gamma", r"-S 'gamma' is not a setting: expected key=value, \+key=value or ~key, as in gamma=1\.0$"),
        ("params/../x.yaml:K=1", "is not a setting"),
        ("probe.swep=1", r"-S 'probe\.swep=1': probe\.swep is missing from the params files"),
        ("~systems.finetuned.sfd", r"systems\.finetuned\.sfd is missing from the params files"),
        ("+systems.finetund.sft.target=answer", r"systems\.finetund\.sft is missing from the params files"),
        # DVC would look for it in params.yaml
        ("probe.sweep=1", r"probe\.sweep is in params/tiny\.yaml: write params/tiny\.yaml:probe\.sweep=1$"),
        ("params/paper.yaml:probe.sweep=1", r"is in params/tiny\.yaml: write params/tiny\.yaml:probe\.sweep=1$"),
        ("+base.folder=x", r"base is in params/tiny\.yaml: write params/tiny\.yaml:\+base\.folder=x$"),
        ("params/tiny.yaml:K=7", r"K is in params\.yaml: write params\.yaml:K=7$"),
        ("K=[", r"-S 'K=\[': the value is not valid YAML at line 1, column 2: "),
        ("K=six", "K is 'six': input should be a valid integer"),
        ("~systems.finetuned.sft", "systems.trained names sft"),
        # DVC reads such names, too, and the check of the names says what they must be
        ("+systems.distilled.per-step={teacher: uniform}", r"systems\.distilled has the name 'per-step', expected a small"),
        ("+data.a/b={}", "data has the name 'a/b', expected a small letter"),
        ("params/tiny.yaml:prepare.n_train=all", "prepare.n_train is 'all', but prepare.source is generated"),
        ("scale=huge", "--scale is 'huge': expected one of"),
    ],
)
def test_a_setting_that_would_have_no_effect_or_a_wrong_one_is_refused(setting: str, said: str) -> None:
    with pytest.raises(ParamError, match=said):
        checked_with(ROOT, None, [setting])
