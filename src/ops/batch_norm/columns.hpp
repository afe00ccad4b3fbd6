// Batch norm over [values, channels]: statistics by chunks of rows, then one elementwise pass.
#pragma once

#include <algorithm>
#include <cstddef>

#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::batch_norm {

template <class T>
class Columns {
 public:
  Columns(const Geometry& g, const Scratch<T>& scratch, Workers workers)
      : g_(g), p_(g.values, g.channels), s_(scratch), workers_(workers) {}

  void statistics(const T* x, const Statistics& out) const {
    parallel_for(p_.chunks, workers_, [&](std::size_t chunk) {
      const Block block{p_.rows_of_chunk(chunk), p_.width, p_.width, much_, cached_};
      run_.column_moments(x + chunk * p_.chunk_rows * p_.width, block, 0, first(chunk), second(chunk));
    });
    std::size_t rows = p_.rows_of_chunk(0);
    for (std::size_t chunk = 1; chunk < p_.chunks; ++chunk) {
      merge_moments(p_.width, rows, first(0), second(0), p_.rows_of_chunk(chunk), first(chunk), second(chunk));
      rows += p_.rows_of_chunk(chunk);
    }
    if (p_.tail > 0) run_.column_moments(x + p_.rows * p_.width, tail(), rows, first(0), second(0));
    for (std::size_t c = 0; c < g_.channels; ++c) {
      Moments moments;
      for (std::size_t at = c; at < p_.width; at += g_.channels) {
        const std::size_t count = rows + (at < p_.tail ? 1 : 0);
        moments.merge({static_cast<double>(count), first(0)[at], second(0)[at]});
      }
      out.mean[c] = moments.mean;
      out.variance[c] = moments.variance();
    }
  }

  void normalize(kernels::Forward<T> t, const ForwardChannels<T>& channels) const {
    if (prepare(channels)) {
      for (std::size_t c = 0; c < g_.channels; ++c) channels.normalize_carefully(c, t);
      return;
    }
    t.stream = kernels::streams<T>(g_.elements, {t.y}, p_.width);
    t.claim = kernels::claims<T>(g_.elements, t.stream);
    for_each_chunk_backwards([&](std::size_t begin, const Block& block) {
      run_.normalize_columns(part(t, begin, block), block, s_.coefficients);
    });
  }

  void differentiate(kernels::Backward<T> t, const BackwardChannels<T>& channels) const {
    if (!prepare(channels.forward())) t.gate_first(true);
    const kernels::Coefficients<T> k = s_.coefficients;
    t.stream = kernels::streams<T>(g_.elements, {t.dx, t.dresidual}, p_.width);
    t.claim = kernels::claims<T>(g_.elements, t.stream);
    const std::size_t inputs = t.y == nullptr && t.residual == nullptr ? 2 : 3;
    const bool much = kernels::is_much<T>(inputs * g_.elements);
    parallel_for(p_.chunks, workers_, [&](std::size_t chunk) {
      std::fill_n(first(chunk), p_.width, 0.0);
      std::fill_n(second(chunk), p_.width, 0.0);
      const Block block{p_.rows_of_chunk(chunk), p_.width, p_.width, much};
      run_.column_dots(t.at(chunk * p_.chunk_rows * p_.width), block, k, first(chunk), second(chunk));
    });
    for (std::size_t chunk = 1; chunk < p_.chunks; ++chunk) {
      for (std::size_t at = 0; at < p_.width; ++at) {
        first(0)[at] += first(chunk)[at];
        second(0)[at] += second(chunk)[at];
      }
    }
    if (p_.tail > 0) {
      run_.column_dots(part(t, p_.rows * p_.width, tail()), tail(), k, first(0), second(0));
    }
    t = t.after_sums(false);
    bool careful = false;
    for (std::size_t c = 0; c < g_.channels; ++c) {
      double sum = 0, dot = 0;
      for (std::size_t at = c; at < p_.width; at += g_.channels) {
        sum += first(0)[at];
        dot += second(0)[at];
      }
      channels.finish(c, t, sum, dot);
      careful = careful || channels.needs_care(c);
    }
    if (careful) {
      for (std::size_t c = 0; c < g_.channels; ++c) channels.differentiate_carefully(c, t);
      return;
    }
    for (auto* array : {s_.coefficients.offset, s_.coefficients.slope}) repeat(array);
    for_each_chunk_backwards(
        [&](std::size_t begin, const Block& block) { run_.gradient_columns(part(t, begin, block), block, k); });
  }

 private:
  double* first(std::size_t chunk) const { return s_.first + chunk * p_.width; }
  double* second(std::size_t chunk) const { return s_.second + chunk * p_.width; }
  Block tail() const { return {1, p_.width, p_.tail}; }

  /// The tensors from `begin` on, for a block there. The tail is not written around the caches: it may end in a line.
  template <class Tensors>
  Tensors part(const Tensors& t, std::size_t begin, const Block& block) const {
    Tensors moved = t.at(begin);
    moved.stream = t.stream && block.columns == p_.width;
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
    for (std::size_t at = g_.channels; at < p_.width; at += g_.channels) std::copy_n(array, g_.channels, array + at);
  }

  /// The elementwise pass goes through each thread's chunks from the last to the first: what the statistics read last
  /// is still in the caches.
  template <class Body>
  void for_each_chunk_backwards(const Body& body) const {
    if (p_.tail > 0) body(p_.rows * p_.width, tail());
    parallel_ranges(p_.chunks, workers_, [&](std::size_t begin, std::size_t end) {
      for (std::size_t chunk = end; chunk-- > begin;) {
        body(chunk * p_.chunk_rows * p_.width, Block{p_.rows_of_chunk(chunk), p_.width, p_.width});
      }
    });
  }

  const Geometry& g_;
  kernels::ColumnPlan p_;
  const bool cached_ = kernels::is_cached<T>(g_.elements);
  const bool much_ = kernels::is_much<T>(g_.elements);
  const Scratch<T>& s_;
  Workers workers_;
  const kernels::Kernels<T>& run_ = kernels::get<T>();
};

}  // namespace equinorm::batch_norm
