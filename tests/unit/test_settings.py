"""A config has what its stages take, and is read back as the dataclasses that it was made from."""

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import ClassVar, Literal

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_config import ROOT, config_of

from spare_jax.keys import FileName, unlisted
from spare_jax.main import known_stages
from spare_jax.pipelines import prm
from spare_jax.runs import settings
from spare_jax.runs.stage import Stage, chosen, execute, experiment
from spare_jax.storage.store import StoreError, WorkDir


@dataclasses.dataclass(frozen=True)
class Model:
    path: FileName = ""
    revision: str | None = None


@dataclasses.dataclass(frozen=True)
class Policy:
    missed: Literal["wrong", "unknown"] = "wrong"


@dataclasses.dataclass(frozen=True)
class Asking(Policy):
    votes: int = 1
    words: tuple[str, ...] = ("a", "b")
    share: float = 0.5
    limit: int | None = None
    context: int = unlisted(0)


@dataclasses.dataclass(frozen=True)
class Group:
    is_group: ClassVar[bool] = True

    model: Model = Model()
    asking: Asking = Asking()
    threshold: float = 0.5


@dataclasses.dataclass(frozen=True)
class Searches:
    by_name: Mapping[str, Asking] = dataclasses.field(default_factory=dict)


def ask(run, group: Group, name: str) -> list[str]:
    run.seen.append((group, name))
    (run.work.path / "asked").write_text(name)
    return ["asked"]


def train(run, asking: Policy) -> list[str]:
    run.seen.append(asking)
    return []


def search(run, searches: Searches, threshold: float = Group.threshold) -> list[str]:
    return []


STAGES = {"ask": Stage(ask, per=("name",)), "train": Stage(train), "search": Stage(search, derived=True)}


def test_a_config_has_what_its_stages_take_and_no_more():
    config = experiment({"train": STAGES["train"]}, seed=1, task="t", asking=Asking(votes=3))
    assert config.to_dict() == {
        "seed": 1, "task": "t", "mesh": {"data": -1, "fsdp": 1, "tensor": 1, "cpu_devices": 2},
        "asking": {"missed": "wrong"}, "stages": ("train",),
    }  # fmt: skip
    config = experiment(STAGES, seed=1, task="t", name="x", asking=Asking(votes=3, context=9))
    assert config.asking.to_dict() == {
        "missed": "wrong", "votes": 3, "words": ("a", "b"), "share": 0.5, "limit": None, "context": 9
    }  # fmt: skip
    assert config.threshold == 0.5 and config.model.to_dict() == {"path": "", "revision": None}
    config.asking.limit, config.model.revision = 3, "main"  # what is None can be set
    with pytest.raises(TypeError):
        config.asking.limit = "many"
    with pytest.raises(ValueError, match="no stage among train takes model"):
        experiment({"train": STAGES["train"]}, seed=1, task="t", model=Model())
    with pytest.raises(ValueError, match="name has no default: give it"):
        experiment(STAGES, seed=1, task="t")


@hypothesis.settings(deadline=None)
@given(
    st.builds(
        Asking,
        missed=st.sampled_from(["wrong", "unknown"]),
        votes=st.integers(),
        words=st.lists(st.text()).map(tuple),
        share=st.floats(allow_nan=False),
        limit=st.none() | st.integers(),
        context=st.integers(),
    )
)
def test_settings_are_read_back_as_they_were(asking):
    assert settings.read(Asking, settings.listed(asking), "config.asking") == asking
    assert settings.read(Policy, asking, "config.asking") == Policy(asking.missed)
    searches = Searches({"one": asking})
    assert settings.read(Searches, settings.listed(searches), "config.searches") == searches


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"votes": "3"}, r"config\.asking\.votes: expected int, found str"),
        ({"votes": True}, r"config\.asking\.votes: expected int, found bool"),
        ({"words": ("a", 3)}, r"config\.asking\.words\[1\]: expected str, found int"),
        ({"share": None}, r"config\.asking\.share: expected float, found NoneType"),
    ],
)
def test_a_value_that_does_not_fit_is_told_by_its_key(changes, words):
    with pytest.raises(ValueError, match=words):
        settings.read(Asking, settings.listed(Asking()) | changes, "config.asking")


def test_unknown_and_renamed_keys_are_told():
    tree = {"models": {"generative": {"path": str}}, "searches": settings.tree_of(Searches)}
    settings.check_keys({"models": {"generative": {"path": ""}}, "searches": {"by_name": {"mine": {"votes": 1}}}}, tree)
    for config, words in (
        ({"model": 1}, r"no config key config\.model: there are models, searches"),
        (
            {"models": {"verifier": {"path": ""}}},
            r"config\.models\.verifier any more: it is config\.models\.generative",
        ),
        ({"searches": {"by_name": {"mine": {"vote": 1}}}}, r"no config key config\.searches\.by_name\.mine\.vote"),
    ):
        with pytest.raises(ValueError, match=words):
            settings.check_keys(config, tree)
    told = settings.no_such_key("config.models.verifier.path")
    assert told == "there is no config key config.models.verifier.path any more: it is config.models.generative.path"


def run_of(path):
    WorkDir(path).path.mkdir(exist_ok=True)
    return types.SimpleNamespace(work=WorkDir(path), failures={}, measured={}, seen=[])


def test_a_manifest_has_what_its_stage_takes(tmp_path):
    (tmp_path / "weights").write_text("1")
    parts = dict(name="x", model=Model(str(tmp_path / "weights")), asking=Asking(votes=3))
    config = experiment(STAGES, seed=1, task="t", **parts).to_dict()
    run = run_of(tmp_path / "work")
    with run.work.lock():
        execute(run, STAGES, config)
        assert run.seen == [(Group(parts["model"], parts["asking"]), "x"), Policy()]
        manifest = json.loads((tmp_path / "work/manifests/ask-x.json").read_text())
        assert set(manifest["settings"]) == {"seed", "task", "mesh", "model", "asking", "threshold", "name"}
        assert list(manifest["inputs"]) == ["config.model.path"]
        trained = json.loads((tmp_path / "work/manifests/train.json").read_text())
        assert trained["settings"]["asking"] == {"missed": "wrong"} and set(trained["settings"]) == {
            "seed", "task", "mesh", "asking"
        }  # fmt: skip
        execute(run, chosen(("train",), STAGES), config | {"asking": {**config["asking"], "votes": 4}})  # not train's
        assert len(run.seen) == 2
        with pytest.raises(StoreError, match=r"config\.asking\.votes=3, this run asks for 4"):
            execute(run, STAGES, config | {"asking": {**config["asking"], "votes": 4}})
        (tmp_path / "weights").write_text("2")
        with pytest.raises(StoreError, match=r"made from another 'config\.model\.path'"):
            execute(run, STAGES, config)


def test_what_does_not_fit_is_told_before_the_first_stage_runs(tmp_path):
    config = experiment(STAGES, seed=1, task="t", name="x").to_dict()
    run = run_of(tmp_path)
    with pytest.raises(ValueError, match=r"config\.asking\.missed"):
        execute(run, STAGES, config | {"asking": {"missed": 3}})
    with pytest.raises(ValueError, match=r"stage ask takes config\.model, and this config has none"):
        execute(run, STAGES, {name: part for name, part in config.items() if name != "model"})
    assert not run.seen


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
def test_every_config_is_read_back(name):
    config = config_of(name, "runlocal").to_dict()
    for stage_name, stage in chosen(config.pop("stages"), known_stages()).items():
        for part, value in stage.arguments(stage_name, config).items():
            if not getattr(type(value), "is_group", False):
                tree = settings.tree_of(type(value)) if dataclasses.is_dataclass(value) else None
                assert settings.listed(value) == settings.pruned(config[part], tree)


def test_the_main_job_shows_its_whole_experiment_in_a_page():
    config = config_of("prm_math")
    assert set(config) == {
        "seed", "task", "stages", "mesh", "data", "models", "engine", "solve", "annotate", "prm"
    }  # fmt: skip
    assert tuple(prm.PIPELINE) == config.stages
