// Batch norm over [values, channels]: statistics by chunks of rows, then one elementwise pass.
#pragma once

#include <algorithm>
#include <cstddef>

#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/kernels.hpp"
#include "ops/batch_norm/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::batch_norm {

class Columns {
 public:
  Columns(const Geometry& g, const Scratch& scratch, const Workers& workers)
      : g_(g), p_(g), s_(scratch), workers_(workers) {}

  void statistics(const float* x, const BatchNormStatistics& out) const {
    parallel_for(p_.chunks, workers_, [&](std::size_t chunk) {
      const std::size_t rows = p_.rows_of_chunk(chunk);
      const float* begin = x + chunk * p_.chunk_rows * p_.width;
      for (std::size_t row = 0; row < rows; row += p_.block_rows) {
        const Block block{std::min(p_.block_rows, rows - row), p_.width, p_.width};
        column_moments(begin + row * p_.width, block, row, first(chunk), second(chunk));
      }
    });
    std::size_t rows = p_.rows_of_chunk(0);
    for (std::size_t chunk = 1; chunk < p_.chunks; ++chunk) {
      merge_column_moments(p_.width, rows, first(0), second(0), p_.rows_of_chunk(chunk), first(chunk), second(chunk));
      rows += p_.rows_of_chunk(chunk);
    }
    if (p_.tail > 0) column_moments(x + p_.rows * p_.width, tail(), rows, first(0), second(0));
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

  void normalize(ForwardTensors t, const ForwardChannels& channels) const {
    bool careful = false;
    for (std::size_t c = 0; c < g_.channels; ++c) careful = careful || channels.needs_care(c);
    if (careful) {
      for (std::size_t c = 0; c < g_.channels; ++c) careful_normalize(g_, c, t, channels.channel(c));
      return;
    }
    write_forward(channels);
    t.stream = streams(g_, t.y, p_.width);
    for_each_chunk_backwards([&](std::size_t begin, const Block& block) {
      ForwardTensors moved = t.at(begin);
      moved.stream = t.stream && block.columns == p_.width;
      normalize_columns(moved, block, s_.coefficients());
    });
  }

  void differentiate(BackwardTensors t, const BackwardChannels& channels) const {
    bool careful = false;
    for (std::size_t c = 0; c < g_.channels; ++c) careful = careful || channels.forward().needs_care(c);
    if (careful) {
      for (std::size_t c = 0; c < g_.channels; ++c) {
        double sum = 0, dot = 0;
        careful_dots(g_, c, t, channels.forward().channel(c), &sum, &dot);
        channels.write_parameters(c, sum, dot);
        careful_differentiate(g_, c, t, channels.channel(c, sum, dot));
      }
      return;
    }
    write_forward(channels.forward());
    const Coefficients k = s_.coefficients();
    parallel_for(p_.chunks, workers_, [&](std::size_t chunk) {
      std::fill_n(first(chunk), p_.width, 0.0);
      std::fill_n(second(chunk), p_.width, 0.0);
      const std::size_t rows = p_.rows_of_chunk(chunk);
      for (std::size_t row = 0; row < rows; row += p_.block_rows) {
        const Block block{std::min(p_.block_rows, rows - row), p_.width, p_.width};
        column_dots(t.at((chunk * p_.chunk_rows + row) * p_.width), block, k, first(chunk), second(chunk));
      }
    });
    for (std::size_t chunk = 1; chunk < p_.chunks; ++chunk) {
      for (std::size_t at = 0; at < p_.width; ++at) {
        first(0)[at] += first(chunk)[at];
        second(0)[at] += second(chunk)[at];
      }
    }
    if (p_.tail > 0) column_dots(t.at(p_.rows * p_.width), tail(), k, first(0), second(0));
    for (std::size_t c = 0; c < g_.channels; ++c) {
      double sum = 0, dot = 0;
      for (std::size_t at = c; at < p_.width; at += g_.channels) {
        sum += first(0)[at];
        dot += second(0)[at];
      }
      dot -= sum * static_cast<double>(s_.mean_lo[c]);
      channels.write_parameters(c, sum, dot);
      for (std::size_t at = c; at < p_.width; at += g_.channels) channels.write(c, sum, dot, s_, at);
    }
    t.stream = streams(g_, t.dx, p_.width);
    for_each_chunk_backwards([&](std::size_t begin, const Block& block) {
      BackwardTensors moved = t.at(begin);
      moved.stream = t.stream && block.columns == p_.width;
      gradient_columns(moved, block, k);
    });
  }

 private:
  double* first(std::size_t chunk) const { return s_.first + chunk * p_.width; }
  double* second(std::size_t chunk) const { return s_.second + chunk * p_.width; }
  Block tail() const { return {1, p_.width, p_.tail}; }

  void write_forward(const ForwardChannels& channels) const {
    for (std::size_t c = 0; c < g_.channels; ++c) {
      for (std::size_t at = c; at < p_.width; at += g_.channels) channels.write(c, s_, at);
    }
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
  ColumnPlan p_;
  const Scratch& s_;
  Workers workers_;
};

}  // namespace equinorm::batch_norm
