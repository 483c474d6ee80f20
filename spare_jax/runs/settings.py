"""Every key of the config, with its default and what it means. Configs change values; they add no key."""

from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from spare_jax.prompts import annotate as annotation
from spare_jax.prompts import meta_critique as criticism
from spare_jax.prompts import verify as verification
from spare_jax.tasks import competition
from spare_jax.training.format_rules import FORBIDDEN

Config = Any  # an ml_collections.ConfigDict; what its attributes hold is not for a type checker to know

STAGES = ("solve", "judge", "train_prm", "rank", "evaluate", "report")


def default() -> Config:
    """The settings of the pipeline for the arithmetic world and the embedded models."""
    config: Config = ml_collections.ConfigDict()
    config.seed = 0  # decides every generated problem, draw and data order
    config.task = "arithmetic"
    config.stages = STAGES

    config.data = data = ml_collections.ConfigDict()
    data.path = ""  # directory of a real dataset's files; unused by worlds
    data.labels = ""  # stage labels: a file of labelled solutions, or a hub id
    data.format = "trl_stepwise"  # of labels, or of solutions to score or judge: docs/formats.md
    data.split = "train"  # of `path` with solutions, where that is a directory or a hub id
    data.on_error = "raise"  # a malformed line: "raise", or "skip" and count
    data.train_problems = 480  # how many problems of each split; null takes all there are
    data.dev_problems = 60
    data.test_problems = 300
    data.held_out_problems = 40  # worlds: test problems per kind that all training has held out

    # A model is a Hugging Face directory, an embedded model's name, or a hub id with a revision.
    config.models = models = ml_collections.ConfigDict()
    models.generator = model_entry("tiny-base")
    models.judge = model_entry("tiny-teacher")  # empty path: the generator
    models.prm = model_entry("")  # what PRM and ORM are trained from; empty path: the generator
    models.verifier = model_entry("")  # a generative reward model; what one is trained from; empty path: the generator
    models.policy = model_entry("")  # what online RL trains; empty path: the generator
    models.prm.convention = ""  # how an existing PRM is read, where its directory does not say (docs/models.md)

    config.mesh = mesh_entry()

    config.engine = engine = ml_collections.ConfigDict()
    engine.slots = 128  # most sequences decoded at once; fewer where cache_bytes hold fewer
    engine.max_length = 1024  # tokens of prompt and answer together
    engine.chunk = 16  # decode steps between two visits of the host
    engine.prefill_tokens = 2048  # tokens of a batch of prompts or of texts to score
    engine.cache_bytes = placeholder(int)  # for keys and values; null: what is wanted, on an accelerator what is left
    engine.concurrency = 16  # requests that wait for a server at once, of a model that is one (docs/judges.md)
    engine.dtype = "float32"
    engine.quantize = ""  # "int8" or "nf4": keep the weights so, and compute in `dtype` (docs/performance.md)

    config.solve = solve = ml_collections.ConfigDict()
    solve.samples = 8  # N solutions per problem (the paper: 20)
    solve.temperature = 1.0
    solve.top_p = 1.0
    solve.max_tokens = 176

    config.annotate = annotate = ml_collections.ConfigDict()
    annotate.guidelines = annotation.BRIEF_GUIDELINES  # the annotator's system message; empty: the task's own
    annotate.exemplars = 0  # worked examples shown per instance (the paper: 5; tiny-teacher was trained without)
    annotate.draws = 0  # different choices of exemplars in a run; 0: one per solution, as in the paper
    annotate.votes = 1  # annotations per solution, of which the majority counts, step by step
    annotate.temperature = 0.0
    annotate.top_p = 1.0
    annotate.max_tokens = 448
    annotate.grammar = True  # hold the annotator to one whole record per step (engines/grammar.py)
    annotate.missed = "incorrect"  # a step without a record: "incorrect" | "outcome" | "unknown"
    annotate.unknown_is_incorrect = True
    annotate.last_step_is_outcome = True
    annotate.reference_as_sample = False
    annotate.measured_problems = 60  # test problems whose solutions are annotated to measure the annotator
    annotate.control_problems = 30  # of these, how many are annotated without a reference and with a wrong one

    config.judge = "spare"  # who judges a file's solutions (runs/ask.py has them all)
    config.threshold = 0.5  # a step that a judge only scores is right from here on

    config.verify = verify = ml_collections.ConfigDict()  # judge verify, and the model of config.models.judge
    verify.guidelines = verification.BRIEF_GUIDELINES  # the verifier's system message; empty: prompts/verify.py's
    verify.votes = 1
    verify.temperature = 0.0
    verify.top_p = 1.0
    verify.max_tokens = 640
    verify.grammar = True

    config.generative = generative = ml_collections.ConfigDict()  # judge generative, and models.verifier
    generative.kind = ""  # orm | prm | prm_cot | prm_critique, where the model's directory does not say
    generative.scoring = "verdict"  # "verdict" (0 or 1), or the "probability" of its token; the mean over votes
    generative.votes = 1
    generative.temperature = 0.0
    generative.top_p = 1.0
    generative.max_tokens = 640
    generative.grammar = True

    config.rollouts = rollouts = ml_collections.ConfigDict()  # judges rollouts and tree_search, models.generator
    rollouts.samples = 8  # K rollouts behind a step
    rollouts.temperature = 1.0
    rollouts.top_p = 1.0
    rollouts.max_tokens = 176
    rollouts.threshold = 0.0  # a step is right where more than this share of its rollouts end right
    rollouts.searches = 1  # tree_search: how many wrong solutions are searched, the given one first

    config.flips = flips = ml_collections.ConfigDict()  # judge truth: rates at which its labels are flipped
    flips.correct = 0.0
    flips.incorrect = 0.0

    config.ensemble = ensemble = ml_collections.ConfigDict()
    ensemble.members = ("spare", "rollouts")
    ensemble.rule = "agreement"  # agreement | union | intersection | majority | weighted
    ensemble.truth = ""  # rule weighted: a file of labelled solutions, on which weights and threshold are learned
    ensemble.format = "processbench"  # of that file: docs/formats.md
    ensemble.margin = 0.0  # rule weighted: no label where the probability lies as near to the threshold as this

    config.prm = prm = ml_collections.ConfigDict()
    prm.labels = "spare"  # whose labels train: a file of judgements/
    prm.targets = "labels"  # what the PRM learns of a step: the judge's "labels", or its "scores" where it has them
    prm.path = ""  # an existing PRM to rank with; then nothing is trained
    prm.step_tags = ("<extra_0>",)  # tried in order where " ки" is not one token
    prm.aggregation = "last"  # solution score from step scores: last | min | product | mean
    prm.balanced = True  # as many solutions with a right answer as with a wrong one
    prm.balanced_limit = 20_000  # at most this many right and as many wrong solutions (the paper: 20k + 20k)
    prm.lora = _lora()
    prm.train = _train(row_length=384, epochs=2.0, learning_rate=1e-3)

    # Generative reward models, by SFT (pipelines/spark_reward_models.py).
    config.verifier = verifier = ml_collections.ConfigDict()
    verifier.targets = "step_consistency"  # whose targets it learns from: a mode of spark_verifications.py
    verifier.kind = "prm_cot"  # orm | prm | prm_cot | prm_critique | discriminative, which is a PRM by config.prm
    verifier.limit = placeholder(int)  # at most so many train targets; null: all
    verifier.test_problems = placeholder(int)  # it judges samples of the first so many test problems; null: of all
    verifier.brief = True  # ask by BRIEF_GUIDELINES, in training and ever after; False: by GUIDELINES
    verifier.balanced = False  # as many targets that say Yes as No, by their own word
    verifier.lora = _lora()
    verifier.train = _train(row_length=640, epochs=1.0, learning_rate=3e-4)

    # Offline reinforcement learning (pipelines/offline_rl.py). A policy learns first from references, then from pairs.
    config.method = "spare_orpo"  # sft1 | sft2 | outcome_orpo | spare_orpo | dpo | step_dpo | iterated, and controls
    config.rounds = 3  # of the iterated method: the policy of the last one samples, SPARE annotates, ORPO trains
    config.sft = sft = ml_collections.ConfigDict()
    sft.neftune_alpha = 5.0  # noise on the embeddings (arXiv 2310.05914); 0: none
    sft.lora = _lora()
    sft.train = _train(row_length=384, epochs=1.0, learning_rate=1e-4)
    config.pairs = ml_collections.ConfigDict()  # targets/preferences.py, PairSettings
    config.pairs.train = _pairs(sampled_pairs=10, pairs_per_problem=10)
    config.pairs.dev = _pairs(sampled_pairs=1, pairs_per_problem=2)
    config.policy = policy = ml_collections.ConfigDict()
    policy.orpo_beta = 0.2  # the paper's
    policy.dpo_beta = 0.1
    policy.lora = _lora()
    policy.train = _train(row_length=640, epochs=1.0, learning_rate=3e-4)  # both texts of a pair lie in one row

    # SPARK's synthetic verifications (pipelines/spark_verifications.py): config.solve.samples solutions,
    # config.verify.votes of each.
    config.spark = spark = ml_collections.ConfigDict()
    spark.targets = ("single", "outcome_consistency", "step_consistency", "meta_critique", "hybrid")
    spark.tie = "drop"  # a vote that ends even: "drop" the solution, or take it as "correct" or "incorrect"
    spark.no_match = "drop"  # no verification has the consensus on all steps: "drop", or keep the "closest"
    spark.keep = "first"  # of several verifications that match: the "first", or the "shortest" in tokens
    spark.critique = criticism.BRIEF_CRITIQUE  # what the verifier is asked then; empty: prompts/meta_critique.py's
    spark.merge = criticism.BRIEF_MERGE
    spark.filter = ml_collections.ConfigDict()  # targets/quality.py
    spark.filter.max_tokens = placeholder(int)  # the longest text of a target; null: any
    spark.filter.grammar = True  # the text is whole: a verdict per step and on the answer, nothing surplus
    spark.filter.agreement = 0.0  # the least share of votes behind every verdict that was voted on

    config.benchmarks = ("math500", *competition.NAMES)  # pipelines/math_benchmarks.py: directories of data.path

    # Online reinforcement learning (pipelines/online_rl.py): training/grpo.py, GRPOConfig. In brackets: the paper's
    # (2512.03244).
    config.grpo = grpo = ml_collections.ConfigDict()
    grpo.reward = "process_aware"  # training/advantages.py has them all, and the controls
    grpo.judge = "verify"  # who pays (runs/ask.py), where the reward asks a judge
    grpo.baseline = "grpo"  # grpo | dr_grpo | leave_one_out
    grpo.least_steps = placeholder(int)  # limits on a solution's steps; null: the reward's own (4 and 20, 3 and 20)
    grpo.most_steps = placeholder(int)
    grpo.forbidden = FORBIDDEN  # V, the form without which nothing is earned (training/format_rules.py, FAILURES)
    grpo.iterations = 40
    grpo.prompts = 8  # problems of an iteration (256)
    grpo.samples = 8  # solutions of each (16)
    grpo.max_tokens = 176  # of a solution (2048)
    grpo.updates = 1  # steps on an iteration's samples (1: on-policy)
    grpo.loss = loss = ml_collections.ConfigDict()  # training/losses.py, GRPOLoss
    loss.clip_low = loss.clip_high = 0.2  # (0.2); a greater clip_high is DAPO's clip-higher
    loss.kl_weight = 0.001  # (0.001); 0: no reference is kept
    loss.kl = "k3"  # (k3) | k1 | k2
    loss.mean = "token"  # over what the loss is divided: token | sequence | constant (docs/grpo.md)
    grpo.watch_problems = 16  # dev problems on which the reward is compared with the truth; 0: it never is
    grpo.watch_every = 10
    grpo.alarms = alarms = ml_collections.ConfigDict()  # by a name of one's own: training/watch.py, Alarm
    alarms.unjudged = ml_collections.ConfigDict(  # the share of an iteration's solutions without a judgement
        {"metric": "judge/failed", "threshold": 0.5, "below": False, "patience": 3, "action": "abort"}
    )
    alarms.appended = ml_collections.ConfigDict(
        {"metric": "format/second_problem", "threshold": 0.2, "below": False, "patience": 3, "action": "roll_back"}
    )
    alarms.paid_wrongly = ml_collections.ConfigDict(
        {"metric": "held_out/false_reward", "threshold": 0.5, "below": False, "patience": 1, "action": "stop"}
    )
    grpo.checkpoint_every = 10
    grpo.lora = _lora()
    grpo.lora.dropout = 0.0  # what is updated has to be what has sampled
    grpo.train = train = ml_collections.ConfigDict()  # training/loop.py, TrainConfig
    train.row_length = 512  # of rows that hold a prompt and a solution, or several
    train.accumulate = 1
    train.learning_rate = 3e-5  # (1e-6), constant
    train.weight_decay = 0.0
    train.clip = 1.0
    train.dtype = "float32"
    train.remat = "none"  # what the backward pass makes again: none | minimal | full (models/decoder.py)
    return config


def _lora() -> ml_collections.ConfigDict:
    lora = ml_collections.ConfigDict()  # models/adapters.py, AdapterConfig
    lora.rank = 0  # of the adapters that are trained in place of all weights; 0: all weights
    lora.alpha = 16.0
    lora.dropout = 0.1
    lora.targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    lora.quantize = ""  # keeps the weights below the adapters in "int8" or "nf4" while training
    return lora


def _train(row_length: int, epochs: float, learning_rate: float) -> ml_collections.ConfigDict:
    train = ml_collections.ConfigDict()  # training/loop.py, TrainConfig
    train.batch_rows = 8
    train.row_length = row_length
    train.epochs = epochs
    train.accumulate = 1
    train.learning_rate = learning_rate
    train.warmup = 0.05
    train.weight_decay = 0.001
    train.clip = 1.0
    train.eval_every = 50
    train.patience = 7
    train.checkpoint_every = 100
    train.dtype = "float32"
    train.remat = "none"  # what the backward pass makes again: none | minimal | full (models/decoder.py)
    return train


def _pairs(sampled_pairs: int, pairs_per_problem: int) -> ml_collections.ConfigDict:
    pairs = ml_collections.ConfigDict()
    pairs.sampled_pairs = sampled_pairs  # of a problem's samples; null: all that the method's rule allows
    pairs.pairs_per_problem = pairs_per_problem  # with those of the reference
    pairs.cap = placeholder(int)  # of all problems (the paper: 19,500, and 760 of dev)
    pairs.reference_as_chosen = True
    return pairs


def train_real_model(trained: Config) -> None:
    """Set the paper's training (arXiv 2506.15498, section 4 and appendix), for 3B to 8B parameters: QLoRA. `trained`
    is a part of the config that has `lora` and `train`."""
    trained.lora.rank = 64
    trained.lora.quantize = "nf4"
    trained.train.batch_rows = 32
    trained.train.row_length = 2048
    trained.train.epochs = 1.0
    trained.train.learning_rate = 1e-4
    trained.train.warmup = 0.03
    trained.train.clip = 0.3
    trained.train.eval_every = 50
    trained.train.checkpoint_every = 200
    trained.train.dtype = "bfloat16"
    trained.train.remat = "full"


def learn_offline_in_small(config: Config) -> None:
    """Set the pipeline of offline_rl.py to what a tiny model does in about a minute: for a first look and for tests."""
    config.data.train_problems = 16
    config.data.dev_problems = 8
    config.data.test_problems = 12
    config.data.held_out_problems = min(2, config.data.held_out_problems)
    config.solve.samples = 4
    config.rounds = 2
    for trained in (config.sft, config.policy):
        trained.train.update(batch_rows=4, eval_every=2, checkpoint_every=2)


def spark_in_small(config: Config) -> None:
    """Set SPARK's pipelines (spark_verifications.py, spark_reward_models.py, online_rl.py) to what a tiny model does in
    about a minute each: for a first look and for tests."""
    config.data.train_problems, config.data.dev_problems = 8, 2
    config.data.test_problems = 4
    config.solve.samples = 2
    config.verify.votes = 3
    for trained in (config.verifier, config.prm):
        trained.train.update(batch_rows=2, eval_every=2, checkpoint_every=2)
    config.grpo.update(iterations=4, prompts=2, samples=4, watch_problems=2, watch_every=2, checkpoint_every=2)


def reinforce_real_models(config: Config) -> None:
    """Set the paper's online RL (arXiv 2512.03244, stage III), for a policy that writes in the task's form already."""
    config.grpo.update(prompts=256, samples=16, max_tokens=2048, iterations=200, judge="generative")
    config.grpo.train.update(row_length=4096, learning_rate=1e-6, accumulate=64, dtype="bfloat16", remat="full")
    config.generative.max_tokens = 4096


def judge_with_real_models(config: Config, laptop: bool) -> None:
    """Have judges read their guidelines whole, with exemplars and room, on models that the user names; on a `laptop` in
    float32, with the room for short texts alone."""
    for role in ("generator", "judge", "prm", "verifier"):
        config.models[role].path = ""
    config.annotate.guidelines = config.verify.guidelines = ""
    config.annotate.exemplars = 5
    config.annotate.draws = 32
    config.annotate.max_tokens = config.verify.max_tokens = config.generative.max_tokens = 1500
    config.verifier.brief = False
    config.rollouts.max_tokens = 500
    config.engine.slots = 8 if laptop else 64
    config.engine.max_length = 2048 if laptop else 6144
    config.engine.dtype = "float32" if laptop else "bfloat16"


def use_own_models_of_world(config: Config, verifies: bool = False) -> None:
    """Name the embedded models of the config's world, as the judge its teacher, or the one that `verifies` as SPARK
    asks; where the task is none, they are left to be named."""
    models = config.models
    models.generator.path, teacher, verifier = _OWN_MODELS.get(config.task, ("", "", ""))
    models.judge.path = verifier if verifies else teacher


_OWN_MODELS = {  # base, teacher, verifier
    "arithmetic": ("tiny-base", "tiny-teacher", "tiny-verifier"),
    "multihop": ("multihop-base", "multihop-teacher", "multihop-teacher"),
    "spatial": ("spatial-base", "spatial-teacher", "spatial-teacher"),
}


def model_entry(path: str) -> ml_collections.ConfigDict:
    """A model of the config: a path, and a revision where the path is a hub id."""
    return ml_collections.ConfigDict({"path": path, "revision": placeholder(str)})


def mesh_entry() -> ml_collections.ConfigDict:
    """The mesh: devices along data (-1: all that the others leave), fsdp and tensor.

    A machine without accelerator counts as `cpu_devices` devices: one thread each keeps two cores busier than two
    threads on one small matrix product (1.6 times the tokens per second in training the embedded models).
    """
    return ml_collections.ConfigDict({"data": -1, "fsdp": 1, "tensor": 1, "cpu_devices": 2})


def parse_argument(argument: str | None, **defaults: bool | int | str) -> dict[str, bool | int | str]:
    """Read `a,b=3` behind a config's name: a word alone means True, a value takes the type of its default.

    Raises:
      ValueError: a key without default, or a value that does not fit; says which there are.
    """
    values = dict(defaults)
    for item in filter(None, (argument or "").split(",")):
        key, given, text = item.partition("=")
        if key not in defaults:
            raise ValueError(f"config argument {key!r} is unknown: choose among {', '.join(defaults)}")
        kind = type(defaults[key])
        if not given and kind is not bool:
            raise ValueError(f"config argument {key!r} needs a value: write {key}=...")
        try:
            values[key] = (text or "true").lower() == "true" if kind is bool else kind(text)
        except ValueError:
            raise ValueError(f"config argument {key}={text!r} is no {kind.__name__}") from None
    return values
