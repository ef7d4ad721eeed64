"""The machine that runs PTX, by kernels written here: what instructions compute, and what it refuses.

Expected values come from Python's integers, numpy and torch; fragments from the tables of the PTX ISA.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ptx.simulated import PtxError, memory_of

LANES = 32
FEW = settings(max_examples=25, deadline=None)
REGISTERS = {"b16": "rs", "b32": "r", "b64": "rd", "f32": "f", "pred": "p"}


def kernel(body, name="k"):
    """An entry with two addresses, %rd1 (read) and %rd2 (written), and this lane's number in %r1."""
    return f"""
.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 sh[];
.visible .entry {name}(
    .param .align 8 .b8 {name}_param_0[16]
)
{{
    .reg .pred %p<20>;
    .reg .b16 %rs<40>;
    .reg .b32 %r<60>;
    .reg .f32 %f<20>;
    .reg .b64 %rd<20>;
    ld.param.u64 %rd1, [{name}_param_0];
    ld.param.u64 %rd2, [{name}_param_0+8];
    mov.u32 %r1, %tid.x;
    {body}
    ret;
}}
"""


def run(gpu, body, source, result, seed=0, **grid):
    gpu.load(kernel(body))
    parameters = np.array([source.ctypes.data, result.ctypes.data], np.uint64).tobytes()
    memory = [memory_of("source", source), memory_of("result", result, writable=True)]
    gpu.run("k", parameters, memory, seed=seed, **grid)
    return result


def on_lanes(gpu, instruction, sources, types, to):
    """One instruction on 32 lanes: `instruction` reads %a0, %a1 ..., writes %d."""
    bits = {"b16": 16, "b32": 32, "b64": 64, "f32": 32}
    loads, source = [], np.zeros((len(sources), LANES), np.uint64)
    names = []
    for s, (values, type_) in enumerate(zip(sources, types, strict=True)):
        source[s] = np.array([int(v) & (2**64 - 1) for v in values], np.uint64)
        names.append(f"%{REGISTERS[type_]}{10 + s}")
        loads.append(f"ld.global.u{bits[type_]} {names[-1].replace('%f', '%r')}, [%rd4+{8 * LANES * s}];")
        if type_ == "f32":
            loads.append(f"mov.b32 {names[-1]}, %r{10 + s};")
    result = f"%{REGISTERS[to]}9"
    for s, name in reversed(list(enumerate(names))):
        instruction = instruction.replace(f"%a{s}", name)
    store = {"pred": "selp.u32 %r8, 1, 0, %p9; st.global.u32 [%rd5], %r8;"}.get(
        to, f"st.global.{to} [%rd5], {result};"
    )
    body = f"""
    mul.wide.u32 %rd3, %r1, 8;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    {" ".join(loads)}
    {instruction.replace("%d", result)};
    {store}
    """
    return run(gpu, body, source, np.zeros(LANES, np.uint64))


def signed(value, bits):
    value &= 2**bits - 1
    return value - 2**bits if value >> (bits - 1) else value


def divided(a, b):
    """Towards zero, as C and PTX divide."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INTEGERS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "div": divided,
    "rem": lambda a, b: a - b * divided(a, b),
    "min": min,
    "max": max,
}
edges = st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 7, -7])
words = st.lists(st.one_of(edges, st.integers(0, 2**64 - 1)), min_size=LANES, max_size=LANES)


@pytest.mark.parametrize("operation", INTEGERS)
@pytest.mark.parametrize("type_", ["s32", "u32", "s64", "u64"])
@FEW
@given(a=words, b=words)
def test_integers(simulated_gpu, operation, type_, a, b):
    bits = int(type_[1:])
    of = (lambda v: signed(v, bits)) if type_[0] == "s" else (lambda v: v & (2**bits - 1))
    if operation in ("div", "rem"):
        b = [v if of(v) != 0 else 3 for v in b]
    found = on_lanes(simulated_gpu, f"{operation}.{type_} %d, %a0, %a1", (a, b), [f"b{bits}"] * 2, f"b{bits}")
    expected = [INTEGERS[operation](of(x), of(y)) & (2**bits - 1) for x, y in zip(a, b, strict=True)]
    assert found.tolist() == expected


@pytest.mark.parametrize("operation", ["shl.b32", "shr.u32", "shr.s32", "shl.b64", "shr.u64", "shr.s64"])
@FEW
@given(a=words, by=st.lists(st.integers(0, 70), min_size=LANES, max_size=LANES))
def test_shifts_stop_at_the_width(simulated_gpu, operation, a, by):
    bits = int(operation[-2:])
    found = on_lanes(simulated_gpu, f"{operation} %d, %a0, %a1", (a, by), [f"b{bits}", "b32"], f"b{bits}")

    def expected(x, y):
        if operation.startswith("shl"):
            return x << y
        return (signed(x, bits) if operation[4] == "s" else x & (2**bits - 1)) >> y

    assert found.tolist() == [expected(x, y) & (2**bits - 1) for x, y in zip(a, by, strict=True)]


@FEW
@given(a=words, b=words)
def test_wide_products_bit_fields_and_bytes(simulated_gpu, a, b):
    low = [x & (2**32 - 1) for x in a]
    both = list(zip(a, b, strict=True))
    wide = on_lanes(simulated_gpu, "mul.wide.s32 %d, %a0, %a1", (a, b), ["b32"] * 2, "b64")
    assert wide.tolist() == [signed(x, 32) * signed(y, 32) & (2**64 - 1) for x, y in both]
    found = on_lanes(simulated_gpu, "bfi.b32 %d, %a0, %a1, 16, 16", (a, b), ["b32"] * 2, "b32")
    assert found.tolist() == [(y & 0xFFFF) | (x & 0xFFFF) << 16 for x, y in both]
    found = on_lanes(simulated_gpu, "bfe.s32 %d, %a0, 8, 8", (a,), ["b32"], "b32")
    assert found.tolist() == [signed(x >> 8, 8) & (2**32 - 1) for x in a]
    # Byte 0 of the second, the sign of byte 1 of the first, bytes 3 and 0 of the first.
    found = on_lanes(simulated_gpu, "prmt.b32 %d, %a0, %a1, 0x0394", (a, b), ["b32"] * 2, "b32")
    expected = [
        (y & 0xFF) | (0xFF00 if x >> 15 & 1 else 0) | (x >> 24 & 0xFF) << 16 | (x & 0xFF) << 24
        for x, (_, y) in zip(low, both, strict=True)
    ]
    assert found.tolist() == expected
    for table, logic in ((0x96, lambda x, y: x ^ y ^ 0xF0F0), (0xE8, lambda x, y: x & y | (x | y) & 0xF0F0)):
        found = on_lanes(simulated_gpu, f"lop3.b32 %d, %a0, %a1, 0xf0f0, {table}", (a, b), ["b32"] * 2, "b32")
        assert found.tolist() == [logic(x & (2**32 - 1), y & (2**32 - 1)) for x, y in both]


float_bits = st.lists(
    st.one_of(
        st.floats(width=32).map(lambda x: int(np.float32(x).view(np.uint32))), st.integers(0, 2**32 - 1)
    ),
    min_size=LANES,
    max_size=LANES,
)


def as_floats(bits):
    return np.array(bits, np.uint32).view(np.float32)


def same(found, expected):
    """The same bits, or a NaN each."""
    got, want = found.astype(np.uint32).view(np.float32), np.asarray(expected, np.float32)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[~np.isnan(want)]), np.signbit(want[~np.isnan(want)]))


@FEW
@given(a=float_bits, b=float_bits, c=float_bits)
def test_floats(simulated_gpu, a, b, c):
    x, y, z = as_floats(a), as_floats(b), as_floats(c)
    with np.errstate(all="ignore"):
        same(on_lanes(simulated_gpu, "add.f32 %d, %a0, %a1", (a, b), ["f32"] * 2, "f32"), x + y)
        same(on_lanes(simulated_gpu, "mul.f32 %d, %a0, %a1", (a, b), ["f32"] * 2, "f32"), x * y)
        # torch fuses on no CPU for sure: long doubles hold the product of two floats exactly, and rounding
        # the sum twice differs from once by less than a unit in the last place.
        found = on_lanes(simulated_gpu, "fma.rn.f32 %d, %a0, %a1, %a2", (a, b, c), ["f32"] * 3, "f32")
        got = found.astype(np.uint32).view(np.float32)
        wide = x.astype(np.longdouble) * y + z
        finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(z) & (np.abs(wide) < 1e38)
        ulp = np.spacing(np.abs(got[finite]).clip(min=np.float32(1e-38)))
        assert (np.abs(got[finite] - wide[finite]) <= ulp).all()
        for word, holds in (("lt", x < y), ("geu", ~(x < y)), ("eq", x == y), ("neu", x != y)):
            found = on_lanes(simulated_gpu, f"setp.{word}.f32 %d, %a0, %a1", (a, b), ["f32"] * 2, "pred")
            np.testing.assert_array_equal(found, holds)


@FEW
@given(a=float_bits)
def test_conversions(simulated_gpu, a):
    x = torch.from_numpy(as_floats(a))
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        bits = on_lanes(simulated_gpu, f"cvt.rn.{name}.f32 %d, %a0", (a,), ["f32"], "b16")
        got = torch.from_numpy(bits.astype(np.uint16).view(np.int16)).view(dtype)
        torch.testing.assert_close(got, x.to(dtype), rtol=0, atol=0, equal_nan=True)
        back = on_lanes(simulated_gpu, f"cvt.f32.{name} %d, %a0", (bits.tolist(),), ["b16"], "f32")
        same(back, got.float().numpy())
    # To the nearest of 10 bits of fraction, ties away from zero.
    found = on_lanes(simulated_gpu, "cvt.rna.tf32.f32 %d, %a0", (a,), ["f32"], "b32")
    for got, value in zip(found.astype(np.uint32).view(np.float32), x.tolist(), strict=True):
        if math.isfinite(value) and 1e-30 < abs(value) < 3e38:
            scale = 2.0 ** (math.frexp(value)[1] - 11)
            assert got == math.copysign(math.floor(abs(value) / scale + 0.5) * scale, value)
    whole = on_lanes(simulated_gpu, "cvt.rni.s32.f32 %d, %a0", (a,), ["f32"], "b32")
    for got, value in zip(whole.tolist(), x.tolist(), strict=True):
        expected = (
            0 if math.isnan(value) else max(-(2**31), min(2**31 - 1, round(max(-1e10, min(1e10, value)))))
        )
        assert signed(got, 32) == expected
    found = on_lanes(simulated_gpu, "cvt.rni.f32.f32 %d, %a0", (a,), ["f32"], "f32")
    same(found, x.round().numpy())
    same(on_lanes(simulated_gpu, "cvt.rzi.f32.f32 %d, %a0", (a,), ["f32"], "f32"), x.trunc().numpy())
    back = on_lanes(simulated_gpu, "cvt.rn.f32.s32 %d, %a0", (a,), ["b32"], "f32")
    same(back, np.array(a, np.uint32).view(np.int32).astype(np.float32))
    clamped = on_lanes(simulated_gpu, "cvt.sat.s8.s32 %d, %a0", (a,), ["b32"], "b32")
    assert [signed(v, 32) for v in clamped.tolist()] == [max(-128, min(127, signed(v, 32))) for v in a]


MMA = {
    "m16n8k16.row.col.f32.f16.f16.f32": (16, 2, np.float16),
    "m16n8k8.row.col.f32.tf32.tf32.f32": (8, 1, np.float32),
    "m16n8k32.row.col.s32.s8.s8.s32": (32, 4, np.int8),
    "m16n8k32.row.col.s32.u8.s8.s32": (32, 4, np.int8),
}


@pytest.mark.parametrize("shape", MMA)
def test_products_of_fragments(simulated_gpu, shape):
    """A from its rows and B from its columns, by the formulas for element i of a fragment in the PTX ISA."""
    depth, together, dtype = MMA[shape]
    rng = np.random.default_rng(0)
    integers = dtype == np.int8
    left = rng.integers(0 if ".u8" in shape else -8, 9, (16, depth)).astype(dtype)
    right = rng.integers(-8, 9, (depth, 8)).astype(dtype)
    before = rng.integers(-100, 100, (16, 8)).astype(np.int32 if integers else np.float32)
    a = np.zeros((LANES, 4 * together), dtype)
    b = np.zeros((LANES, 2 * together), dtype)
    c = np.zeros((LANES, 4), before.dtype)
    for lane in range(LANES):
        group, thread = lane // 4, lane % 4
        for i in range(4 * together):
            row = group + 8 * (i // together % 2)
            a[lane, i] = left[row, thread * together + i % together + depth // 2 * (i // (2 * together))]
        for i in range(2 * together):
            b[lane, i] = right[thread * together + i % together + depth // 2 * (i // together), group]
        for i in range(4):
            c[lane, i] = before[group + 8 * (i // 2), 2 * thread + i % 2]
    source = np.concatenate([part.view(np.uint32) for part in (a, b, c)], axis=1).copy()
    file = "r" if integers else "f"
    to_sums = "" if integers else "".join(f"mov.b32 %f{i}, %r{16 + i};" for i in range(4))
    sums = ", ".join(f"%{file}{(16 if integers else 0) + i}" for i in range(4))
    body = f"""
    mul.wide.u32 %rd3, %r1, 40;
    add.s64 %rd4, %rd1, %rd3;
    {"".join(f"ld.global.u32 %r{10 + i}, [%rd4+{4 * i}];" for i in range(10))}
    {to_sums}
    mma.sync.aligned.{shape} {{{sums}}}, {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}}, {{{sums}}};
    mul.wide.u32 %rd3, %r1, 16;
    add.s64 %rd5, %rd2, %rd3;
    st.global.v4.{"u32" if integers else "f32"} [%rd5], {{{sums}}};
    """
    found = run(simulated_gpu, body, source, np.zeros((LANES, 4), before.dtype))
    expected = left.astype(np.int64) @ right.astype(np.int64) + before
    for lane in range(LANES):
        for i in range(4):
            assert found[lane, i] == expected[lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2]


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_from_shared_memory(simulated_gpu, transposed):
    """Four 8 x 8 matrices of two-byte elements, row r of matrix m where lane 8 m + r says."""
    matrices = np.random.default_rng(1).integers(0, 2**16, (4, 8, 8)).astype(np.uint16)
    body = f"""
    mul.wide.u32 %rd3, %r1, 16;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd4];
    mov.u32 %r2, sh;
    xor.b32 %r3, %r1, 5;
    shl.b32 %r4, %r3, 4;
    add.s32 %r5, %r2, %r4;
    st.shared.v4.u32 [%r5], {{%r10, %r11, %r12, %r13}};
    bar.warp.sync -1;
    ldmatrix.sync.aligned.m8n8.x4{".trans" * transposed}.shared.b16 {{%r20, %r21, %r22, %r23}}, [%r5];
    st.global.v4.u32 [%rd5], {{%r20, %r21, %r22, %r23}};
    """
    found = run(simulated_gpu, body, matrices, np.zeros((LANES, 4, 2), np.uint16), shared_bytes=512)
    for lane in range(LANES):
        for m in range(4):
            matrix = matrices[m].T if transposed else matrices[m]
            assert found[lane, m].tolist() == matrix[lane // 4, 2 * (lane % 4) :][:2].tolist()
    assert simulated_gpu.counts["shared_wavefronts"] == simulated_gpu.counts["shared_ideal"] == 8


def test_bank_conflicts_are_counted(simulated_gpu):
    """Lanes 128 bytes apart meet in one bank; 4 bytes apart they do not, and on one word they share it."""
    for stride, wavefronts in ((128, 32), (4, 1), (0, 1), (8, 2)):
        body = f"""
        mov.u32 %r2, sh;
        mul.lo.s32 %r3, %r1, {stride};
        add.s32 %r4, %r2, %r3;
        ld.shared.u32 %r5, [%r4];
        """
        run(simulated_gpu, body, np.zeros(1), np.zeros(1), shared_bytes=4096)
        assert simulated_gpu.counts["shared_wavefronts"] == wavefronts


def test_a_butterfly_adds_across_lanes(simulated_gpu):
    add = "shfl.sync.bfly.b32 %r3|%p1, %r2, APART, 31, -1; add.s32 %r2, %r2, %r3;"
    body = f"""
    mov.u32 %r2, %r1;
    {"".join(add.replace("APART", str(apart)) for apart in (1, 2, 4, 8, 16))}
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd5, %rd2, %rd3;
    st.global.u32 [%rd5], %r2;
    """
    assert run(simulated_gpu, body, np.zeros(1), np.zeros(32, np.uint32)).tolist() == [496] * 32


# ---- What a GPU would not allow. Each body is wrong without its part between << and >>, and right with it.

TO_SHARED = """
    mov.u32 %r2, sh; shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3;
    xor.b32 %r5, %r4, 4; xor.b32 %r6, %r4, 128;
    st.shared.u32 [%r4], %r1;
"""
COPY = """
    and.b32 %r6, %r1, 31; mul.wide.u32 %rd3, %r6, 16; add.s64 %rd4, %rd1, %rd3;
    mov.u32 %r2, sh; shl.b32 %r3, %r1, 4; add.s32 %r4, %r2, %r3; xor.b32 %r5, %r4, 16;
    cp.async.cg.shared.global [%r4], [%rd4], 16, 16;
"""
MAKE = """
    mov.u32 %r2, sh; setp.ne.s32 %p1, %r1, 0;
    @%p1 bra $made; mbarrier.init.shared::cta.b64 [%r2], 1; $made:
"""
MEET = """
    bar.warp.sync -1;
    barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
"""
VISIBLE = f"fence.mbarrier_init.release.cluster; {MEET}"
FETCH = """
    @%p1 bra $fetched;
    mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%r2], 64;
    add.s32 %r3, %r2, 16; mov.u16 %rs1, 1;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
        [%r3], [%rd1], 64, [%r2], %rs1;
    $fetched:
"""
WAIT = "$again: mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p2, [%r2], 0; @!%p2 bra $again;"
READ_BULK = "ld.shared.u32 %r7, [%r2+16];"
MMA_OF_R2 = """
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
        {%f0, %f1, %f2, %f3}, {%r2, %r2, %r2, %r2}, {%r2, %r2}, {%f0, %f1, %f2, %f3};
"""

FAULTS = {
    "a write and a read of two warps": (
        f"{TO_SHARED} << bar.sync 0; >> ld.shared.u32 %r7, [%r6];",
        "race",
    ),
    "a write and a read of two lanes": (
        f"{TO_SHARED} << bar.warp.sync -1; >> ld.shared.u32 %r7, [%r5];",
        "another lane",
    ),
    "a read and a write of two warps": (
        f"{TO_SHARED} bar.sync 0; ld.shared.u32 %r7, [%r6]; << bar.sync 0; >> st.shared.u32 [%r4], %r7;",
        "another",
    ),
    "a copy that is not waited for": (
        f"{COPY} cp.async.commit_group; << cp.async.wait_group 0; >> bar.sync 0; ld.shared.u32 %r7, [%r5];",
        "copy on its way",
    ),
    "a copy that was not committed": (
        f"{COPY} << cp.async.commit_group; >> cp.async.wait_group 0; bar.sync 0; ld.shared.u32 %r7, [%r5];",
        "copy on its way",
    ),
    "a copy that only its own thread has waited for": (
        f"{COPY} cp.async.commit_group; cp.async.wait_group 0; << bar.sync 0; >> ld.shared.u32 %r7, [%r5];",
        "another|copy",
    ),
    "lanes that a branch sent apart": (
        "setp.lt.s32 %p1, %r1, 7; @%p1 bra $join; add.s32 %r2, %r1, 1; $join: "
        f"<< bar.warp.sync -1; >> {MMA_OF_R2}",
        "together",
    ),
    "the copy engine, not waited for": (f"{MAKE} {VISIBLE} {FETCH} << {WAIT} >> {READ_BULK}", "race"),
    "the copy engine, before the barrier is visible": (
        f"{MAKE} << fence.mbarrier_init.release.cluster; >> {MEET} {FETCH} {WAIT} {READ_BULK}",
        "fence",
    ),
    "fewer bytes than announced": (
        f"{MAKE} {VISIBLE} << >> {FETCH} {WAIT} {READ_BULK}",
        "nobody can go on",
    ),
}


def halves(text):
    """Without and with what stands between << and >>."""
    without, with_ = "", ""
    for part in text.split("<<"):
        inside, _, rest = part.rpartition(">>")
        without, with_ = without + rest, with_ + inside + rest
    return without, with_


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_in_every_order_and_its_cure_is_none(simulated_gpu, name):
    text, message = FAULTS[name]
    wrong, right = halves(text)
    if name == "fewer bytes than announced":
        wrong = wrong.replace("_, [%r2], 64", "_, [%r2], 80")
    warps = 1 if "fence" in text or "mma" in text else 2
    grid = {"threads": LANES * warps, "shared_bytes": 1024}
    source = np.zeros(256, np.float32)
    for seed in range(20):
        run(simulated_gpu, right, source, np.zeros(1), seed=seed, **grid)
        with pytest.raises(PtxError, match=message):
            run(simulated_gpu, wrong, source, np.zeros(1), seed=seed, **grid)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ld.global.u32 %r2, [%rd1+1024];", "0 bytes from the end of source"),
        ("ld.global.u32 %r2, [%rd1+2];", "aligned"),
        ("st.global.u32 [%rd1], %r1;", "expected memory for results, got source"),
        ("st.global.u32 [%rd2], %r1;", "two threads write the same byte of result"),
        ("ld.global.nc.u32 %r2, [%rd2];", "memory that nobody writes"),
        ("mov.u32 %r2, sh; ld.shared.u32 %r3, [%r2+1024];", "within 1024 bytes"),
        ("mov.u32 %r2, sh; ld.shared.v2.u32 {%r3, %r4}, [%r2+4];", "aligned to 8"),
        ("mov.u32 %r2, 0; div.u32 %r3, %r1, %r2;", "division by zero"),
        ("setp.lt.s32 %p1, %r1, 7; @%p1 bar.sync 0;", "under a predicate"),
        ("setp.lt.s32 %p1, %r1, 7; @%p1 bra $a; bar.sync 0; bra.uni $b; $a: bar.sync 0; $b:", "one barrier"),
        ("$a: bra.uni $a;", "does not end"),
        ("sqrt.rn.f32 %f1, %f2;", "instruction that this machine knows, got sqrt"),
        ("add.ftz.f32 %f1, %f2, %f3;", "exact arithmetic"),
        ("add.sat.s32 %r1, %r2, %r3;", "exact arithmetic"),
        ("mov.u32 %r2, %r99;", "register or a number, got %r99"),
        ("bra.uni $nowhere;", r"label \$nowhere"),
    ],
)
def test_what_is_refused(simulated_gpu, body, message):
    with pytest.raises(PtxError, match=message):
        run(simulated_gpu, body, np.zeros(256, np.float32), np.zeros(1), shared_bytes=1024)
