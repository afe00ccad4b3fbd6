// Batch norm: arguments checked, then statistics, coefficients and one elementwise pass, by columns or by segments.
#include "equinorm/batch_norm.hpp"

#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>

#include "core/check.hpp"
#include "ops/batch_norm/careful.hpp"
#include "ops/batch_norm/kernels.hpp"
#include "ops/batch_norm/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm {
namespace batch_norm {
namespace {

/// Under this many floats a second thread costs more than it brings.
constexpr std::size_t kSingleThreadFloats = 16 << 10;
/// From this size on (bytes) an output is written around the caches: it would push out what is still to be read.
constexpr std::size_t kStreamBytes = 8 << 20;

/// The caller's workspace, or one of our own.
class Memory {
 public:
  Memory(const Execution& execution, std::size_t bytes) : base_(execution.workspace) {
    if (base_ != nullptr) return;
    own_.reset(new (std::align_val_t{64}) std::byte[bytes]);
    base_ = own_.get();
  }
  void* base() const { return base_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  void* base_;
  std::unique_ptr<std::byte, Free> own_;
};

std::size_t scratch_bytes(const Geometry& g) {
  Workspace count;
  const Scratch scratch(g, count);
  return count.used();
}

int threads_for(const Geometry& g, const Execution& execution) {
  return g.elements < kSingleThreadFloats ? 1 : execution.threads;
}

bool streams(const Geometry& g, const float* out, std::size_t stride) {
  return g.elements * sizeof(float) >= kStreamBytes && stride % 16 == 0 &&
         reinterpret_cast<std::uintptr_t>(out) % 64 == 0;
}

Coefficients coefficients_of(const Scratch& s) {
  return {s.mean_hi, s.mean_lo, s.scale, s.shift, s.g_hi, s.g_lo, s.slope};
}

/// Splits a double into two floats whose sum holds 48 of its bits. lo is 0 where hi is not finite.
void split(double value, float& hi, float& lo) {
  hi = static_cast<float>(value);
  const double rest = value - static_cast<double>(hi);
  lo = std::isfinite(rest) ? static_cast<float>(rest) : 0.0F;
}

/// What forward and inference share: the affine of a channel over given statistics.
class ForwardChannels {
 public:
  ForwardChannels(const BatchNormOptions& options, const BatchNormAffine& affine, const double* mean,
                  const double* variance)
      : epsilon_(options.epsilon), affine_(affine), mean_(mean), variance_(variance) {}

  CarefulChannel channel(std::size_t c) const {
    const double gamma = affine_.gamma == nullptr ? 1.0 : static_cast<double>(affine_.gamma[c]);
    const double beta = affine_.beta == nullptr ? 0.0 : static_cast<double>(affine_.beta[c]);
    return {mean_[c], gamma / std::sqrt(variance_[c] + epsilon_), beta};
  }
  bool needs_care(std::size_t c) const { return batch_norm::needs_care(mean_[c], variance_[c], channel(c).scale); }
  double inverse_variance(std::size_t c) const { return 1.0 / (variance_[c] + epsilon_); }
  double inverse_deviation(std::size_t c) const { return 1.0 / std::sqrt(variance_[c] + epsilon_); }

  /// Writes the coefficients of channel c at `at`.
  void write(std::size_t c, const Scratch& s, std::size_t at) const {
    const CarefulChannel k = channel(c);
    split(k.mean, s.mean_hi[at], s.mean_lo[at]);
    s.scale[at] = static_cast<float>(k.scale);
    s.shift[at] = static_cast<float>(k.shift);
  }

 private:
  double epsilon_;
  BatchNormAffine affine_;
  const double* mean_;
  const double* variance_;
};

/// The channels' gradients: parameters and the two coefficients that dx needs besides.
class BackwardChannels {
 public:
  BackwardChannels(const ForwardChannels& forward, const BatchNormGradients& gradients, std::size_t values)
      : forward_(forward), gradients_(gradients), m_(static_cast<double>(values)) {}

  const ForwardChannels& forward() const { return forward_; }

  CarefulChannel channel(std::size_t c, double sum, double dot) const {
    CarefulChannel k = forward_.channel(c);
    k.g_mean = sum / m_;
    k.slope = dot / m_ * forward_.inverse_variance(c);
    return k;
  }
  void write(std::size_t c, double sum, double dot, const Scratch& s, std::size_t at) const {
    const CarefulChannel k = channel(c, sum, dot);
    split(k.g_mean, s.g_hi[at], s.g_lo[at]);
    s.slope[at] = static_cast<float>(k.slope);
  }
  void write_parameters(std::size_t c, double sum, double dot) const {
    if (gradients_.gamma != nullptr) gradients_.gamma[c] = static_cast<float>(dot * forward_.inverse_deviation(c));
    if (gradients_.beta != nullptr) gradients_.beta[c] = static_cast<float>(sum);
  }

 private:
  const ForwardChannels& forward_;
  BatchNormGradients gradients_;
  double m_;
};

// --- Columns: [values, channels]. ---

class Columns {
 public:
  Columns(const Geometry& g, const Scratch& scratch, int threads) : g_(g), p_(g), s_(scratch), threads_(threads) {}

  void statistics(const float* x, const BatchNormStatistics& out) const {
    parallel_for(p_.chunks, threads_, [&](std::size_t chunk) {
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
      normalize_columns(moved, block, coefficients_of(s_));
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
    const Coefficients k = coefficients_of(s_);
    parallel_for(p_.chunks, threads_, [&](std::size_t chunk) {
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
    parallel_ranges(p_.chunks, threads_, [&](std::size_t begin, std::size_t end) {
      for (std::size_t chunk = end; chunk-- > begin;) {
        body(chunk * p_.chunk_rows * p_.width, Block{p_.rows_of_chunk(chunk), p_.width, p_.width});
      }
    });
  }

  const Geometry& g_;
  ColumnPlan p_;
  const Scratch& s_;
  int threads_;
};

// --- Segments: [samples, channels, inner]. ---

class Segments {
 public:
  Segments(const Geometry& g, const Scratch& scratch, int threads) : g_(g), p_(g), s_(scratch), threads_(threads) {}

  /// Statistics, then y. A channel that is not cut is normalized at once, from the caches.
  void forward(ForwardTensors t, const BatchNormStatistics& out, const ForwardChannels& channels) const {
    t.stream = streams(g_, t.y, g_.inner);
    for_each_part({t.x, t.residual, t.y}, [&](std::size_t c, std::size_t part, std::size_t begin, std::size_t end) {
      Moments moments;
      for (std::size_t i = begin; i < end; ++i) {
        const auto piece = p_.piece(c, i);
        moments.merge(segment_moments(t.x + piece.offset, block(piece)));
      }
      s_.first[c * p_.parts + part] = moments.mean;
      s_.second[c * p_.parts + part] = moments.m2;
      if (p_.parts == 1) finish_and_normalize(c, t, out, channels);
    });
    if (p_.parts == 1) return;
    for (std::size_t c = 0; c < g_.channels; ++c) finish_statistics(c, out);
    normalize(t, channels);
  }

  void normalize(ForwardTensors t, const ForwardChannels& channels) const {
    t.stream = streams(g_, t.y, g_.inner);
    for (std::size_t c = 0; c < g_.channels; ++c) channels.write(c, s_, c);
    for_each_part({t.x, t.residual, t.y}, [&](std::size_t c, std::size_t, std::size_t begin, std::size_t end) {
      normalize_pieces(c, begin, end, t, channels);
    });
  }

  void differentiate(BackwardTensors t, const BackwardChannels& channels) const {
    t.stream = streams(g_, t.dx, g_.inner);
    for (std::size_t c = 0; c < g_.channels; ++c) channels.forward().write(c, s_, c);
    const auto tensors = {t.x, t.y, t.dy, static_cast<const float*>(t.dx), static_cast<const float*>(t.dresidual)};
    for_each_part(tensors, [&](std::size_t c, std::size_t part, std::size_t begin, std::size_t end) {
      double sum = 0, dot = 0;
      if (channels.forward().needs_care(c)) {
        if (part == 0) careful_dots(g_, c, t, channels.forward().channel(c), &sum, &dot);
      } else {
        for (std::size_t i = begin; i < end; ++i) {
          const auto piece = p_.piece(c, i);
          segment_dots(t.at(piece.offset), block(piece), coefficients_of(s_).at(c), &sum, &dot);
        }
        dot -= sum * static_cast<double>(s_.mean_lo[c]);
      }
      s_.first[c * p_.parts + part] = sum;
      s_.second[c * p_.parts + part] = dot;
      if (p_.parts == 1) {
        finish_gradients(c, channels);
        differentiate_pieces(c, begin, end, t, channels);
      }
    });
    if (p_.parts == 1) return;
    for (std::size_t c = 0; c < g_.channels; ++c) finish_gradients(c, channels);
    for_each_part(tensors, [&](std::size_t c, std::size_t, std::size_t begin, std::size_t end) {
      differentiate_pieces(c, begin, end, t, channels);
    });
  }

 private:
  /// Calls body(channel, part, first piece, one past the last). `tensors` are those that body is about to touch.
  template <class Body>
  void for_each_part(std::initializer_list<const float*> tensors, const Body& body) const {
    parallel_for(p_.groups * p_.parts, threads_, [&](std::size_t unit) {
      const std::size_t part = unit % p_.parts, begin = unit / p_.parts * p_.group;
      const std::size_t end = std::min(begin + p_.group, g_.channels);
      if (p_.group > 1) fetch(tensors, begin, end);
      for (std::size_t c = begin; c < end; ++c) {
        body(c, part, part * p_.pieces / p_.parts, (part + 1) * p_.pieces / p_.parts);
      }
    });
  }

  /// Small planes of one channel lie far apart: fetched one by one they would cost a miss each.
  void fetch(std::initializer_list<const float*> tensors, std::size_t begin, std::size_t end) const {
    constexpr std::size_t kLine = 64 / sizeof(float);
    for (const float* tensor : tensors) {
      if (tensor == nullptr) continue;
      for (std::size_t sample = 0; sample < g_.samples; ++sample) {
        const float* plane = tensor + (sample * g_.channels + begin) * g_.inner;
        for (std::size_t i = 0; i < (end - begin) * g_.inner; i += kLine) hwy::Prefetch(plane + i);
      }
    }
  }

  Block block(const SegmentPlan::Piece& piece) const { return {piece.segments, p_.stride(), piece.length}; }

  std::size_t values_of_part(std::size_t c, std::size_t part) const {
    std::size_t values = 0;
    for (std::size_t i = part * p_.pieces / p_.parts; i < (part + 1) * p_.pieces / p_.parts; ++i) {
      const auto piece = p_.piece(c, i);
      values += piece.segments * piece.length;
    }
    return values;
  }

  void finish_statistics(std::size_t c, const BatchNormStatistics& out) const {
    Moments moments;
    for (std::size_t part = 0; part < p_.parts; ++part) {
      const std::size_t count = p_.parts == 1 ? g_.values : values_of_part(c, part);
      moments.merge({static_cast<double>(count), s_.first[c * p_.parts + part], s_.second[c * p_.parts + part]});
    }
    out.mean[c] = moments.mean;
    out.variance[c] = moments.variance();
  }

  void finish_and_normalize(std::size_t c, const ForwardTensors& t, const BatchNormStatistics& out,
                            const ForwardChannels& channels) const {
    finish_statistics(c, out);
    channels.write(c, s_, c);
    normalize_pieces(c, 0, p_.pieces, t, channels);
  }

  void finish_gradients(std::size_t c, const BackwardChannels& channels) const {
    double sum = 0, dot = 0;
    for (std::size_t part = 0; part < p_.parts; ++part) {
      sum += s_.first[c * p_.parts + part];
      dot += s_.second[c * p_.parts + part];
    }
    channels.write_parameters(c, sum, dot);
    channels.write(c, sum, dot, s_, c);
    s_.first[c * p_.parts] = sum;
    s_.second[c * p_.parts] = dot;
  }

  void normalize_pieces(std::size_t c, std::size_t begin, std::size_t end, const ForwardTensors& t,
                        const ForwardChannels& channels) const {
    if (channels.needs_care(c)) {
      if (begin == 0) careful_normalize(g_, c, t, channels.channel(c));
      return;
    }
    for (std::size_t i = end; i-- > begin;) {
      const auto piece = p_.piece(c, i);
      normalize_segments(t.at(piece.offset), block(piece), coefficients_of(s_).at(c));
    }
  }

  void differentiate_pieces(std::size_t c, std::size_t begin, std::size_t end, const BackwardTensors& t,
                            const BackwardChannels& channels) const {
    if (channels.forward().needs_care(c)) {
      const CarefulChannel k = channels.channel(c, s_.first[c * p_.parts], s_.second[c * p_.parts]);
      if (begin == 0) careful_differentiate(g_, c, t, k);
      return;
    }
    for (std::size_t i = end; i-- > begin;) {
      const auto piece = p_.piece(c, i);
      gradient_segments(t.at(piece.offset), block(piece), coefficients_of(s_).at(c));
    }
  }

  const Geometry& g_;
  SegmentPlan p_;
  const Scratch& s_;
  int threads_;
};

/// Whether every statistic is finite, as a float too where running statistics are to hold it.
bool all_finite(const BatchNormStatistics& statistics, std::size_t channels, bool as_floats) {
  const double limit =
      as_floats ? static_cast<double>(std::numeric_limits<float>::max()) : std::numeric_limits<double>::max();
  for (std::size_t c = 0; c < channels; ++c) {
    if (!(std::abs(statistics.mean[c]) <= limit && statistics.variance[c] <= limit)) return false;
  }
  return true;
}

void update_running(RunningStatistics& running, const BatchNormStatistics& statistics, const Geometry& g) {
  const RunningOptions& options = running.options;
  ++running.batches;
  const double w = options.cumulative ? 1.0 / static_cast<double>(running.batches) : options.running_weight;
  const bool unbiased = options.variance == VarianceKind::unbiased;
  const auto m = static_cast<double>(g.values);
  for (std::size_t c = 0; c < g.channels; ++c) {
    const auto blend = [w](float& old, double value) {
      old = static_cast<float>((1.0 - w) * static_cast<double>(old) + w * value);
    };
    blend(running.mean[c], statistics.mean[c]);
    if (unbiased && g.values == 1) continue;  // 0/0: one value has no unbiased variance
    blend(running.variance[c], unbiased ? statistics.variance[c] * (m / (m - 1.0)) : statistics.variance[c]);
  }
}

Checks& check_options(Checks& checks, const BatchNormOptions& options) {
  if (options.epsilon >= 1e-30 && std::isfinite(options.epsilon))
    return checks;  // no text for what is right: it allocates
  return checks.require(false, "epsilon is " + std::to_string(options.epsilon), "a finite number of at least 1e-30");
}

Checks& check_statistics(Checks& checks, const BatchNormStatistics& statistics) {
  checks.require(statistics.mean != nullptr, "statistics.mean is null", "[channels] doubles");
  return checks.require(statistics.variance != nullptr, "statistics.variance is null", "[channels] doubles");
}

Checks& check_running(Checks& checks, const RunningStatistics* running) {
  if (running == nullptr) return checks;
  checks.require(running->mean != nullptr, "running.mean is null", "[channels] floats");
  checks.require(running->variance != nullptr, "running.variance is null", "[channels] floats");
  const double w = running->options.running_weight;
  if (w >= 0 && w <= 1) return checks;
  return checks.require(false, "running_weight is " + std::to_string(w), "a number from 0 to 1");
}

}  // namespace
}  // namespace batch_norm

std::size_t batch_norm_workspace_bytes(const Shape& shape, Layout layout) {
  if (shape.rank() < 2 || shape.rank() > kMaxRank || shape.elements() == 0) return 0;
  return batch_norm::scratch_bytes(batch_norm::Geometry(shape, layout));
}

Status batch_norm_forward(const BatchNormOptions& options, TensorView<const float> x, const BatchNormAffine& affine,
                          TensorView<const float> residual, TensorView<float> y, const BatchNormStatistics& statistics,
                          RunningStatistics* running, const Execution& execution) {
  using namespace batch_norm;
  constexpr const char* kOp = "batch_norm_forward";
  Checks checks(kOp);
  check_options(checks, options).tensor("x", x);
  checks.like("residual", residual, x, true).like("y", y, x);
  check_running(check_statistics(checks, statistics), running);
  checks.workspace(execution, batch_norm_workspace_bytes(x.shape, x.layout));
  if (!checks.ok()) return checks.status();

  const Geometry g(x.shape, x.layout);
  if (g.values == 0 || (g.values == 1 && options.single_value == SingleValuePolicy::error)) {
    return {StatusCode::too_few_values, std::string("[") + kOp + "] x has shape " + to_string(x.shape) + ", " +
                                            std::to_string(g.values) +
                                            " values per channel in training; expected at least 2"};
  }

  const std::size_t bytes = scratch_bytes(g);
  const Memory memory(execution, bytes);
  Workspace workspace(memory.base());
  const Scratch scratch(g, workspace);
  const ForwardChannels channels(options, affine, statistics.mean, statistics.variance);
  const ForwardTensors tensors{x.data, residual.data, y.data, options.activation == Activation::relu, false};
  const int threads = threads_for(g, execution);
  if (g.columns()) {
    const Columns columns(g, scratch, threads);
    columns.statistics(x.data, statistics);
    columns.normalize(tensors, channels);
  } else {
    Segments(g, scratch, threads).forward(tensors, statistics, channels);
  }

  if (options.non_finite != NonFinitePolicy::propagate && !all_finite(statistics, g.channels, running != nullptr)) {
    if (options.non_finite == NonFinitePolicy::error) {
      return {StatusCode::non_finite,
              std::string("[") + kOp + "] x, of shape " + to_string(x.shape) +
                  ", has a channel whose mean or variance is not finite; expected finite values"};
    }
    if (running != nullptr) ++running->skipped;
    return {};
  }
  if (running != nullptr) update_running(*running, statistics, g);
  return {};
}

Status batch_norm_inference(const BatchNormOptions& options, TensorView<const float> x, const BatchNormAffine& affine,
                            const float* mean, const float* variance, TensorView<const float> residual,
                            TensorView<float> y, const Execution& execution) {
  using namespace batch_norm;
  Checks checks("batch_norm_inference");
  check_options(checks, options).tensor("x", x);
  checks.like("residual", residual, x, true).like("y", y, x);
  checks.require(mean != nullptr, "mean is null", "[channels] floats");
  checks.require(variance != nullptr, "variance is null", "[channels] floats");
  if (!checks.ok()) return checks.status();
  const Geometry g(x.shape, x.layout);
  for (std::size_t c = 0; c < g.channels; ++c) {
    if (variance[c] < 0) {
      return checks
          .require(false, "variance[" + std::to_string(c) + "] is " + std::to_string(variance[c]), "a number >= 0")
          .status();
    }
  }
  if (g.elements == 0) return {};

  const Memory memory(execution, scratch_bytes(g));
  Workspace workspace(memory.base());
  const Scratch scratch(g, workspace);
  std::copy_n(mean, g.channels, scratch.first);
  std::copy_n(variance, g.channels, scratch.second);
  const ForwardChannels channels(options, affine, scratch.first, scratch.second);
  const ForwardTensors tensors{x.data, residual.data, y.data, options.activation == Activation::relu, false};
  const int threads = threads_for(g, execution);
  if (g.columns()) {
    Columns(g, scratch, threads).normalize(tensors, channels);
  } else {
    Segments(g, scratch, threads).normalize(tensors, channels);
  }
  return {};
}

Status batch_norm_backward(const BatchNormOptions& options, TensorView<const float> x, TensorView<const float> y,
                           TensorView<const float> dy, const BatchNormAffine& affine,
                           const BatchNormStatistics& statistics, TensorView<float> dx, TensorView<float> dresidual,
                           const BatchNormGradients& gradients, const Execution& execution) {
  using namespace batch_norm;
  const bool relu = options.activation == Activation::relu;
  Checks checks("batch_norm_backward");
  check_options(checks, options).tensor("x", x);
  checks.like("y", y, x, /*optional=*/!relu || dresidual.data == nullptr).like("dy", dy, x).like("dx", dx, x);
  checks.like("dresidual", dresidual, x, true);
  check_statistics(checks, statistics).workspace(execution, batch_norm_workspace_bytes(x.shape, x.layout));
  if (!checks.ok()) return checks.status();

  const Geometry g(x.shape, x.layout);
  if (g.values == 0) {  // sums over nothing
    if (gradients.gamma != nullptr) std::fill_n(gradients.gamma, g.channels, 0.0F);
    if (gradients.beta != nullptr) std::fill_n(gradients.beta, g.channels, 0.0F);
    return {};
  }
  const Memory memory(execution, scratch_bytes(g));
  Workspace workspace(memory.base());
  const Scratch scratch(g, workspace);
  const ForwardChannels forward(options, affine, statistics.mean, statistics.variance);
  const BackwardChannels channels(forward, gradients, g.values);
  const Mask mask = !relu ? Mask::none : y.data != nullptr ? Mask::output : Mask::input;
  const BackwardTensors tensors{x.data, y.data, dy.data, dx.data, dresidual.data, mask, false};
  const int threads = threads_for(g, execution);
  if (g.columns()) {
    Columns(g, scratch, threads).differentiate(tensors, channels);
  } else {
    Segments(g, scratch, threads).differentiate(tensors, channels);
  }
  return {};
}

}  // namespace equinorm
