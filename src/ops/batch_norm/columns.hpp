// Batch norm over [values, channels]: statistics by chunks of rows, then one elementwise pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "core/pages.hpp"
#include "kernels/column_plan.hpp"
#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::batch_norm {

template <class T>
class Columns {
 public:
  Columns(const Geometry& g, const Scratch<T>& scratch, Workers workers)
      : g_(g),
        sums_(kernels::ColumnPlan::for_sums<T>(g.values, g.channels)),
        elements_(kernels::ColumnPlan::of<T>(g.values, g.channels)),
        s_(scratch),
        workers_(workers) {}

  void statistics(const T* x, const Statistics& out) const {
    double *const mean = first(sums_, 0), *const m2 = second(sums_, 0);  // of all chunks so far
    const std::size_t joined = take_chunks(sums_, [&](std::size_t chunk, bool joins) {
      const Block block{sums_.rows_of_chunk(chunk), sums_.width, sums_.width, much_, cached_};
      const std::size_t before = joins ? chunk * sums_.chunk_rows : 0, slot = joins ? 0 : chunk;
      run_.column_moments(x + chunk * sums_.chunk_rows * sums_.width, block, before, first(sums_, slot),
                          second(sums_, slot));
    });
    for (std::size_t chunk = joined; chunk < sums_.chunks; ++chunk) {
      merge_moments(sums_.width, chunk * sums_.chunk_rows, mean, m2, sums_.rows_of_chunk(chunk), first(sums_, chunk),
                    second(sums_, chunk));
    }
    const std::size_t rows = sums_.rows;
    if (sums_.tail > 0) run_.column_moments(x + rows * sums_.width, tail_of(sums_), rows, mean, m2);
    // A channel is one column of each row of a fold.
    std::copy_n(mean, g_.channels, out.mean);
    std::copy_n(m2, g_.channels, out.variance);
    std::size_t count = rows + (sums_.tail > 0 ? 1 : 0);
    for (std::size_t at = g_.channels; at < sums_.width; at += g_.channels) {
      const std::size_t more = rows + (at < sums_.tail ? 1 : 0);
      merge_moments(g_.channels, count, out.mean, out.variance, more, mean + at, m2 + at);
      count += more;
    }
    for (std::size_t c = 0; c < g_.channels; ++c) out.variance[c] /= static_cast<double>(count);
  }

  void normalize(kernels::Forward<T> t, const ForwardChannels<T>& channels) const {
    if (prepare(channels)) {
      for (std::size_t c = 0; c < g_.channels; ++c) channels.normalize_carefully(c, t);
      return;
    }
    t.stream = kernels::streams<T>(g_.elements, {t.y}, elements_.width);
    t.claim = kernels::claims<T>(g_.elements, t.stream);
    for_each_chunk_backwards([&](std::size_t begin, const Block& block) {
      run_.normalize_columns(part(t, begin, block), block, s_.coefficients);
    });
  }

  void differentiate(kernels::Backward<T> t, const BackwardChannels<T>& channels) const {
    if (!prepare(channels.forward())) t.gate_first(true);
    const kernels::Coefficients<T> k = s_.coefficients;
    t.stream = kernels::streams<T>(g_.elements, {t.dx, t.dresidual}, elements_.width);
    t.claim = kernels::claims<T>(g_.elements, t.stream);
    const std::size_t inputs = t.y == nullptr && t.residual == nullptr ? 2 : 3;
    const bool much = kernels::is_much<T>(inputs * g_.elements), tall = !kernels::is_much<T>(inputs * g_.elements / 2);
    // Where g is long arithmetic is the larger part: full vectors are worth more than the order of memory.
    const kernels::ColumnPlan& sums = t.is_short() ? sums_ : elements_;
    double *const all_sums = first(sums, 0), *const all_dots = second(sums, 0);
    const auto add = [&](std::size_t slot) {
      for (std::size_t at = 0; at < sums.width; ++at) {
        all_sums[at] += first(sums, slot)[at];
        all_dots[at] += second(sums, slot)[at];
      }
    };
    const std::size_t joined = take_chunks(sums, [&](std::size_t chunk, bool joins) {
      const std::size_t slot = joins ? std::min<std::size_t>(chunk, 1) : chunk;
      std::fill_n(first(sums, slot), sums.width, 0.0);
      std::fill_n(second(sums, slot), sums.width, 0.0);
      const Block block{sums.rows_of_chunk(chunk), sums.width, sums.width, much, false, tall};
      run_.column_dots(part(t, chunk * sums.chunk_rows * sums.width, block), block, k, first(sums, slot),
                       second(sums, slot));
      if (joins && chunk > 0) add(slot);
    });
    for (std::size_t chunk = joined; chunk < sums.chunks; ++chunk) add(chunk);
    if (sums.tail > 0) {
      run_.column_dots(part(t, sums.rows * sums.width, tail_of(sums)), tail_of(sums), k, all_sums, all_dots);
    }
    t = t.after_sums(false);
    for (auto [sum, all] : {std::pair(s_.sum, all_sums), std::pair(s_.dot, all_dots)}) {
      std::fill_n(sum, g_.channels, 0.0);
      for (std::size_t at = 0; at < sums.width; at += g_.channels) {
        for (std::size_t c = 0; c < g_.channels; ++c) sum[c] += all[at + c];
      }
    }
    const bool careful = channels.finish(0, g_.channels, t);
    if (careful) {
      for (std::size_t c = 0; c < g_.channels; ++c) channels.differentiate_carefully(c, t);
      return;
    }
    for (auto* array : {s_.coefficients.offset, s_.coefficients.slope}) repeat(array);
    for_each_chunk_backwards(
        [&](std::size_t begin, const Block& block) { run_.gradient_columns(part(t, begin, block), block, k); });
  }

 private:
  double* first(const kernels::ColumnPlan& p, std::size_t chunk) const { return s_.first + chunk * p.width; }
  double* second(const kernels::ColumnPlan& p, std::size_t chunk) const { return s_.second + chunk * p.width; }
  static Block tail_of(const kernels::ColumnPlan& p) { return {1, p.width, p.tail}; }

  /// Calls take(chunk, joins) for every chunk of a plan. Those of the first worker join one another in their order, in
  /// the first slots, which stay in its caches; returns how many. The others have a slot each.
  template <class Take>
  std::size_t take_chunks(const kernels::ColumnPlan& p, const Take& take) const {
    std::size_t joined = 0;
    parallel_ranges(p.chunks, workers_, [&](std::size_t begin, std::size_t end) {
      const bool joins = begin == 0;
      if (joins) joined = end;
      for (std::size_t chunk = begin; chunk < end; ++chunk) take(chunk, joins);
    });
    return joined;
  }

  /// The tensors from `begin` on, for a block there. What may end in a line is not written around the caches.
  template <class Tensors>
  Tensors part(const Tensors& t, std::size_t begin, const Block& block) const {
    Tensors moved = t.at(begin);
    moved.stream = t.stream && block.columns % (kLineBytes / sizeof(T)) == 0;
    return moved;
  }

  /// Writes the forward coefficients of every column; says whether a channel needs care instead.
  bool prepare(const ForwardChannels<T>& channels) const {
    const bool careful = channels.prepare_all();
    const auto& k = s_.coefficients;
    for (auto* array : {k.mean, k.scale, k.shift, k.unit}) repeat(array);
    return careful;
  }

  /// Copies what stands for the first row of a fold to the others.
  void repeat(Parameter<T>* array) const {
    const std::size_t width = std::max(sums_.width, elements_.width);
    for (std::size_t at = g_.channels; at < width; at += g_.channels) std::copy_n(array, g_.channels, array + at);
  }

  /// The elementwise pass goes through each thread's chunks from the last to the first: what the statistics read last
  /// is still in the caches.
  template <class Body>
  void for_each_chunk_backwards(const Body& body) const {
    if (elements_.tail > 0) body(elements_.rows * elements_.width, tail_of(elements_));
    parallel_ranges(elements_.chunks, workers_, [&](std::size_t begin, std::size_t end) {
      for (std::size_t chunk = end; chunk-- > begin;) {
        const std::size_t rows = elements_.rows_of_chunk(chunk), width = elements_.width;
        body(chunk * elements_.chunk_rows * width, Block{rows, width, width});
      }
    });
  }

  const Geometry& g_;
  kernels::ColumnPlan sums_, elements_;
  const bool cached_ = kernels::is_cached<T>(g_.elements);
  const bool much_ = kernels::is_much<T>(g_.elements);
  const Scratch<T>& s_;
  Workers workers_;
  const kernels::Kernels<T>& run_ = kernels::get<T>();
};

}  // namespace equinorm::batch_norm
