"""Chat templates as people publish them: where a turn ends, what becomes of a system message, and the same bytes on any
day; rendered as transformers renders them."""

import json
import os
import pathlib
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from small_tokenizer import EOS, TEMPLATE, USER, small_tokenizer

from spare_jax import assets, doctor
from spare_jax.models import huggingface
from spare_jax.prompts import solve
from spare_jax.prompts.chat import DATE, Arrangement, arrangement, encode_chat, end_ids, shared_prefix
from spare_jax.prompts.templates import ChatTemplateError, render

SYSTEM, ASKED, SAID = ({"role": role, "content": f"{role} says it."} for role in ("system", "user", "assistant"))
LOOP = "{%% for m in messages %%}%s{%% endfor %%}{%% if add_generation_prompt %%}<|assistant|>\n{%% endif %%}"
TURN = "<|{{ m.role }}|>\n{{ m.content }}</s>\n"
REFUSAL = "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
EACH_PART = "{%% for part in m.content %%}%s{%% endfor %%}</s>"

TEMPLATES = {
    "chatml": LOOP % "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}",
    "zephyr": LOOP % TURN,
    "drops": LOOP % ("{% if m.role != 'system' %}" + TURN + "{% endif %}"),
    "refuses": LOOP % (REFUSAL + TURN),
    "refuses a first system": "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    + LOOP % TURN,
    "alternates": "{{ bos_token }}"
    + LOOP
    % (
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]{% else %} {{ m.content | trim }}{{ eos_token }}"
        "{% endif %}"
    ),
    "parts": LOOP % (EACH_PART % "{% if part.type == 'text' %}{{ part.text }}{% endif %}"),
    "parts, strictly": LOOP % (EACH_PART % "{{ part['text'] | trim + '' }}"),
    "parts of the others": LOOP
    % "{% if m.role == 'system' %}{{ m.content + '\n' }}{% else %}{{ m.content[0]['text'] }}</s>{% endif %}",
    "parts, no system": LOOP % (REFUSAL + "{{ m.content[0].text }}</s>"),
    "either": LOOP
    % f"{{% if m.content is string %}}{{{{ m.content }}}}</s>{{% else %}}{EACH_PART % '{{ part.text }}'}{{% endif %}}",
    "system in the last turn": "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}"
    + LOOP % "{% if loop.last and s is defined %}{{ s + '\n\n' }}{% endif %}{{ m.content }}</s>",
    "day": "{{ strftime_now('%d %b %Y') }}|{{ date_string }}\n" + LOOP % TURN,
    "generation": LOOP % "<|{{ m.role }}|>{% generation %}{{ m.content }}</s>{% endgeneration %}",
    "loop controls": LOOP % "{% if loop.index > 9 %}{% break %}{% endif %}{{ m.content }}</s>",
    "json": LOOP % "{{ m | tojson }}{{ m.content }}</s>",
    "tools": "{% if tools is not none %}tools{% endif %}{% if documents %}documents{% endif %}" + LOOP % TURN,
}  # fmt: skip


def rendered(name, messages, prompt=True):
    tokenizer = small_tokenizer(template=TEMPLATES[name])
    return solve.decode(tokenizer, encode_chat(tokenizer, messages, prompt))


@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_that_is_said_is_lost(name):
    for messages in ([ASKED], [SYSTEM, ASKED], [SYSTEM, ASKED, SAID, ASKED], [ASKED, SAID]):
        text = rendered(name, messages)
        for message in messages:
            assert text.count(message["content"]) >= sum(m == message for m in messages), message
    tokenizer = small_tokenizer(template=TEMPLATES[name])
    moved = arrangement(tokenizer, ("system", "user")).system_in_user
    assert moved == (name in ("drops", "refuses", "refuses a first system", "alternates", "parts, no system"))
    if moved:
        assert f"{SYSTEM['content']}\n\n{ASKED['content']}" in rendered(name, [SYSTEM, ASKED])
    assert bool(arrangement(tokenizer, ("user",)).parts) == name.startswith("parts")


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in ("drops", "day")])
def test_it_is_what_transformers_renders(name):
    tokenizer = small_tokenizer(template=TEMPLATES[name])
    for roles in (["user"], ["system", "user"], ["user", "assistant", "user"]):
        messages = [{"role": role, "content": f" {role} {USER}\n says {EOS} it. "} for role in roles]
        given = arrangement(tokenizer, roles, True)(messages)
        expected = tokenizer.apply_chat_template(
            given, return_dict=False, add_generation_prompt=True, sanitize_control_tokens=True, date_string=DATE
        )
        assert encode_chat(tokenizer, messages) == expected


def test_the_day_is_always_the_same():
    assert rendered("day", [ASKED]).startswith(f"{DATE}|{DATE}\n")
    variables = {"messages": []}
    assert render("{{ strftime_now('%Y-%m-%d %H:%M') }}", variables) == "2024-07-26 00:00"
    assert len({render("{{ range(10**5) | random }}{{ lipsum(n=1) }}", variables) for _ in range(3)}) == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_guidelines_are_shared(name):
    """Prompts that differ in their last turn have their system text in common, wherever it stands."""
    tokenizer = small_tokenizer(template=TEMPLATES[name])
    ids = encode_chat(tokenizer, [SYSTEM, ASKED])
    prefix = shared_prefix(tokenizer, [SYSTEM, ASKED], ids)
    assert prefix is not None
    if name != "json":
        assert "system says it" in solve.decode(tokenizer, prefix.ids)


def test_a_template_that_cuts_what_is_said_fails():
    tokenizer = small_tokenizer(template=LOOP % "{{ m.content[:50] }}</s>")
    assert encode_chat(tokenizer, [ASKED])
    with pytest.raises(ChatTemplateError, match="changes what the user says"):
        encode_chat(tokenizer, [{"role": "user", "content": "x y " * 20}])


@given(st.text(max_size=40), st.text(max_size=40))
@settings(deadline=None, max_examples=60)
def test_any_text_goes_through(system, question):
    """Lone surrogates aside, which no tokenizer encodes."""
    messages = [
        {"role": role, "content": said.encode("utf-8", "ignore").decode()}
        for role, said in (("system", system), ("user", question))
    ]
    tokenizer = small_tokenizer(template=TEMPLATES["zephyr"])
    expected = tokenizer.apply_chat_template(
        messages, return_dict=False, add_generation_prompt=True, sanitize_control_tokens=True
    )
    assert encode_chat(tokenizer, messages) == expected


class TestEnds:
    @pytest.mark.parametrize(
        ("template", "ends"),
        [
            (TEMPLATE, [EOS]),
            (None, [EOS]),
            (LOOP % "{{ m.content }}\n", [EOS]),  # nothing closes a turn
            (LOOP % f"{{{{ m.content }}}} \n{USER}", [USER, EOS]),
            (LOOP % f"{{{{ m.content }}}}. {USER}", [EOS]),  # text follows
            (LOOP % f"{{{{ m.content[0].text }}}}{USER}", [USER, EOS]),
            ("{{ raise_exception('never') }}", [EOS]),
        ],
    )
    def test_the_template_closes_a_turn(self, template, ends):
        tokenizer = small_tokenizer(template=template)
        assert end_ids(tokenizer) == tuple(map(tokenizer.convert_tokens_to_ids, ends))

    @pytest.mark.parametrize(
        ("generation", "ends"),
        [
            ({"eos_token_id": 7}, (1, 7)),
            ({"eos_token_id": [9, 1, 7, 9]}, (1, 9, 7)),
            ({"eos_token_id": []}, (1,)),
            ({"eos_token_id": None}, (1,)),
            ({"temperature": 0.6}, (1,)),
            (None, (1,)),
        ],
    )
    def test_the_directory_names_more(self, tmp_path, generation, ends):
        directory = shutil.copytree(assets.directory("tiny-base"), tmp_path / "model")
        file = directory / "generation_config.json"
        if generation is not None:
            file.write_text(json.dumps(generation))
        loaded = huggingface.load(directory)
        assert end_ids(loaded.tokenizer) == ends
        if generation:
            assert "end         a text ends at 1" in "\n".join(doctor.examine(str(directory)).lines)
        for _ in range(2):  # over an older export too
            huggingface.save(tmp_path / "out", loaded.model, loaded.config, loaded.tokenizer)
            written = tmp_path / "out" / file.name
            assert written.is_file() == (generation is not None)
            assert generation is None or json.loads(written.read_text()) == generation
            assert end_ids(huggingface.load_tokenizer(tmp_path / "out")) == ends
            written.write_text('{"eos_token_id": 3}')

    def test_of_an_adapter_its_base(self, tmp_path):
        base = shutil.copytree(assets.directory("tiny-base"), tmp_path / "base")
        (base / "generation_config.json").write_text('{"eos_token_id": [5]}')
        adapter = tmp_path / "adapter"
        adapter.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(base / name, adapter)
        content = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(base)}
        (adapter / "adapter_config.json").write_text(json.dumps(content))
        assert end_ids(huggingface.load_tokenizer(adapter)) == (1, 5)


class TestTied:
    """tie_word_embeddings is true, and the weights hold a head."""

    @pytest.fixture
    def directory(self, tmp_path):
        return shutil.copytree(assets.directory("tiny-base"), tmp_path / "model")

    def rewrite(self, directory, change):
        file = directory / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    def logits(self, directory):
        torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=False).eval()
        with torch.no_grad():
            return model(torch.arange(2, 9)[None]).logits[0].numpy()

    def ours(self, loaded):
        import jax.numpy as jnp
        import numpy as np

        from spare_jax.models import decoder

        ids = jnp.arange(2, 9)[None]
        hidden = decoder.hidden_states(loaded.model, ids, jnp.arange(7)[None], jnp.ones_like(ids))
        return np.asarray(decoder.logits(loaded.model, hidden))[0]

    @pytest.mark.parametrize("kind", ["another", "the same", "alone"])
    def test_as_transformers_does(self, directory, kind, caplog, tmp_path):
        embed, head = "model.embed_tokens.weight", "lm_head.weight"
        changes = {
            "another": lambda found: found | {head: found[embed] * 0.5 + 0.01},
            "the same": lambda found: found | {head: found[embed]},
            "alone": lambda found: found | {head: found.pop(embed)},
        }
        self.rewrite(directory, changes[kind])
        loaded = huggingface.load(directory)
        assert loaded.config.tie_embeddings == (kind != "another")
        assert abs(self.ours(loaded) - self.logits(directory)).max() < 1e-4
        assert ("the weights hold another lm_head.weight" in caplog.text) == (kind == "another")
        said = "\n".join(doctor.examine(str(directory)).lines)
        assert ("they hold another" in said) == (kind == "another")
        huggingface.save(tmp_path / "out", loaded.model, loaded.config, loaded.tokenizer)
        again = huggingface.load(tmp_path / "out")
        assert again.config == loaded.config and (self.ours(again) == self.ours(loaded)).all()

    def test_a_head_of_another_shape_is_refused(self, directory):
        self.rewrite(directory, lambda found: found | {"lm_head.weight": found["model.embed_tokens.weight"][:9]})
        with pytest.raises(huggingface.ModelError, match=r"lm_head.weight has shape \[9, 128\]"):
            huggingface.load(directory)


class TestDoctor:
    def examine(self, tmp_path, template):
        directory = shutil.copytree(assets.directory("tiny-base"), tmp_path / "model")
        (directory / "chat_template.jinja").write_text(template)
        return doctor.examine(str(directory))

    def test_it_says_what_is_moved_and_fixed(self, tmp_path):
        report = self.examine(tmp_path, TEMPLATES["drops"].replace("</s>", "<|end|>") + "{{ strftime_now('%d') }}")
        said = "\n".join(report.lines)
        assert report.problems == []
        for name in ("solve", "annotate", "verify"):
            assert f"{name}: the template takes no system message; its text begins the user's turn" in said
        assert f"it is always {DATE}" in said

    def test_it_says_what_cannot_be_asked(self, tmp_path):
        report = self.examine(
            tmp_path, "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + TEMPLATES["zephyr"]
        )
        assert report.problems == ["the prompt of annotate: the chat template cannot be rendered: one turn"]
        assert "verify" in "\n".join(report.lines)

    def test_parts_are_said(self, tmp_path):
        assert "solve: the template takes contents as lists of parts" in "\n".join(
            self.examine(tmp_path, TEMPLATES["parts"]).lines
        )


def test_an_arrangement_keeps_the_messages():
    messages = [SYSTEM, ASKED, SAID]
    assert Arrangement()(messages) == messages
    moved = Arrangement(system_in_user=True, parts=("assistant",))(messages)
    assert moved[0] == {"role": "user", "content": "system says it.\n\nuser says it."}
    assert moved[1]["content"] == [{"type": "text", "text": "assistant says it."}]
    assert messages == [SYSTEM, ASKED, SAID]  # unchanged


@pytest.mark.parametrize(("name", "end"), [("smollm2-135m", "<|im_end|>"), ("qwen2.5-coder-0.5b", "<|im_end|>")])
def test_real_models(name, end):
    """Directories of real models in the folder that SPARE_JAX_MODELS names."""
    folder = os.environ.get("SPARE_JAX_MODELS")
    if not folder or not (directory := pathlib.Path(folder) / name).is_dir():
        pytest.skip(f"SPARE_JAX_MODELS names no folder with {name}")
    tokenizer = huggingface.load_tokenizer(directory)
    assert tokenizer.convert_ids_to_tokens(list(end_ids(tokenizer))) == [end]
    for messages in ([ASKED], [SYSTEM, ASKED], [SYSTEM, ASKED, SAID, ASKED]):
        expected = tokenizer.apply_chat_template(messages, return_dict=False, add_generation_prompt=True)
        assert encode_chat(tokenizer, messages) == expected
        assert arrangement(tokenizer, [m["role"] for m in messages]) == Arrangement()
