// Batch norm over samples of unequal length, [N, positions, channels] or [N, channels, positions] with lengths[n] valid
// positions each: what lies behind them is read by nobody and written as 0. Blocks are cut within samples, from the
// lengths alone, so that the amount of padding changes no bit.
#pragma once

#include <algorithm>
#include <cstddef>

#include "core/padding.hpp"
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
      for_each_block(task, [&](std::size_t at, std::size_t channel, std::size_t before, const auto& block) {
        moments(x + at, block, before, first(task) + channel, second(task) + channel);
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
      for_each_block(task, [&](std::size_t at, std::size_t channel, std::size_t, const auto& block) {
        if (!careful) normalize(t.at(at), block, coefficients().at(channel));
      });
      clear(task, t.y);
    });
  }

  void differentiate(kernels::Backward<T> t, const BackwardChannels<T>& channels) const {
    if (!channels.forward().prepare_all()) t.gate_first(true);
    const kernels::Backward<T> rest = t.after_sums(false);
    parallel_for(tasks_, workers_, [&](std::size_t task) {
      std::fill_n(first(task), g_.channels, 0.0);
      std::fill_n(second(task), g_.channels, 0.0);
      for_each_block(task, [&](std::size_t at, std::size_t channel, std::size_t, const auto& block) {
        dots(t.at(at), block, coefficients().at(channel), first(task) + channel, second(task) + channel);
      });
    });
    for (std::size_t c = 0; c < g_.channels; ++c) {
      s_.sum[c] = s_.dot[c] = 0;
      for (std::size_t task = 0; task < tasks_; ++task) {
        s_.sum[c] += first(task)[c];
        s_.dot[c] += second(task)[c];
      }
    }
    const bool careful = channels.finish(0, g_.channels, rest);
    for (std::size_t c = 0; careful && c < g_.channels; ++c) channels.differentiate_carefully(c, rest);
    parallel_for(tasks_, workers_, [&](std::size_t task) {
      for_each_block(task, [&](std::size_t at, std::size_t channel, std::size_t, const auto& block) {
        if (!careful) differentiate(rest.at(at), block, coefficients().at(channel));
      });
      clear(task, t.dx);
      clear(task, t.dresidual);
    });
  }

 private:
  kernels::Coefficients<T> coefficients() const { return s_.coefficients; }
  double* first(std::size_t task) const { return s_.first + task * g_.channels; }
  double* second(std::size_t task) const { return s_.second + task * g_.channels; }
  std::size_t first_sample(std::size_t task) const { return task * g_.samples / tasks_; }

  std::size_t rows_of_task(std::size_t task) const {
    std::size_t rows = 0;
    for (std::size_t n = first_sample(task); n < first_sample(task + 1); ++n) rows += g_.lengths[n];
    return rows;
  }

  /// Calls body(element, its channel, the task's values of a channel before it, block) for the valid positions of a
  /// task's samples; block is a Block of rows, all channels wide, or a PlaneBlock of some channels.
  template <class Body>
  void for_each_block(std::size_t task, const Body& body) const {
    const std::size_t c = g_.channels;
    std::size_t before = 0;
    for (std::size_t n = first_sample(task); n < first_sample(task + 1); before += g_.lengths[n++]) {
      const std::size_t sample = n * g_.positions * c, length = g_.lengths[n];
      if (length == 0) continue;
      if (g_.columns()) {
        body(sample, 0, before, Block{length, c, c});
        continue;
      }
      const std::size_t group = std::clamp<std::size_t>(SegmentPlan::kGroupFloats / length, 1, kMaxPlaneChannels);
      for (std::size_t begin = 0; begin < c; begin += group) {
        for (std::size_t p = 0; p < length; p += SegmentPlan::kBlockFloats) {
          body(sample + begin * g_.positions + p, begin, before + p,
               PlaneBlock{1, 0, std::min(group, c - begin), g_.positions,
                          std::min(SegmentPlan::kBlockFloats, length - p)});
        }
      }
    }
  }

  void clear(std::size_t task, T* tensor) const {
    for (std::size_t n = first_sample(task); n < first_sample(task + 1); ++n) {
      clear_padding(tensor, g_.layout, g_.channels, g_.positions, n, g_.lengths[n]);
    }
  }

  // The kernels of either kind of block.

  using Coefficients = kernels::Coefficients<T>;

  /// Takes in the moments of a block; `before`: the values of each channel in mean and m2 already.
  void moments(const T* x, const Block& block, std::size_t before, double* mean, double* m2) const {
    run_.column_moments(x, block, before, mean, m2);
  }
  void moments(const T* x, const PlaneBlock& block, std::size_t before, double* mean, double* m2) const {
    run_.plane_moments(x, block, before, mean, m2);
  }
  void normalize(const kernels::Forward<T>& t, const Block& block, const Coefficients& k) const {
    run_.normalize_columns(t, block, k);
  }
  void normalize(const kernels::Forward<T>& t, const PlaneBlock& block, const Coefficients& k) const {
    run_.normalize_planes(t, block, k);
  }
  void dots(const kernels::Backward<T>& t, const Block& block, const Coefficients& k, double* sum, double* dot) const {
    run_.column_dots(t, block, k, sum, dot);
  }
  void dots(const kernels::Backward<T>& t, const PlaneBlock& block, const Coefficients& k, double* sum,
            double* dot) const {
    run_.plane_dots(t, block, k, sum, dot);
  }
  void differentiate(const kernels::Backward<T>& t, const Block& block, const Coefficients& k) const {
    run_.gradient_columns(t, block, k);
  }
  void differentiate(const kernels::Backward<T>& t, const PlaneBlock& block, const Coefficients& k) const {
    run_.gradient_planes(t, block, k);
  }

  const Geometry& g_;
  const Scratch<T>& s_;
  Workers workers_;
  std::size_t tasks_;
  const kernels::Kernels<T>& run_ = kernels::get<T>();
};

}  // namespace equinorm::batch_norm
