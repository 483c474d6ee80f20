"""A model directory that anybody may have written: what is wrong with it is one line, no code of it runs, and nothing
that it says of its size is believed."""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tests_config import ROOT

from spare_jax import assets, doctor
from spare_jax.models import config_json, huggingface, peft, safetensors_files, weights
from spare_jax.models.json_files import MAX_BYTES
from spare_jax.prompts import templates
from spare_jax.prompts.chat import encode_chat, end_ids

TINY = assets.directory("tiny-base")
CONFIG = json.loads((TINY / "config.json").read_text())


@pytest.fixture
def tiny(tmp_path):
    """A copy of an embedded model."""
    return shutil.copytree(TINY, tmp_path / "model")


def text(name, content):
    return lambda directory: (directory / name).write_text(content)


def edited(name, **changes):
    def edit(directory):
        path = directory / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(content | changes))

    return edit


def config(**changes):
    return edited("config.json", **changes)


def template(content):
    return text("chat_template.jinja", content)


def sparse(name, size):
    """A file that says it has `size` bytes and takes none."""

    def write(directory):
        (directory / name).touch()
        os.truncate(directory / name, size)

    return write


def removed(*names):
    return lambda directory: [(directory / name).unlink() for name in names]


def both(one, other):
    return lambda directory: (one(directory), other(directory))


def folder(name):
    def make(directory):
        (directory / name).unlink(missing_ok=True)
        (directory / name).mkdir()

    return make


def index(name, weight_map=None):
    """The weights by an index in which one tensor lies in the file `name`."""

    def write(directory):
        (directory / "model.safetensors").rename(directory / "part.safetensors")
        names = load_file(directory / "part.safetensors")
        found = dict.fromkeys(names, "part.safetensors") | {"lm_head.weight": name}
        content = {"weight_map": found if weight_map is None else weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(content))

    return write


def header(change, length=None, name="model.safetensors"):
    """The header of the weights as `change` makes it, its length as it is or as given."""

    def write(directory):
        path = directory / name
        old = path.read_bytes()
        size = struct.unpack("<Q", old[:8])[0]
        new = json.dumps(change(json.loads(old[8 : 8 + size]))).encode()
        path.write_bytes(struct.pack("<Q", len(new) if length is None else length) + new + old[8 + size :])

    return write


NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"


def entry(name, **changes):
    return header(lambda found: found | {name: found[name] | changes})


def overlapping(found):
    """Two tensors in the same bytes, and as many bytes as before in all."""
    names = sorted(found, key=lambda name: found[name].get("data_offsets", [-1])[0])
    names = [name for name in names if name.startswith("model.layers.0.") and "norm" in name]
    return found | {names[0]: found[names[1]]}


def adapter(**changes):
    """The directory as that of an adapter, over the embedded model."""

    def write(directory):
        for file in directory.iterdir():
            file.unlink()
        content = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(TINY)} | changes
        (directory / peft.CONFIG_FILE).write_text(json.dumps(content))
        first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        save_file({first: np.zeros((4, 128), np.float32)}, directory / peft.WEIGHTS_FILE)

    return write


BOMB = "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
LOOP = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
MESSAGES = "{% for m in messages %}{{ m.content }}{% endfor %}"

BROKEN = {
    "config: a list": (text("config.json", "[]"), "config.json holds .* no JSON object"),
    "config: null": (text("config.json", "null"), "no JSON object"),
    "config: a number of 5000 digits": (text("config.json", "9" * 5000), "config.json is no JSON"),
    "config: nested": (text("config.json", "[" * 100_000), "config.json is no JSON"),
    "config: no text": (lambda d: (d / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is no JSON"),
    "config: empty": (text("config.json", ""), "config.json is no JSON"),
    "config: huge": (sparse("config.json", 3 << 30), "config.json has 3,221,225,472 bytes"),
    "config: a folder": (folder("config.json"), "config.json is missing"),
    "config: gone": (removed("config.json"), "config.json is missing"),
    "rope: a text": (config(rope_scaling="linear"), "rope_scaling='linear'"),
    "rope: a list": (config(rope_parameters=[1]), r"rope_parameters=\[1\]"),
    "rope: type of a list": (config(rope_scaling={"rope_type": []}), "rope_scaling=.*rope_type"),
    "rope: factor": (
        config(rope_scaling={"rope_type": "llama3", "factor": "8", "low_freq_factor": 1, "high_freq_factor": 4}),
        "factor='8'",
    ),
    "a billion layers": (config(num_hidden_layers=10**9), "num_hidden_layers=1000000000"),
    "a vocabulary of 1e12": (config(vocab_size=10**12), "vocab_size=1000000000000"),
    "hidden size as text": (config(hidden_size="128"), "hidden_size='128'"),
    "layers: true": (config(num_hidden_layers=True), "num_hidden_layers=True"),
    "heads: zero": (config(num_attention_heads=0), "num_attention_heads=0"),
    "heads: negative": (config(num_key_value_heads=-2), "num_key_value_heads=-2"),
    "epsilon: NaN": (config(rms_norm_eps=float("nan")), "rms_norm_eps=nan"),
    "theta: null": (config(rope_theta=None), "rope_theta=None"),
    "tied: a text": (config(tie_word_embeddings="yes"), "tie_word_embeddings='yes'"),
    "architectures: a text": (config(architectures="LlamaForCausalLM"), "architectures='LlamaForCausalLM'"),
    "architectures: of numbers": (config(architectures=[[1]]), "architectures="),
    "weights: cut": (lambda d: os.truncate(d / "model.safetensors", 5000), "no complete safetensors file"),
    "weights: empty": (text("model.safetensors", ""), "no complete safetensors file"),
    "weights: gone": (removed("model.safetensors"), "neither model.safetensors nor"),
    "header: 6 GB": (both(header(dict, 6 << 30), sparse("model.safetensors", 7 << 30)), "header has 6,442,"),
    "header: longer than the file": (header(dict, 2**63), "the header is cut off"),
    "header: shorter than it is": (header(dict, 100), "no complete safetensors file"),
    "header: a list": (header(lambda _: [1]), "the header is no object"),
    "header: an entry of null": (header(lambda found: found | {NORM: None}), "has no dtype"),
    "offsets: the same bytes twice": (header(overlapping), "begins at"),
    "offsets: beyond the file": (entry(NORM, data_offsets=[0, 10**15]), "begins at|header names"),
    "offsets: negative": (entry(NORM, data_offsets=[-512, 0]), "data_offsets"),
    "offsets: backwards": (entry(NORM, data_offsets=[512, 0]), "data_offsets"),
    "offsets: texts": (entry(NORM, data_offsets=["0", "512"]), "data_offsets"),
    "offsets: one": (entry(NORM, data_offsets=[0]), "data_offsets"),
    "shape: another": (entry(NORM, shape=[64]), "not those of"),
    "shape: of 1e18": (entry(NORM, shape=[10**9, 10**9]), "not those of"),
    "shape: true": (entry(NORM, shape=[True]), "shape"),
    "dtype: of half the bytes": (entry(NORM, dtype="F16"), "not those of"),
    "dtype: unknown": (entry(NORM, dtype="I8"), "convert the weights"),
    "dtype: a list": (entry(NORM, dtype=["F32"]), "has no dtype"),
    "name: two lines": (header(lambda found: found | {f"{NORM}\n\x1b[2J": found.pop(NORM)}), "has no place"),
    "index: outside": (index("../x.safetensors"), "weight_map names '../x.safetensors'"),
    "index: absolute": (index("/etc/x.safetensors"), "weight_map names"),
    "index: a folder's": (index("a\\x.safetensors"), "weight_map names"),
    "index: a number": (index(3), "weight_map names 3"),
    "index: a file that is not there": (index("other.safetensors"), "other.safetensors is missing"),
    "index: without names": (index("", {}), "weight_map="),
    "index: names are a list": (index("", []), "weight_map="),
    "tokenizer: no JSON": (text("tokenizer.json", "{"), "cannot read the tokenizer"),
    "tokenizer: a list": (text("tokenizer.json", "[]"), "cannot read the tokenizer"),
    "tokenizer: huge": (sparse("tokenizer.json", 3 << 30), "tokenizer.json has 3,221,225,472 bytes"),
    "tokenizer: gone": (removed("tokenizer.json"), "has no tokenizer"),
    "tokenizer: a folder": (folder("tokenizer.json"), "has no tokenizer"),
    "tokenizer: class": (edited("tokenizer_config.json", tokenizer_class=[1]), r"tokenizer_class=\[1\]"),
    "tokenizer: end": (edited("tokenizer_config.json", eos_token=5), "cannot read the tokenizer"),
    "tokenizer: added": (edited("tokenizer_config.json", added_tokens_decoder=[1]), "cannot read the tokenizer"),
    "tokenizer: more tokens than embeddings": (
        edited("tokenizer_config.json", extra_special_tokens=[f"<{i}>" for i in range(999)]),
        "vocab_size in config.json",
    ),
    "tokenizer: a million tokens": (
        text("tokenizer.json", json.dumps({"added_tokens": [{"id": 1, "content": "<x>", "special": True}] * 10**6})),
        "tokenizer.json adds 1,000,000 tokens",
    ),
    "tokenizer: a million more": (
        text("added_tokens.json", json.dumps({f"<{i}>": i for i in range(10**6)})),
        "added_tokens.json adds 1,000,000 tokens",
    ),
    "tokenizer: longest": (edited("tokenizer_config.json", model_max_length=["x"]), "cannot read the tokenizer"),
    "tokenizer: unknown": (edited("tokenizer_config.json", unk_token=""), "cannot read the tokenizer"),
    "tokenizer config: a list": (text("tokenizer_config.json", "[]"), "tokenizer_config.json holds"),
    "generation: a text": (edited("generation_config.json", eos_token_id="1"), "eos_token_id='1'"),
    "generation: true": (edited("generation_config.json", eos_token_id=[True]), "eos_token_id="),
    "generation: negative": (edited("generation_config.json", eos_token_id=-1), "eos_token_id=-1"),
    "generation: a thousand": (edited("generation_config.json", eos_token_id=[*range(1000)]), "eos_token_id="),
    "generation: no token": (edited("generation_config.json", eos_token_id=10**6), "vocab_size in config.json"),
    "generation: a list": (text("generation_config.json", "[]"), "generation_config.json holds"),
    "template: syntax": (template("{% for %}"), "chat template.*line 1"),
    "template: a number": (
        both(removed("chat_template.jinja"), edited("tokenizer_config.json", chat_template=5)),
        "chat_template=5",
    ),
    "template: unknown filter": (template("{{ messages | nosuch }}"), "chat template.*nosuch"),
    "template: raises": (template("{{ raise_exception('only for cats') }}"), "only for cats"),
    "template: raises lines": (template("{{ raise_exception('a\\nb') }}"), "a b"),
    "template: loses the question": (template("hello"), "does not write what the user says"),
    "template: a huge file": (sparse("chat_template.jinja", 3 << 30), "chat_template.jinja has"),
    "template: recursion": (template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "chat template"),
    "template: 4 GB": (template(BOMB + MESSAGES), "memory|characters"),
    "template: 4 GB when it is read": (template("{{ 'a' * 4294967296 }}" + MESSAGES), "memory|characters"),
    "template: padded": (template("{{ '%4000000000d' | format(1) }}" + MESSAGES), "memory|characters"),
    "adapter: of a base without a name": (adapter(base_model_name_or_path=[1]), "base_model_name_or_path="),
    "adapter: rank": (adapter(r=True), "r=True"),
    "adapter: scale": (adapter(lora_alpha="16"), "lora_alpha='16'"),
    "adapter: its own base": (adapter(base_model_name_or_path="."), "config.json is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_one_line(name, tiny, capfd):
    broken, said = BROKEN[name]
    broken(tiny)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(huggingface.ModelError, match=said) as error:
        huggingface.load(tiny)
    assert "\n" not in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 3000
    report = doctor.examine(str(tiny))
    assert (report.lines, report.problems) == ([], [str(error.value)])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB: less than a gigabyte, ever
    assert capfd.readouterr().out == ""


def test_a_template_without_end_is_ended(tiny, monkeypatch):
    monkeypatch.setattr(templates, "CPU_SECONDS", 0.3)
    templates._WORKER.close()  # the next one has this limit
    template(LOOP + MESSAGES)(tiny)
    started = time.perf_counter()
    with pytest.raises(huggingface.ModelError, match=r"chat template.*more than 0\.3 seconds"):
        huggingface.load_tokenizer(tiny)
    assert time.perf_counter() - started < 60
    templates._WORKER.close()
    template(MESSAGES)(tiny)
    assert huggingface.load_tokenizer(tiny).chat_template == MESSAGES  # a new process renders again


def test_files_that_may_not_be_read_are_named(tiny, monkeypatch):
    """Whoever runs the tests may read everything, so the refusal is made up."""

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    reads = {
        "read_text": ("config.json", lambda: huggingface.load_config(tiny)),
        "open": ("model.safetensors", lambda: weights.load_weights(tiny, shape)),
        "iterdir": ("model", lambda: huggingface.local_directory(tiny)),
    }
    shape = huggingface.load_config(tiny)
    for method, (file, read) in reads.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"pathlib.Path.{method}", refuse)
            with pytest.raises(huggingface.ModelError, match=rf"{file} cannot be read \(Permission denied\)"):
                read()


def test_no_code_of_a_directory_runs_even_where_somebody_says_yes(tmp_path):
    """transformers asks on standard input whether it may import the file that `auto_map` names."""
    evil = "import pathlib\npathlib.Path('{}').touch()\nclass Config: pass\nclass Tokens: pass\n"
    mark, data = tmp_path / "ran", tmp_path / "data"
    for name in ("known", "unknown"):
        directory = shutil.copytree(TINY, tmp_path / name)
        (directory / "evil.py").write_text(evil.format(mark))
        kind = {} if name == "known" else {"model_type": "evil"}
        auto_map = {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Tokens", "evil.Tokens"]}
        config(auto_map=auto_map, **kind)(directory)
        edited("tokenizer_config.json", auto_map=auto_map, tokenizer_class="Tokens")(directory)
    data.mkdir()
    (data / "data.py").write_text(evil.format(mark))
    code = (
        "import sys\n"
        "from spare_jax import remote_code\n"
        "from spare_jax.models import huggingface\n"
        "for name in ('known', 'unknown'):\n"
        "    try:\n"
        "        huggingface.load_tokenizer(f'{sys.argv[1]}/{name}')\n"
        "    except huggingface.ModelError as error:\n"
        "        print(error)\n"
        "try:\n"
        "    remote_code.load_dataset(f'{sys.argv[1]}/data', None, split='train')\n"
        "except Exception as error:\n"
        "    print('no data')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input="y\n" * 9, check=False)
    assert ended.returncode == 0 and not mark.exists(), ended.stderr
    assert ended.stdout.splitlines()[-1] == "no data"
    assert "trust_remote_code" not in ended.stdout or "cannot read the tokenizer" in ended.stdout


def test_loaders_of_other_libraries_are_called_in_one_place():
    calls = ("from_pretrained(", "load_dataset(", "transformers.Auto", "import datasets")
    found = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "spare_jax").rglob("*.py")
        if any(call in line for line in file.read_text().splitlines() for call in calls if "remote_code." not in line)
    }
    assert found == {"spare_jax/remote_code.py"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 9)
    | st.sampled_from(
        [10**9, 10**30, 2**31, 0.5, 1e300, float("nan"), float("inf"), "", "linear", "4", "silu", "llama3"]
    )
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rope_type", "factor", "x"]), inner),
    max_leaves=4,
)
KEYS = sorted(
    {
        *CONFIG,
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
        "layer_types",
        "rope_parameters",
        "attention_bias",
        "mlp_bias",
        "quantization_config",
        "partial_rotary_factor",
        "original_max_position_embeddings",
    }
)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
    st.sampled_from([*config_json._FAMILIES, *config_json._REWARD_MODELS]),
    st.none() | st.dictionaries(st.sampled_from([*LLAMA3, "original_max_position_embeddings"]), VALUES, max_size=2),
)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_config_is_a_decoder_or_a_model_error(changes, architecture, rope):
    raw = CONFIG | {"architectures": [architecture], "use_sliding_window": True, "max_window_layers": 2}
    raw |= {"rope_scaling": LLAMA3 | rope} if rope is not None else {}
    try:
        found = config_json.decoder_config(TINY / "config.json", raw | changes)
    except huggingface.ModelError as error:
        assert str(error).isprintable() and str(TINY) in str(error)
    else:
        assert found.num_layers <= 2**10 and found.vocab_size <= 2**22 and found.norm_eps > 0


@given(st.lists(st.tuples(st.sampled_from(["dtype", "shape", "data_offsets"]), VALUES), max_size=3), st.integers(0, 9))
@settings(max_examples=300, deadline=None)
def test_any_header_is_read_or_a_model_error(tmp_path_factory, changes, place):
    path = tmp_path_factory.mktemp("header") / "model.safetensors"
    save_file({f"t{i}": np.zeros((i, 2), np.float32) for i in range(5)}, path)
    name = f"t{place % 5}"
    header(lambda found: found | {name: found[name] | dict(changes)})(path.parent)
    try:
        found = safetensors_files.read_header(path)
    except huggingface.ModelError as error:
        assert str(error).isprintable()
    else:
        assert sum(stored.whole().nbytes for stored in found.values()) == 80


TOKENIZER_KEYS = (
    "eos_token", "pad_token", "unk_token", "extra_special_tokens", "additional_special_tokens", "added_tokens_decoder",
    "chat_template", "model_max_length", "model_input_names", "tokenizer_class", "auto_map", "init_inputs",
    "split_special_tokens", "fast_tokenizer_files", "add_prefix_space", "chat_control_tokens",
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(TOKENIZER_KEYS), VALUES, max_size=2),
    st.none() | VALUES,
    st.sampled_from(["tokenizer_config.json", "special_tokens_map.json"]),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_tokenizer_encodes_or_is_a_model_error(tmp_path_factory, changes, ends, name):
    directory = shutil.copytree(TINY, tmp_path_factory.mktemp("any") / "model")
    edited(name, **changes)(directory)
    edited("generation_config.json", eos_token_id=ends)(directory)
    try:
        tokenizer = huggingface.load_tokenizer(directory)
    except huggingface.ModelError as error:
        assert str(error).isprintable()
    else:
        assert encode_chat(tokenizer, [{"role": "user", "content": "2 + 2"}])
        assert all(type(i) is int for i in end_ids(tokenizer))


def test_the_command_says_one_line(tiny):
    config(rope_scaling="linear")(tiny)
    command = [sys.executable, "-m", "spare_jax.doctor", f"--model={tiny}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line == (
        f"error: {tiny}/config.json: rope_scaling='linear' is not supported: it must be an object with a rope_type"
    )


def test_a_file_is_no_directory(tiny):
    for path in (tiny / "config.json", tiny / "x" / "y", "a" * 5000, "a\0b"):
        with pytest.raises(huggingface.ModelError):
            huggingface.local_directory(path)
    sparse("config.json", MAX_BYTES + 1)(tiny)
    with pytest.raises(huggingface.ModelError, match="at most"):
        huggingface.load_config(tiny)
