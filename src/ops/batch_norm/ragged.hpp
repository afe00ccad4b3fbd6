// Batch norm over samples of unequal length, [N, positions, channels] with lengths[n] valid positions each: what lies
// behind them is read by nobody and written as 0. Blocks are cut within samples, from the lengths alone, so that the
// amount of padding changes no bit.
#pragma once

#include <algorithm>
#include <cstddef>

#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::batch_norm {

template <class T>
class Ragged {
 public:
  Ragged(const Geometry& g, const Scratch<T>& scratch, Workers workers)
      : g_(g), s_(scratch), workers_(workers), tasks_(ragged_tasks(g)) {}

  void statistics(const T* x, const Statistics& out) const {
    parallel_for(tasks_, workers_, [&](std::size_t task) {
      std::size_t rows = 0;
      for_each_block(task, [&](std::size_t at, const Block& block) {
        run_.column_moments(x + at, block, rows, first(task), second(task));
        rows += block.rows;
      });
    });
    std::size_t rows = 0;
    for (std::size_t task = 0; task < tasks_; ++task) {
      const std::size_t more = rows_of_task(task);
      if (more == 0) continue;
      if (rows == 0) {
        std::copy_n(first(task), g_.channels, out.mean);
        std::copy_n(second(task), g_.channels, out.variance);
      } else {
        merge_moments(g_.channels, rows, out.mean, out.variance, more, first(task), second(task));
      }
      rows += more;
    }
    for (std::size_t c = 0; c < g_.channels; ++c) out.variance[c] /= static_cast<double>(rows);
  }

  void normalize(const kernels::Forward<T>& t, const ForwardChannels<T>& channels) const {
    const bool careful = channels.prepare_all();
    for (std::size_t c = 0; careful && c < g_.channels; ++c) channels.normalize_carefully(c, t);
    parallel_for(tasks_, workers_, [&](std::size_t task) {
      for_each_block(task, [&](std::size_t at, const Block& block) {
        if (!careful) run_.normalize_columns(t.at(at), block, s_.coefficients);
      });
      for_each_padding(task, [&](std::size_t at, std::size_t count) { std::fill_n(t.y + at, count, T{}); });
    });
  }

  void differentiate(const kernels::Backward<T>& t, const BackwardChannels<T>& channels) const {
    channels.forward().prepare_all();
    parallel_for(tasks_, workers_, [&](std::size_t task) {
      std::fill_n(first(task), g_.channels, 0.0);
      std::fill_n(second(task), g_.channels, 0.0);
      for_each_block(task, [&](std::size_t at, const Block& block) {
        run_.column_dots(t.at(at), block, s_.coefficients, first(task), second(task));
      });
    });
    bool careful = false;
    for (std::size_t c = 0; c < g_.channels; ++c) {
      double sum = 0, dot = 0;
      for (std::size_t task = 0; task < tasks_; ++task) {
        sum += first(task)[c];
        dot += second(task)[c];
      }
      channels.finish(c, t, sum, dot);
      careful = careful || channels.needs_care(c);
    }
    for (std::size_t c = 0; careful && c < g_.channels; ++c) channels.differentiate_carefully(c, t);
    parallel_for(tasks_, workers_, [&](std::size_t task) {
      for_each_block(task, [&](std::size_t at, const Block& block) {
        if (!careful) run_.gradient_columns(t.at(at), block, s_.coefficients);
      });
      for_each_padding(task, [&](std::size_t at, std::size_t count) {
        std::fill_n(t.dx + at, count, T{});
        if (t.dresidual != nullptr) std::fill_n(t.dresidual + at, count, T{});
      });
    });
  }

 private:
  double* first(std::size_t task) const { return s_.first + task * g_.channels; }
  double* second(std::size_t task) const { return s_.second + task * g_.channels; }
  std::size_t first_sample(std::size_t task) const { return task * g_.samples / tasks_; }

  std::size_t rows_of_task(std::size_t task) const {
    std::size_t rows = 0;
    for (std::size_t n = first_sample(task); n < first_sample(task + 1); ++n) rows += g_.lengths[n];
    return rows;
  }

  /// Calls body(element, block) for the valid rows of a task's samples.
  template <class Body>
  void for_each_block(std::size_t task, const Body& body) const {
    const std::size_t c = g_.channels, most = std::clamp<std::size_t>(kernels::ColumnPlan::kBlockFloats / c, 32, 512);
    for (std::size_t n = first_sample(task); n < first_sample(task + 1); ++n) {
      for (std::size_t row = 0; row < g_.lengths[n]; row += most) {
        body((n * g_.positions + row) * c, Block{std::min(most, g_.lengths[n] - row), c, c});
      }
    }
  }

  /// Calls body(element, count) for what lies behind them.
  template <class Body>
  void for_each_padding(std::size_t task, const Body& body) const {
    for (std::size_t n = first_sample(task); n < first_sample(task + 1); ++n) {
      const std::size_t valid = g_.lengths[n];
      body((n * g_.positions + valid) * g_.channels, (g_.positions - valid) * g_.channels);
    }
  }

  const Geometry& g_;
  const Scratch<T>& s_;
  Workers workers_;
  std::size_t tasks_;
  const kernels::Kernels<T>& run_ = kernels::get<T>();
};

}  // namespace equinorm::batch_norm
