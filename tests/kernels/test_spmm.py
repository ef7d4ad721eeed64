"""Y = W X on every instruction set: exact on integers, within the rounding bound on reals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysim.sparse import BsrMatrix, SpmmPlan
from pysim.workload import BlockGrid

FEW = settings(max_examples=60, deadline=None)
NAN = np.float32(np.nan)


@st.composite
def grids(draw):
    """Any block shape, whole or ragged, with up to nine kernel positions."""
    positions = draw(st.sampled_from([1, 1, 1, 2, 4, 9]))
    channels = draw(st.integers(1, 200 // positions))
    bh, bw = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    return BlockGrid(m=draw(st.integers(1, 130)), k=positions * channels, positions=positions, bh=bh, bw=bw)


def draw_mask(rng, grid, kind):
    shape = grid.shape
    match kind:
        case "none":
            return np.zeros(shape, bool)
        case "all":
            return np.ones(shape, bool)
        case "even":
            return rng.random(shape) < rng.random()
        case "skewed":  # densities from empty to full, row by row
            return rng.random(shape) < rng.integers(0, 3, (shape[0], 1)) / 2
        case "one row":
            return np.arange(shape[0])[:, None] == np.full(shape, rng.integers(shape[0]))
    raise AssertionError(kind)


MASKS = st.sampled_from(["none", "all", "even", "even", "skewed", "skewed", "one row"])


def spaced(rows, n, gap, shift, fill):
    """A (rows, n) view whose rows lie n + gap apart and start ``shift`` elements into ``fill``."""
    flat = np.full(shift + rows * (n + gap) + 1, fill, np.float32)
    return flat, np.lib.stride_tricks.as_strided(flat[shift:], (rows, n), (4 * (n + gap), 4), writeable=True)


@FEW
@given(
    grid=grids(),
    mask=MASKS,
    n=st.integers(0, 70),
    gaps=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    shifts=st.tuples(st.integers(0, 17), st.integers(0, 17)),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_product_is_exact_on_integers_and_writes_nothing_else(
    isa, grid, mask, n, gaps, shifts, threads, seed
):
    """Sums of integers below 2**24 are exact in float32 in any order, so no tolerance is needed."""
    rng = np.random.default_rng(seed)
    keep = draw_mask(rng, grid, mask)
    w = rng.integers(-8, 9, (grid.m, grid.k)).astype(np.float32)
    _, x = spaced(grid.k, n, gaps[0], shifts[0], NAN)  # whatever is read between the rows must not show
    x[:] = rng.integers(-8, 9, x.shape)
    memory, y = spaced(grid.m, n, gaps[1], shifts[1], NAN)
    plan = SpmmPlan(BsrMatrix.from_dense(w, grid, keep), isa=isa, threads=threads)
    expected = ((w * grid.expand(keep)).astype(np.int64) @ x.astype(np.int64)).astype(np.float32)
    assert plan.isa == isa
    assert plan(x, y) is y
    np.testing.assert_array_equal(y, expected)
    assert np.isnan(memory).sum() == memory.size - y.size


@pytest.mark.parametrize("n", [1, 7, 8, 17, 64, 500])
@pytest.mark.parametrize("block", [(1, 1), (2, 8), (3, 5), (4, 4), (8, 2), (16, 16)])
def test_error_stays_within_the_rounding_bound(isa, block, n):
    """|y - exact| <= gamma_k sum |w| |x|, with k products summed in any order, u = 2**-24.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1. The float64 reference errs by
    gamma_k with u = 2**-53 itself.
    """
    rng = np.random.default_rng(n)
    grid = BlockGrid(m=67, k=301, bh=block[0], bw=block[1])
    keep = rng.random(grid.shape) < 0.4
    matrix = BsrMatrix.from_dense(rng.standard_normal((grid.m, grid.k)), grid, keep)
    x = rng.standard_normal((grid.k, n)).astype(np.float32)
    y = SpmmPlan(matrix, isa=isa, threads=2)(x)
    w = matrix.to_dense().astype(np.float64)
    k = np.count_nonzero(grid.expand(keep), axis=1)[:, None]
    allowed = (_gamma(k, 2.0**-24) + _gamma(k, 2.0**-53)) * (abs(w) @ abs(x.astype(np.float64)))
    assert (abs(y - w @ x.astype(np.float64)) <= allowed).all()
    assert (y[k[:, 0] == 0] == 0).all()


def _gamma(k, unit):
    return k * unit / (1 - k * unit)


@settings(max_examples=25, deadline=None)
@given(
    block=st.sampled_from([(1, 1), (2, 2), (4, 4), (5, 3), (16, 16)]),
    mask=MASKS,
    n=st.sampled_from([1, 5, 33, 96, 200, 700]),
    seed=st.integers(0, 2**32 - 1),
)
def test_bits_do_not_depend_on_threads_or_on_the_run(isa, block, mask, n, seed):
    rng = np.random.default_rng(seed)
    grid = BlockGrid(m=130, k=260, bh=block[0], bw=block[1])
    keep = draw_mask(rng, grid, mask)
    matrix = BsrMatrix.from_dense(rng.standard_normal((grid.m, grid.k)), grid, keep)
    x = rng.standard_normal((grid.k, n)).astype(np.float32)
    plans = [SpmmPlan(matrix, isa=isa, threads=threads) for threads in (1, 2, 3, 7)]
    first = plans[0](x)
    for plan in plans * 2:
        assert plan(x).tobytes() == first.tobytes()


def test_columns_are_computed_alike_wherever_they_stand(isa):
    """A column's bits do not depend on its place or neighbours, unless there are too few to fill a vector."""
    rng = np.random.default_rng(0)
    grid = BlockGrid(m=23, k=90, bh=4, bw=4)
    plan = SpmmPlan(
        BsrMatrix.from_dense(rng.standard_normal((23, 90)), grid, rng.random(grid.shape) < 0.5), isa=isa
    )
    x = rng.standard_normal((90, 61)).astype(np.float32)
    whole = plan(x)
    for j in range(61 - 17):
        assert plan(x[:, j : j + 17].copy()).tobytes() == whole[:, j : j + 17].tobytes()


@pytest.mark.parametrize("bh", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("bw", [1, 2, 3, 4, 8, 16, 17])
def test_every_number_of_few_columns_is_exact(isa, bh, bw):
    """Few columns have kernels of their own: elements by rows, rows by columns, one vector for each row."""
    rng = np.random.default_rng(bh * 100 + bw)
    grid = BlockGrid(m=19, k=94, bh=bh, bw=bw)
    w = rng.integers(-8, 9, (19, 94)).astype(np.float32) * grid.expand(rng.random(grid.shape) < 0.4)
    bias = rng.integers(-8, 9, 19).astype(np.float32)
    plain = SpmmPlan(BsrMatrix.from_dense(w, grid), isa=isa)
    fused = SpmmPlan(BsrMatrix.from_dense(w, grid), isa=isa, bias=bias, relu=True)
    for n in range(1, 20):
        x = rng.integers(-8, 9, (94, n + 3)).astype(np.float32)
        residual = rng.integers(-8, 9, (19, n)).astype(np.float32)
        out = np.full((19, n + 5), np.float32(7))
        for inputs in (x[:, :n].copy(), x[:, 3:]):  # side by side, and with a pitch
            np.testing.assert_array_equal(plain(inputs), w @ inputs)
            np.testing.assert_array_equal(
                fused(inputs, residual=residual), np.maximum(w @ inputs + bias[:, None] + residual, 0)
            )
            plain(inputs, out[:, 2 : 2 + n])
            np.testing.assert_array_equal(out[:, 2 : 2 + n], w @ inputs)
            assert (out[:, :2] == 7).all()
            assert (out[:, 2 + n :] == 7).all()


def test_not_a_number_stays_in_its_column_and_pruned_blocks_are_not_touched(isa):
    grid = BlockGrid(m=8, k=8, bh=4, bw=4)
    keep = np.array([[True, False], [False, False]])
    x = np.ones((8, 40), np.float32)
    x[0, 17] = np.nan  # meets a kept block: that column of its four rows, nothing else
    x[7, 30] = np.inf  # meets pruned blocks only
    y = SpmmPlan(BsrMatrix.from_dense(np.ones((8, 8)), grid, keep), isa=isa)(x)
    expected = np.zeros((8, 40), np.float32)
    expected[:4] = 4
    expected[:4, 17] = np.nan
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("bh", [1, 2, 4])
def test_one_column_reads_nothing_of_the_next_rows_inputs(isa, bh):
    """Elements that do not fill a vector stand beside those of the block row behind, which must not count."""
    for kept in range(1, 40):
        grid = BlockGrid(m=2 * bh, k=80, bh=bh, bw=1)
        keep = np.arange(80) < [[kept], [80]]
        keep[1, :40] = False
        x = np.ones((80, 1), np.float32)
        x[40:] = np.inf
        y = SpmmPlan(BsrMatrix.from_dense(np.ones((2 * bh, 80)), grid, keep), isa=isa)(x)
        np.testing.assert_array_equal(y[:, 0], [kept] * bh + [np.inf] * bh)


@pytest.mark.parametrize("n", [17, 24, 48, 49, 97, 200, 256])
def test_rows_have_the_same_bits_in_a_tall_matrix(isa, n):
    """A tall matrix packs its inputs first, a low one reads them where they lie."""
    rng = np.random.default_rng(n)
    w = rng.standard_normal((160, 70)).astype(np.float32)
    _, x = spaced(70, n, 256 - n, 3, NAN)
    x[:] = rng.standard_normal((70, n))
    plans = {
        m: SpmmPlan(BsrMatrix.from_dense(w[:m], BlockGrid(m=m, k=70, bh=4, bw=2)), isa=isa, threads=threads)
        for m, threads in ((8, 1), (160, 2))
    }
    _, y = spaced(160, n, 5, 1, NAN)
    plans[160](x, y)
    assert y[:8].tobytes() == plans[8](x).tobytes()
