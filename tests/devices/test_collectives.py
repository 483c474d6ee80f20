"""The reader of compiled text (benchmarks/collectives.py), on lines as XLA prints them for TPUs and CPUs."""

import pytest
from collectives import ArrayType, Collective, collectives_of, table

RING = """
  %collective-permute-start.84 = (bf16[8,128,1,256]{3,1,2,0:T(8,128)(2,1)S(1)}, bf16[8,128,1,256]{3,1,2,0:T(8,128)(2,1)\
S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%get-tuple-element.4636), channel_id=10, \
source_target_pairs={{0,1},{1,0}}, metadata={op_name="jit(train_step)/jvp()/while"}
  %collective-permute-done.84 = bf16[8,128,1,256]{3,1,2,0:T(8,128)(2,1)} collective-permute-done(%x.84)
"""
CUT = """
  %all-gather.169 = f32[1,4096]{1,0:T(1,128)} all-gather(%param_0.2848), channel_id=185, dimensions={1}
  %all-gather.171 = f32[1,4096]{1,0:T(1,128)S(1)} all-gather(%param_0.2853), channel_id=185, dimensions={1}
  %all-gather.172 = f32[1,4096]{1,0:T(1,128)} all-gather(%param_0.2853), channel_id=186, dimensions={1}
"""
SPLIT_HIDDEN = "  ROOT %all-reduce.7 = bf16[16,2048,14336]{2,1,0:T(8,128)(2,1)} all-reduce(%dot.1), channel_id=3\n"


def array(dtype: str, *shape: int) -> ArrayType:
    return ArrayType(dtype, shape)


def test_a_start_names_operands_and_results_and_an_end_nothing():
    assert collectives_of(RING) == [Collective("collective-permute", (array("bf16", 8, 128, 1, 256),))]
    gather = "%g = ((u4[2,4], f32[8]), (u4[16,4], f32[64])) all-gather-start(%a, %b), channel_id=1, dimensions={0}"
    assert collectives_of(gather) == [Collective("all-gather", (array("u4", 16, 4), array("f32", 64)))]
    reduce = "%r = (f32[8]{0}, f32[]) all-reduce-start(%a, %b), channel_id=1, to_apply=%add"
    assert collectives_of(reduce) == [Collective("all-reduce", (array("f32", 8), array("f32")))]


def test_what_was_cut_into_parts_is_there_once():
    assert collectives_of(CUT) == [Collective("all-gather", (array("f32", 1, 4096),))] * 2


def test_other_instructions_are_none():
    text = '%f = f32[8]{0} fusion(%a), calls=%all-gather.1, metadata={op_name="all_gather("}\n%d = f32[2] dot(%a, %b)'
    assert collectives_of(text) == []


@pytest.mark.parametrize(
    "given,expected",
    [("bf16", 16), ("f32", 32), ("u4", 4), ("pred", 8), ("f8e4m3fn", 8), ("s64", 64)],
)
def test_bytes_follow_from_the_type(given, expected):
    (one,) = collectives_of(f"%x = {given}[6,4]{{1,0}} all-to-all(%a), channel_id=1")
    assert one.bytes == one.largest == 3 * expected


def test_bytes_of_a_result_are_those_of_its_arrays():
    (one,) = collectives_of("%x = (f32[4]{0}, bf16[4,2]{1,0}, f32[]) all-reduce(%a, %b, %c), channel_id=1")
    assert (one.bytes, one.largest) == (36, 16)


def test_all_rows_are_found_by_a_dimension():
    (one,) = collectives_of(SPLIT_HIDDEN)
    assert one.largest_of_all_rows(16, 2048) == one.bytes == 939_524_096
    assert one.largest_of_all_rows(32, 2048) == 0
    (flat,) = collectives_of("%x = (f32[4096]{0}, f32[32768,8]{1,0}) all-reduce(%a, %b), channel_id=1")
    assert flat.largest_of_all_rows(16, 2048) == 4 * 32768 * 8
    (chunk,) = collectives_of("%x = f32[16,512,8]{2,1,0} all-gather(%a), channel_id=1, dimensions={0}")
    assert chunk.largest_of_all_rows(16, 2048) == chunk.bytes


def test_the_table_has_the_largest_first_and_counts_equals():
    rows = table(collectives_of(CUT + RING + SPLIT_HIDDEN), least=2**14)
    assert [(row["kind"], row["arrays"], row["count"]) for row in rows] == [
        ("all-reduce", ["bf16[16,2048,14336]"], 1),
        ("collective-permute", ["bf16[8,128,1,256]"], 1),
        ("all-gather", ["f32[1,4096]"], 2),
    ]
    assert len(table(collectives_of(CUT + RING), least=2**15)) == 1
