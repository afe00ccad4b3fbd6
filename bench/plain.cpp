#include "plain.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numeric>

#include "kernels/column_plan.hpp"
#include "memory.hpp"
#include "plain_kernels.hpp"

namespace equinorm::bench {
namespace {

/// Planes smaller than a few lines are taken as columns, so many of them together: whole lines of floats.
constexpr std::size_t kSmallPlane = 64, kFlatPlanes = 16;

/// Whether planes are taken as columns.
bool is_flat(const Problem& p) {
  return p.planes() && p.op == Op::batch_norm && p.h * p.w < kSmallPlane;
}

/// Channels that lie in memory as columns (each value of a row another channel's, `fold` rows of them in one), as
/// planes taken as columns (each column a place in a plane), or as lines.
enum class Place { columns, flat_planes, lines };

template <class T>
class Channels {
 public:
  using P = Parameter<T>;

  Channels(const Problem& p, const Tensors<T>& t, const PlainKernels<T>& kernels)
      : p_(p),
        t_(t),
        kernels_(kernels),
        without_gate_(plain_kernels<T>(true, false, false)),
        backward_(p.pass == Pass::backward) {
    const std::size_t plane = p.h * p.w;
    group_ = p.op == Op::group_norm ? p.c / p.groups : 1;
    batch_ = p.op == Op::batch_norm;
    if (!p.planes()) {
      place_ = Place::columns;
      channels_ = p.c;
      rows_ = batch_ ? p.n * plane : plane;
      constexpr std::size_t kLeast = 64, kLine = 16;  // whole lines, as ours
      std::size_t fold = kLine / std::gcd(p.c, kLine);
      while (p.c > 0 && fold * p.c < kLeast) fold *= 2;
      width_ = (rows_ < fold ? 1 : fold) * p.c;
    } else if (is_flat(p)) {
      place_ = Place::flat_planes;
      channels_ = std::min<std::size_t>(kFlatPlanes, p.c);
      width_ = channels_ * plane;
    } else {
      place_ = Place::lines;
      channels_ = batch_ ? std::clamp<std::size_t>(kPageBytes / (plane * sizeof(T)), 1, p.c) : group_;
      width_ = channels_;
    }
    const std::size_t spacing = (std::max(width_, p.c) + 15) / 16 * 16;  // whole lines
    P* next = beside(backward_ ? t.dx : t.y, memory_.take<P>(7 * spacing + kPageBytes / sizeof(P)));
    for (P** array : {&sum_, &product_, &a_, &b_, &c_, &scale_, &shift_}) {
      *array = next;
      next += spacing;
    }
  }

  void run(const Data<T>& data) {
    if (p_.c == 0 || width_ == 0) return;  // both divide below
    if (backward_) {
      std::fill_n(t_.dgamma, p_.c, P{0});
      std::fill_n(t_.dbeta, p_.c, P{0});
    }
    if (batch_ && p_.pass == Pass::infer) return infer(data);
    if (place_ == Place::columns) {
      for (std::size_t unit = 0; unit < (batch_ ? 1 : p_.n); ++unit) run_columns(data, unit);
      return;
    }
    for (std::size_t n = 0; n < (batch_ ? 1 : p_.n); ++n) {
      for (std::size_t c = 0; c < p_.c; c += channels_) run_planes(data, n, c);
    }
  }

 private:
  /// All channels of the unit, which is a sample or all of them.
  void run_columns(const Data<T>& data, std::size_t unit) {
    const std::size_t begin = unit * rows_ * p_.c;
    begin_unit(unit, 0, channels_);
    for (std::size_t i = p_.c; i < width_; ++i) take_gate(i, i % p_.c);
    each_piece(begin, false, [&](std::size_t at, std::size_t rows, std::size_t columns) {
      kernels_.sum_columns(data, at, rows, width_, columns, coefficients(), sum_, product_);
    });
    for (std::size_t i = p_.c; i < width_; ++i) {  // what was folded
      sum_[i % p_.c] += sum_[i];
      product_[i % p_.c] += product_[i];
    }
    finish(unit, 0, channels_, static_cast<double>(rows_));
    for (std::size_t i = p_.c; i < width_; ++i) take_coefficients(i, i % p_.c);
    Data<T> rest = data;
    if (data.gate_first) rest.dy = data.dresidual;
    const auto apply = (data.gate_first ? without_gate_ : kernels_).apply_columns;
    each_piece(begin, true, [&](std::size_t at, std::size_t rows, std::size_t columns) {
      apply(rest, at, rows, width_, columns, coefficients());
    });
  }

  /// The channels from c on of a unit that begins with sample n.
  void run_planes(const Data<T>& data, std::size_t n, std::size_t c) {
    const std::size_t plane = p_.h * p_.w, sample = p_.c * plane, begin = n * sample + c * plane;
    const std::size_t count = std::min(channels_, p_.c - c), samples = batch_ ? p_.n : 1;
    begin_unit(n, c, count);
    if (place_ == Place::flat_planes) {
      for (std::size_t i = count * plane; i-- > 0;) take_gate(i, i / plane);
      kernels_.sum_columns(data, begin, samples, sample, count * plane, coefficients(), sum_, product_);
      for (std::size_t i = 0; i < count; ++i) {
        sum_[i] = std::accumulate(&sum_[i * plane], &sum_[i * plane] + plane, P{0});
        product_[i] = std::accumulate(&product_[i * plane], &product_[i * plane] + plane, P{0});
      }
      finish(n, c, count, static_cast<double>(samples * plane));
      apply_flat(data, begin, count);
      return;
    }
    for (std::size_t s = 0; s < samples; ++s) {
      for (std::size_t i = 0; i < count; ++i) {
        kernels_.sum_line(data, begin + s * sample + i * plane, plane, coefficients().at(i), &sum_[i], &product_[i]);
      }
    }
    finish(n, c, count, static_cast<double>(samples * plane));
    for (std::size_t s = samples; s-- > 0;) {
      for (std::size_t i = 0; i < count; ++i) {
        kernels_.apply_line(data, begin + s * sample + i * plane, plane, coefficients().at(i));
      }
    }
  }

  /// With the coefficients of `count` channels, planes taken as columns.
  void apply_flat(const Data<T>& data, std::size_t begin, std::size_t count) {
    const std::size_t plane = p_.h * p_.w;
    for (std::size_t i = count * plane; i-- > 0;) take_coefficients(i, i / plane);
    kernels_.apply_columns(data, begin, p_.n, p_.c * plane, count * plane, coefficients());
  }

  /// Along memory, but for small planes.
  void infer(const Data<T>& data) {
    const std::size_t plane = p_.h * p_.w, sample = p_.c * plane;
    const auto take = [&](std::size_t to, std::size_t c) {
      a_[to] = t_.gamma[c] / std::sqrt(t_.variance[c] + static_cast<P>(kEpsilon));
      b_[to] = t_.beta[c] - t_.mean[c] * a_[to];
    };
    if (place_ == Place::flat_planes) {
      for (std::size_t c = 0; c < p_.c; c += channels_) {
        const std::size_t count = std::min(channels_, p_.c - c);
        for (std::size_t i = 0; i < count; ++i) take(i, c + i);
        apply_flat(data, c * plane, count);
      }
      return;
    }
    for (std::size_t c = 0; c < p_.c; ++c) take(c, c);
    if (place_ == Place::columns) {
      for (std::size_t i = p_.c; i < width_; ++i) take_coefficients(i, i % p_.c);
      each_piece(0, false, [&](std::size_t at, std::size_t rows, std::size_t columns) {
        kernels_.apply_columns(data, at, rows, width_, columns, coefficients());
      });
      return;
    }
    for (std::size_t n = 0; n < p_.n; ++n) {
      for (std::size_t c = 0; c < p_.c; ++c) {
        kernels_.apply_line(data, n * sample + c * plane, plane, coefficients().at(c));
      }
    }
  }

  /// `count` channels from c on of a unit that begins with sample n.
  void begin_unit(std::size_t n, std::size_t c, std::size_t count) {
    for (P* array : {sum_, product_}) std::fill_n(array, width_, P{0});
    for (std::size_t i = 0; backward_ && i < count; ++i) {
      const std::size_t at = statistics_of(n, c + i);
      scale_[i] = static_cast<P>(t_.gamma[c + i] / std::sqrt(t_.variance[at] + kEpsilon));
      shift_[i] = t_.beta[c + i] - t_.mean[at] * scale_[i];
    }
  }
  std::size_t statistics_of(std::size_t n, std::size_t c) const { return batch_ ? c : (n * p_.c + c) / group_; }
  Coefficients<T> coefficients() const { return {a_, b_, c_, scale_, shift_}; }
  void take_gate(std::size_t to, std::size_t from) {
    scale_[to] = scale_[from];
    shift_[to] = shift_[from];
  }
  void take_coefficients(std::size_t to, std::size_t from) {
    a_[to] = a_[from];
    b_[to] = b_[from];
    c_[to] = c_[from];
  }

  /// Calls body(first element, rows, columns) for the pieces of a matrix of folded rows, and what is left of it.
  template <class Body>
  void each_piece(std::size_t begin, bool backwards, const Body& body) const {
    constexpr std::size_t kPieceBytes = 1 << 20;
    const std::size_t all = rows_ * p_.c, rows = all / width_;
    const std::size_t piece = std::max<std::size_t>(kPieceBytes / (width_ * sizeof(T)), 1);
    const std::size_t pieces = (rows + piece - 1) / piece;
    const auto rest = [&] {
      if (all % width_ != 0) body(begin + rows * width_, 1, all % width_);
    };
    if (backwards) rest();
    for (std::size_t k = 0; k < pieces; ++k) {
      const std::size_t r = (backwards ? pieces - 1 - k : k) * piece;
      body(begin + r * width_, std::min(piece, rows - r), width_);
    }
    if (!backwards) rest();
  }

  /// Coefficients of the channels c … c + count − 1 of a unit with sums over `values` each.
  void finish(std::size_t n, std::size_t c, std::size_t count, double values) {
    for (std::size_t g = 0; g < count; g += group_) {
      const double m = values * static_cast<double>(group_);
      double sum = 0, product = 0;
      if (backward_) {
        const std::size_t at = statistics_of(n, c + g);
        const double mean = t_.mean[at], inverse = 1 / std::sqrt(t_.variance[at] + kEpsilon);
        for (std::size_t i = g; i < g + group_; ++i) {
          const double dot = (product_[i] - mean * sum_[i]) * inverse;
          t_.dgamma[c + i] += static_cast<P>(dot);
          t_.dbeta[c + i] += sum_[i];
          sum += t_.gamma[c + i] * sum_[i];
          product += t_.gamma[c + i] * dot;
        }
        const double slope = -inverse * inverse * product / m;
        for (std::size_t i = g; i < g + group_; ++i) {
          a_[i] = static_cast<P>(t_.gamma[c + i] * inverse);
          b_[i] = static_cast<P>(slope);
          c_[i] = static_cast<P>(-slope * mean - inverse * sum / m);
        }
      } else {
        for (std::size_t i = g; i < g + group_; ++i) sum += sum_[i], product += product_[i];
        const double mean = sum / m, inverse = 1 / std::sqrt(product / m - mean * mean + kEpsilon);
        for (std::size_t i = g; i < g + group_; ++i) {
          a_[i] = static_cast<P>(t_.gamma[c + i] * inverse);
          b_[i] = static_cast<P>(t_.beta[c + i] - mean * inverse * t_.gamma[c + i]);
        }
      }
    }
  }

  Problem p_;
  Tensors<T> t_;
  PlainKernels<T> kernels_;
  PlainKernels<T> without_gate_;  ///< of backward, where the gate's part is done
  bool backward_;
  Place place_;
  bool batch_;            ///< statistics over the batch, not of each sample
  std::size_t group_;     ///< channels that share statistics
  std::size_t channels_;  ///< of a unit
  std::size_t rows_ = 1;  ///< columns: of a unit, before folding
  std::size_t width_;     ///< columns: of a folded row
  Memory memory_;
  P *sum_, *product_, *a_, *b_, *c_, *scale_, *shift_;
};

}  // namespace

template <class T>
std::function<void()> plain(const Problem& p, const Tensors<T>& t, Fetch fetch) {
  const bool backward = p.pass == Pass::backward, gated = p.activation == Activation::relu;
  if (p.activation != Activation::none && !gated) return nullptr;
  const auto kernels = plain_kernels<T>(backward, gated, p.add && !(backward && p.by_rows()));
  const std::size_t plane = p.h * p.w;
  const std::size_t stride = !p.planes() ? p.c : is_flat(p) ? kFlatPlanes * plane : plane;
  const bool stream =
      kernels::streams<T>(p.elements(), {backward ? t.dx : t.y, t.dresidual}, stride, p.least_streamed());
  const Data<T> data{t.x,
                     t.dy,
                     t.y,
                     t.residual,
                     backward ? t.dx : t.y,
                     t.dresidual,
                     bytes_ahead(fetch) / sizeof(T),
                     fetches_far(fetch),
                     fetch == Fetch::second,
                     stream,
                     claims(fetch),
                     backward && gated && p.add && p.op == Op::batch_norm && !p.planes()};
  if (p.by_rows()) {
    if (kernels.run_rows == nullptr) return nullptr;
    RowData<T> rows{
        data, t.sum, nullptr, t.gamma, t.beta, t.mean, t.variance, t.dgamma, t.dbeta, p.c, p.op == Op::layer_norm};
    if (backward && p.add) rows.x = t.sum;
    const auto memory = std::make_shared<Memory>();
    if (!backward && p.add) rows.aside = memory->take<T>(kRowsAside * p.c);
    return [memory, rows, run = kernels.run_rows, n = p.n] { run(rows, n); };
  }
  if (kernels.sum_line == nullptr) return nullptr;
  const auto channels = std::make_shared<Channels<T>>(p, t, kernels);
  return [=] { channels->run(data); };
}

template std::function<void()> plain(const Problem&, const Tensors<float>&, Fetch);
template std::function<void()> plain(const Problem&, const Tensors<double>&, Fetch);
template std::function<void()> plain(const Problem&, const Tensors<bfloat16>&, Fetch);
template std::function<void()> plain(const Problem&, const Tensors<float16>&, Fetch);

}  // namespace equinorm::bench
