#include "kernels/int8_spmm.h"

#include <algorithm>
#include <utility>

#include "kernels/thread_pool.h"

namespace pysim {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Memory of this thread that is kept between calls, aligned, with one vector behind it that may be read.
std::uint8_t* workspace(std::int64_t bytes) {
  constexpr std::size_t line = 64;
  thread_local std::vector<std::uint8_t> memory;
  const std::size_t size = index(bytes) + 2 * line;
  if (memory.size() < size) memory = std::vector<std::uint8_t>(size);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  return memory.data() + (line - address % line) % line;
}

}  // namespace

Int8SpmmPlan::Int8SpmmPlan(const Int8View& matrix, Int8Options options, const Int8Kernels& kernels,
                           int threads)
    : matrix_(matrix, kernels.widened),
      epilogue_({matrix}, std::move(options)),
      kernels_(kernels),
      m_(matrix.blocks.grid.m),
      k_(matrix.blocks.grid.k),
      threads_(threads) {
  check_threads(threads, "int8 spmm");
}

Int8SpmmPlan::Panel Int8SpmmPlan::panel(std::int64_t n, std::int64_t panels, std::int64_t i) const {
  if (n == 1) return {0, 1, kQuad};
  const std::int64_t units = ceil_div(n, kPackColumns);
  const std::int64_t begin = units * i / panels;
  const std::int64_t end = units * (i + 1) / panels;
  return {begin * kPackColumns, std::min(n, end * kPackColumns) - begin * kPackColumns,
          (end - begin) * kPackBytes};
}

void Int8SpmmPlan::pack(const QuadGroup& group, const std::uint8_t* x, std::int64_t x_pitch,
                        const Panel& panel, std::int64_t quad_begin, std::int64_t quad_end,
                        std::uint8_t* packed) const {
  const std::uint8_t flip = epilogue_.signed_input ? 0x80 : 0;
  const std::int32_t* const rows = matrix_.rows(group) + kQuad * quad_begin;
  packed += quad_begin * panel.quad_pitch;
  if (panel.quad_pitch != kQuad) {
    kernels_.pack(x + panel.begin, x_pitch, rows, quad_end - quad_begin, panel.count, flip, packed,
                  panel.quad_pitch);
    return;
  }
  const std::int64_t count = kQuad * (quad_end - quad_begin);
  if (group.side_by_side && x_pitch == 1 && count > 0) {
    const std::uint8_t* const from = x + rows[0];
    for (std::int64_t i = 0; i < count; ++i) packed[i] = from[i] ^ flip;
  } else {
    for (std::int64_t i = 0; i < count; ++i) packed[i] = x[rows[i] * x_pitch] ^ flip;
  }
}

void Int8SpmmPlan::multiply(std::int64_t slab_begin, std::int64_t slab_end, const std::uint8_t* packed,
                            const Panel& panel, void* y, std::int64_t y_pitch) const {
  const Int8SlabKernel kernel = panel.quad_pitch == kQuad ? kernels_.column : kernels_.slab;
  const std::int64_t bytes = element_bytes(output());
  Int8Finish finish = epilogue_.finish;
  for (std::int64_t s = slab_begin; s < slab_end; ++s) {
    const std::int64_t row = matrix_.first_row(s);
    if (!epilogue_.scale.empty()) {
      finish.scale = epilogue_.scale.data() + row;
      finish.bias = epilogue_.bias.data() + row;
    }
    char* const to = static_cast<char*>(y) + (row * y_pitch + panel.begin) * bytes;
    kernel(matrix_.slab(s, epilogue_.start.data()), packed, panel.quad_pitch, panel.count, finish, to,
           y_pitch);
  }
}

/// The first slab of `part`, where the slabs [begin, end) are cut into `parts` of nearly equal cost.
std::int64_t Int8SpmmPlan::split(std::int64_t begin, std::int64_t end, std::int64_t part,
                                 std::int64_t parts) const {
  if (part == parts) return end;
  const std::int64_t before = matrix_.cost_before(begin);
  const std::int64_t target = before + (matrix_.cost_before(end) - before) * part / parts;
  while (begin < end) {
    const std::int64_t middle = begin + (end - begin) / 2;
    if (matrix_.cost_before(middle) < target) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

void Int8SpmmPlan::run(const std::uint8_t* x, std::int64_t x_pitch, std::int64_t n, void* y,
                       std::int64_t y_pitch, int most_threads) const {
  if (n == 0) return;
  const std::vector<QuadGroup>& groups = matrix_.groups();
  const std::int64_t slabs = matrix_.slab_count();
  const std::int64_t panels = ceil_div(ceil_div(n, kPackColumns) * kPackColumns, kernels_.panel_columns);
  const bool alone = matrix_.cost_before(slabs) < ceil_div(kInt8WorthAThread, n);
  const int threads = alone ? 1 : most_threads;
  const auto group_count = static_cast<std::int64_t>(groups.size());

  const auto run_groups = [&](std::int64_t group_begin, std::int64_t group_end, std::int64_t panel_begin,
                              std::int64_t panel_end) {
    for (std::int64_t p = panel_begin; p < panel_end; ++p) {
      const Panel here = panel(n, panels, p);
      for (std::int64_t g = group_begin; g < group_end; ++g) {
        const QuadGroup& group = groups[index(g)];
        std::uint8_t* const packed = workspace(group.quads * here.quad_pitch);
        pack(group, x, x_pitch, here, 0, group.quads, packed);
        multiply(group.slab_begin, group.slab_end, packed, here, y, y_pitch);
      }
    }
  };
  if (threads == 1) {
    run_groups(0, group_count, 0, panels);
  } else if (panels >= 2 * threads) {
    const std::int64_t tasks = std::min<std::int64_t>(panels, 4 * threads);
    run_parallel(threads, tasks, [&](std::int64_t task) {
      run_groups(0, group_count, panels * task / tasks, panels * (task + 1) / tasks);
    });
  } else if (group_count >= 4 * threads) {
    // Whole groups, each in the part that its first slab is in.
    const auto first_group = [&](std::int64_t part) {
      const std::int64_t slab = split(0, slabs, part, threads);
      return std::lower_bound(groups.begin(), groups.end(), slab,
                              [](const QuadGroup& group, std::int64_t s) { return group.slab_begin < s; }) -
             groups.begin();
    };
    run_parallel(threads, threads,
                 [&](std::int64_t task) { run_groups(first_group(task), first_group(task + 1), 0, panels); });
  } else {
    // Few panels and few groups: packed by all threads for all panels, then multiplied by all.
    for (const QuadGroup& group : groups) {
      std::vector<Panel> all;
      std::vector<std::int64_t> offsets;
      std::int64_t bytes = 0;
      for (std::int64_t p = 0; p < panels; ++p) {
        all.push_back(panel(n, panels, p));
        offsets.push_back(bytes);
        bytes += group.quads * all.back().quad_pitch;
      }
      std::uint8_t* const packed = workspace(bytes);
      run_parallel(threads, threads, [&](std::int64_t task) {
        for (std::size_t p = 0; p < all.size(); ++p)
          pack(group, x, x_pitch, all[p], group.quads * task / threads, group.quads * (task + 1) / threads,
               packed + offsets[p]);
      });
      run_parallel(threads, threads, [&](std::int64_t task) {
        const std::int64_t begin = split(group.slab_begin, group.slab_end, task, threads);
        const std::int64_t end = split(group.slab_begin, group.slab_end, task + 1, threads);
        for (std::size_t p = 0; p < all.size(); ++p)
          multiply(begin, end, packed + offsets[p], all[p], y, y_pitch);
      });
    }
  }
}

}  // namespace pysim
