#include "accuracy.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "core/elements.hpp"
#include "core/philox.hpp"
#include "memory.hpp"
#include "ops/layer_norm/reference.hpp"
#include "ops/rms_norm/reference.hpp"
#include "ours.hpp"
#include "peers/onednn.hpp"

namespace equinorm::bench {
namespace {

/// What a type can hold.
struct Format {
  int precision;  ///< binary digits behind the first
  int lowest;     ///< the exponent of the smallest number
  double normal, largest;
  double wide;  ///< a large σ whose square the statistics, which are doubles, can hold
};

constexpr Format format_of(Type type) {
  switch (type) {
    case Type::f32:
      return {23, -149, 0x1p-126, 0x1.FFFFFEp127, 1e36};
    case Type::bf16:
      return {7, -133, 0x1p-126, 0x1.FEp127, 1e36};
    case Type::f16:
      return {10, -24, 0x1p-14, 65504, 1e3};
    case Type::f64:
      break;
  }
  return {52, -1074, 0x1p-1022, std::numeric_limits<double>::max(), 1e150};
}

/// That of γ and β, and of what is computed.
constexpr Type parameter_type(Type type) {
  return type == Type::f64 ? type : Type::f32;
}

enum class Kind { normal, denormal, huge, outlier, single };
struct InputRow {
  const char* name;
  double mean, deviation;
  Kind kind = Kind::normal;
};

// Each row says what it is there to break.
constexpr InputRow kInputs[] = {
    {"mean 0", 0, 1},                      // what training sees
    {"mean 30 σ", 30, 1},                  // sums in bf16
    {"mean 1e3 σ", 1e3, 1},                // E[x²] − E[x]² in float
    {"mean 1e4 σ", 1e4, 1},                // x·α + (β − mean·α) in float
    {"mean 1e5 σ", 1e5, 1},                // both
    {"mean 1e6 σ", 1e6, 1},                // a mean kept in one float
    {"constant", 3.7, 0},                  // σ = 0: only ε is under the root
    {"denormal σ", 0, 1, Kind::denormal},  // flushes to zero
    {"huge σ", 0, 1, Kind::huge},          // x² overflows
    {"outlier 1e8", 0, 1, Kind::outlier},  // one value owns the variance
    {"one element", 0, 1, Kind::single}    // a variance of nothing
};

struct OpRow {
  std::size_t n, c, h, w;
  Op op;
  Layout layout;
};

constexpr OpRow kOpRows[] = {{16, 32, 20, 20, Op::batch_norm, Layout::channels_last},
                             {16, 32, 20, 20, Op::batch_norm, Layout::channels_first},
                             {256, 768, 1, 1, Op::layer_norm, Layout::channels_last},
                             {256, 768, 1, 1, Op::rms_norm, Layout::channels_last},
                             {16, 32, 20, 20, Op::group_norm, Layout::channels_last},
                             {16, 32, 20, 20, Op::group_norm, Layout::channels_first},
                             {16, 32, 20, 20, Op::instance_norm, Layout::channels_last},
                             {16, 32, 20, 20, Op::instance_norm, Layout::channels_first}};
constexpr std::size_t kGroups = 8;

/// The problem of an input: statistics of one element have one channel, row or group each.
Problem problem_of(const OpRow& row, Type type, bool single) {
  Problem p;
  p.op = row.op;
  p.n = row.n, p.c = row.c, p.h = row.h, p.w = row.w;
  p.layout = row.layout;
  p.type = type;
  p.groups = kGroups;
  if (!single) return p;
  p.h = p.w = 1;
  p.groups = p.c;
  if (p.op == Op::batch_norm) p.n = 1;
  if (p.by_rows()) p.c = 1;
  return p;
}

enum Stream : std::uint64_t { kX = 1, kDy, kGamma, kBeta };

/// Normal values, rounded to the type.
std::vector<double> normal(std::size_t count, Stream stream, double mean, double deviation, Type type) {
  const Philox random(1, stream);
  std::vector<double> values(count);
  with_type(type, [&]<class T>(T) {
    for (std::size_t i = 0; i < count; ++i) values[i] = to_double(to_element<T>(mean + deviation * random.normal(i)));
  });
  return values;
}

/// The channel of element i, and what shares statistics with it.
std::size_t channel_of(const Problem& p, std::size_t i) {
  return p.by_rows() || p.layout == Layout::channels_last ? i % p.c : i / (p.h * p.w) % p.c;
}
std::size_t unit_of(const Problem& p, std::size_t i) {
  if (p.by_rows()) return i / p.c;
  const std::size_t channel = channel_of(p, i), sample = i / (p.c * p.h * p.w);
  if (p.op == Op::batch_norm) return channel;
  if (p.op == Op::instance_norm) return sample * p.c + channel;
  return sample * p.groups + channel * p.groups / p.c;
}

/// Runs a step of whoever `make(problem, tensors, memory)` binds; nothing if it has none.
template <class T, class Make>
std::optional<StepResults<double>> run(const AccuracyCase& input, const Make& make) {
  using P = Parameter<T>;
  Memory memory;
  const auto filled = [&]<class E>(E, const std::vector<double>& values) {
    E* copy = memory.take<E>(values.size());
    std::ranges::transform(values, copy, [](double value) { return to_element<E>(value); });
    return copy;
  };
  const auto widened = [](const auto* values, std::size_t count) {
    std::vector<double> result(count);
    std::transform(values, values + count, result.begin(), [](auto value) { return to_double(value); });
    return result;
  };
  const Problem& p = input.problem;
  Tensors<T> t;
  t.x = filled(T{}, input.x);
  t.dy = filled(T{}, input.dy);
  t.gamma = filled(P{}, input.gamma);
  t.beta = filled(P{}, input.beta);
  t.y = memory.take<T>(p.elements());
  t.dx = memory.take<T>(p.elements());
  t.dgamma = memory.take<P>(p.c);
  t.dbeta = memory.take<P>(p.c);
  t.mean = memory.take<P>(p.statistics());
  t.variance = memory.take<P>(p.statistics());
  const std::optional<Passes> passes = make(p, t, memory);
  if (!passes) return {};
  passes->train();
  passes->backward();
  return StepResults<double>{widened(t.y, p.elements()), widened(t.dx, p.elements()), widened(t.dgamma, p.c),
                             widened(t.dbeta, p.c)};
}

/// Of what each result may be off, roundings of its parts: src/ops/batch_norm/README.md, of all that have channels, and
/// src/ops/layer_norm/README.md, of rows.
struct Roundings {
  long double y, beta, dx, dgamma, dbeta;
  long double mean;  ///< of doubles, how often that of the mean itself counts
};
constexpr Roundings kOfChannels = {6, 3, 8, 15, 13, 4}, kOfRows = {8, 2, 12, 19, 10, 1};

/// What shares statistics, and its step. Every norm is layer norm, or RMS norm, of that, with each element's own γ and
/// β.
struct Unit {
  reference::Values x, dy, gamma, beta;  ///< of layer norm x less its first value: a small mean loses no digits
  reference::Values y, dx, dgamma, dbeta;
  long double mean = 0, square = 0;  ///< of this x; variance, or mean square

  void step(bool centred) {
    const auto take = [this](auto&& reference) {
      y = std::move(reference.y), dx = std::move(reference.dx);
      dgamma = std::move(reference.dgamma), dbeta = std::move(reference.dbeta);
    };
    if (centred) {
      auto reference = reference::layer_norm(x, x.size(), gamma, beta, Activation::none, kEpsilon, dy);
      mean = reference.mean[0], square = reference.variance[0];
      take(std::move(reference));
    } else {
      auto reference = reference::rms_norm(x, x.size(), gamma, beta, Activation::none, kEpsilon, dy);
      square = reference.mean_square[0];
      take(std::move(reference));
    }
  }
};

}  // namespace

std::vector<AccuracyCase> accuracy_cases(Type type, bool quick) {
  const Format format = format_of(type);
  std::vector<AccuracyCase> cases;
  for (const OpRow& row : kOpRows) {
    for (const InputRow& input : kInputs) {
      const double outlier = input.kind == Kind::outlier ? 1e8 : 0;
      if (input.mean + 8 * input.deviation > format.largest || outlier > format.largest) continue;
      const double deviation = input.kind == Kind::denormal ? format.normal / 10
                               : input.kind == Kind::huge   ? format.wide
                                                            : input.deviation;
      Problem p = problem_of(row, type, input.kind == Kind::single);
      if (quick && p.n > 4) p.n /= 4;
      AccuracyCase c{p,
                     input.name,
                     normal(p.elements(), kX, input.mean, deviation, type),
                     normal(p.elements(), kDy, 0, 1, type),
                     normal(p.c, kGamma, 1, 0.5, type),
                     normal(p.c, kBeta, 0, 1, type)};
      if (outlier != 0) {
        with_type(type, [&]<class T>(T) { c.x[c.x.size() / 2] = to_double(to_element<T>(outlier)); });
      }
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

StepResults<double> run_ours(const AccuracyCase& input) {
  return with_type(input.problem.type, [&]<class T>(T) {
    return *run<T>(
        input, [](const Problem& p, const Tensors<T>& t, Memory& memory) { return std::optional(ours(p, t, memory)); });
  });
}

std::optional<StepResults<double>> run_onednn(const AccuracyCase& input) {
  return with_type(input.problem.type, [&]<class T>(T) {
    return run<T>(input, [](const Problem& p, const Tensors<T>& t, Memory&) { return onednn(p, t); });
  });
}

Expected run_reference(const AccuracyCase& input) {
  const Problem& p = input.problem;
  const bool doubles = p.type == Type::f64, centred = p.op != Op::rms_norm;
  const Roundings& roundings = p.by_rows() ? kOfRows : kOfChannels;
  const Format format = format_of(p.type), computing = format_of(parameter_type(p.type));
  const long double u = std::ldexp(0.5L, -computing.precision), t = std::ldexp(0.5L, -format.precision);
  const long double tiny = std::ldexp(1.0L, format.lowest), tiny_parameter = std::ldexp(1.0L, computing.lowest);
  // Of doubles every term of a sum is rounded, and of a row every 32nd, in its lanes; of floats only eight are added as
  // such, which averages out.
  const auto with_sums = [&](long double count, std::size_t values) {
    const auto terms = static_cast<long double>(values);
    return !doubles ? count : p.by_rows() ? count + 4 * (terms / 32 + 8) : count * (terms + 1);
  };

  std::vector<std::vector<std::size_t>> places(p.statistics());
  for (std::size_t i = 0; i < input.x.size(); ++i) places[unit_of(p, i)].push_back(i);
  Expected result;
  for (auto* of : {&result.values, &result.bounds}) {
    for (std::size_t k = 0; k < 4; ++k) (*of)[k].resize(k < 2 ? p.elements() : p.c);
  }
  auto& [y, dx, dgamma, dbeta] = result.values;
  auto& [y_bound, dx_bound, dgamma_bound, dbeta_bound] = result.bounds;
  for (const auto& place : places) {
    const std::size_t m = place.size();
    const long double first = centred ? input.x[place[0]] : 0;
    Unit unit;
    for (const std::size_t i : place) {
      unit.x.push_back(input.x[i] - first);
      unit.dy.push_back(input.dy[i]);
      unit.gamma.push_back(input.gamma[channel_of(p, i)]);
      unit.beta.push_back(input.beta[channel_of(p, i)]);
    }
    unit.step(centred);

    const long double inverse = 1 / std::sqrt(unit.square + kEpsilon);
    // The mean is kept in a double: rounded, beside doubles.
    const long double of_mean = doubles && centred ? roundings.mean * std::abs(unit.mean + first) * inverse : 0;
    reference::Values reach, h;
    long double sum = 0, dot = 0;
    for (std::size_t j = 0; j < m; ++j) {
      reach.push_back(std::abs(unit.x[j] - unit.mean) * inverse + 1 + of_mean);
      h.push_back(std::abs(unit.gamma[j] * unit.dy[j]));
      sum += h[j] / static_cast<long double>(m);
      dot += h[j] * reach[j] / static_cast<long double>(m);
    }
    for (std::size_t j = 0; j < m; ++j) {
      const std::size_t i = place[j], c = channel_of(p, i);
      y[i] = unit.y[j];
      dx[i] = unit.dx[j];
      dgamma[c] += unit.dgamma[j];
      dbeta[c] += unit.dbeta[j];

      const long double of_beta = p.by_rows() ? roundings.beta : with_sums(roundings.beta, m);
      y_bound[i] =
          u * (with_sums(roundings.y, m) * std::abs(unit.gamma[j]) * reach[j] + of_beta * std::abs(unit.beta[j])) +
          t * std::abs(y[i]) + tiny;
      dx_bound[i] =
          u * inverse * with_sums(roundings.dx, m) * (h[j] + sum + reach[j] * dot) + t * std::abs(dx[i]) + tiny;
      const std::size_t of_channel = p.n * p.h * p.w;
      dgamma_bound[c] += u * with_sums(roundings.dgamma, of_channel) * std::abs(unit.dy[j]) * reach[j];
      dbeta_bound[c] += u * with_sums(roundings.dbeta, of_channel) * std::abs(unit.dy[j]);
    }
  }
  for (std::size_t c = 0; c < p.c; ++c) {
    dgamma_bound[c] += u * std::abs(dgamma[c]) + tiny_parameter;
    dbeta_bound[c] += u * std::abs(dbeta[c]) + tiny_parameter;
  }
  return result;
}

std::array<MaxError, 4> errors(const AccuracyCase& input, const StepResults<double>& found, const Expected& expected) {
  std::array<MaxError, 4> all{};
  for (std::size_t k = 0; k < all.size(); ++k) {
    const bool tensor = k < 2;
    const Format format = format_of(tensor ? input.problem.type : parameter_type(input.problem.type));
    const auto& values = expected.values[k];
    const auto unit = [&](std::size_t i) { return tensor ? unit_of(input.problem, i) : 0; };
    std::vector<long double> scales(tensor ? input.problem.statistics() : 1);
    for (std::size_t i = 0; i < values.size(); ++i) scales[unit(i)] = std::max(scales[unit(i)], std::abs(values[i]));
    for (std::size_t i = 0; i < values.size(); ++i) {
      long double error = std::abs(found[k][i] - values[i]);
      if (std::isnan(error)) error = std::numeric_limits<long double>::infinity();
      if (error == 0) continue;
      const long double scale = scales[unit(i)];
      const long double ulp =
          scale > 0 ? std::ldexp(1.0L, std::max(std::ilogb(scale) - format.precision, format.lowest)) : 0;
      all[k].absolute = std::max(all[k].absolute, static_cast<double>(error));
      all[k].ulp = std::max(all[k].ulp, static_cast<double>(error / ulp));
      all[k].of_bound = std::max(all[k].of_bound, static_cast<double>(error / expected.bounds[k][i]));
    }
  }
  return all;
}

std::size_t changed_beyond(const AccuracyCase& input, double poison) {
  AccuracyCase poisoned = input;
  const std::size_t at = input.x.size() / 2;
  poisoned.x[at] = poison;
  const auto clean = run_ours(input), found = run_ours(poisoned);
  std::size_t changed = 0;
  for (std::size_t k = 0; k < 2; ++k) {
    for (std::size_t i = 0; i < clean[k].size(); ++i) {
      if (unit_of(input.problem, i) == unit_of(input.problem, at)) continue;
      const auto bits = [i](const std::vector<double>& values) { return std::bit_cast<std::uint64_t>(values[i]); };
      changed += bits(clean[k]) != bits(found[k]) ? 1U : 0U;
    }
  }
  return changed;
}

}  // namespace equinorm::bench
