#include "accuracy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/philox.hpp"
#include "memory.hpp"
#include "ops/batch_norm/reference.hpp"
#include "ops/group_norm/reference.hpp"
#include "ops/layer_norm/reference.hpp"
#include "ops/rms_norm/reference.hpp"
#include "ours.hpp"
#include "peers/onednn.hpp"

namespace equinorm::bench {
namespace {

struct InputRow {
  const char* name;
  double mean, deviation;
  double outlier = 0;  ///< replaces one element
};

// Each row says what it is there to break.
constexpr InputRow kInputs[] = {
    {"mean 0", 0, 1},           // what training sees
    {"mean 1e3 σ", 1e3, 1},     // E[x²] − E[x]² in float
    {"mean 1e4 σ", 1e4, 1},     // x·α + (β − mean·α) in float
    {"mean 1e5 σ", 1e5, 1},     // both
    {"mean 1e6 σ", 1e6, 1},     // a mean kept in one float
    {"constant", 3.7, 0},       // σ = 0: only ε is under the root
    {"denormal", 0, 1e-39},     // flushes to zero
    {"σ = 1e36", 0, 1e36},      // x² overflows
    {"outlier 1e8", 0, 1, 1e8}  // one value owns the variance
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

enum Stream : std::uint64_t { kX = 1, kDy, kGamma, kBeta };

std::vector<float> normal(std::size_t count, Stream stream, double mean, double deviation) {
  const Philox random(1, stream);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(mean + deviation * random.normal(i));
  return values;
}

template <class To, class From>
std::vector<To> as(const std::vector<From>& values) {
  std::vector<To> result(values.size());
  std::ranges::transform(values, result.begin(), [](From value) { return static_cast<To>(value); });
  return result;
}

/// What shares statistics with element i.
std::size_t unit_of(const Problem& p, std::size_t i) {
  if (p.by_rows()) return i / p.c;
  const bool last = p.layout == Layout::channels_last;
  const std::size_t plane = p.h * p.w;
  const std::size_t channel = last ? i % p.c : i / plane % p.c;
  const std::size_t sample = i / (p.c * plane);
  if (p.op == Op::batch_norm) return channel;
  if (p.op == Op::instance_norm) return sample * p.c + channel;
  return sample * p.groups + channel * p.groups / p.c;
}

/// Runs a step of whoever `make(problem, tensors, memory)` binds; nothing if it has none.
template <class Make>
std::optional<StepResults<float>> run(const AccuracyCase& input, const Make& make) {
  Memory memory;
  const auto filled = [&](const std::vector<float>& values) {
    auto* copy = memory.take<float>(values.size());
    std::ranges::copy(values, copy);
    return copy;
  };
  const Problem& p = input.problem;
  Tensors<float> t;
  t.x = filled(input.x);
  t.dy = filled(input.dy);
  t.gamma = filled(input.gamma);
  t.beta = filled(input.beta);
  t.y = memory.take<float>(p.elements());
  t.dx = memory.take<float>(p.elements());
  t.dgamma = memory.take<float>(p.c);
  t.dbeta = memory.take<float>(p.c);
  t.mean = memory.take<float>(p.statistics());
  t.variance = memory.take<float>(p.statistics());
  const std::optional<Passes> passes = make(p, t, memory);
  if (!passes) return {};
  passes->train();
  passes->backward();
  return StepResults<float>{std::vector(t.y, t.y + p.elements()), std::vector(t.dx, t.dx + p.elements()),
                            std::vector(t.dgamma, t.dgamma + p.c), std::vector(t.dbeta, t.dbeta + p.c)};
}

}  // namespace

std::vector<AccuracyCase> accuracy_cases() {
  std::vector<AccuracyCase> cases;
  for (const OpRow& row : kOpRows) {
    for (const InputRow& input : kInputs) {
      Problem p;
      p.op = row.op;
      p.n = row.n, p.c = row.c, p.h = row.h, p.w = row.w;
      p.layout = row.layout;
      p.groups = kGroups;
      AccuracyCase c{p,
                     input.name,
                     normal(p.elements(), kX, input.mean, input.deviation),
                     normal(p.elements(), kDy, 0, 1),
                     normal(p.c, kGamma, 1, 0.5),
                     normal(p.c, kBeta, 0, 1)};
      if (input.outlier != 0) c.x[c.x.size() / 2] = static_cast<float>(input.outlier);
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

StepResults<float> run_ours(const AccuracyCase& input) {
  return *run(input, [](const Problem& p, const Tensors<float>& t, Memory& memory) {
    return std::optional(ours(p, t, memory));
  });
}

std::optional<StepResults<float>> run_onednn(const AccuracyCase& input) {
  return run(input, [](const Problem& p, const Tensors<float>& t, Memory&) { return onednn(p, t); });
}

StepResults<double> run_reference(const AccuracyCase& input) {
  const Problem& p = input.problem;
  const auto x = as<double>(input.x), dy = as<double>(input.dy);
  const auto gamma = as<double>(input.gamma), beta = as<double>(input.beta);
  if (p.op == Op::batch_norm) {
    auto forward = reference::batch_norm_forward(x, p.shape(), p.layout, gamma, beta, {}, false, kEpsilon);
    auto backward = reference::batch_norm_backward(x, dy, p.shape(), p.layout, gamma, {}, kEpsilon);
    return {std::move(forward.y), std::move(backward.dx), std::move(backward.dgamma), std::move(backward.dbeta)};
  }
  if (p.by_rows()) {
    const auto step = [&](const auto& reference) {
      const auto r = reference(as<long double>(input.x), p.c, as<long double>(input.gamma), as<long double>(input.beta),
                               Activation::none, kEpsilon, as<long double>(input.dy), reference::Values{});
      return StepResults<double>{as<double>(r.y), as<double>(r.dx), as<double>(r.dgamma), as<double>(r.dbeta)};
    };
    return p.op == Op::layer_norm ? step(reference::layer_norm) : step(reference::rms_norm);
  }
  const std::size_t groups = p.op == Op::instance_norm ? p.c : p.groups;
  auto forward = reference::group_norm_forward(x, p.shape(), p.layout, groups, gamma, beta, {}, kEpsilon);
  auto backward = reference::group_norm_backward(x, dy, p.shape(), p.layout, groups, gamma, kEpsilon);
  return {std::move(forward.z), std::move(backward.dx), std::move(backward.dgamma), std::move(backward.dbeta)};
}

std::array<MaxError, 4> errors(const AccuracyCase& input, const StepResults<float>& found,
                               const StepResults<double>& expected) {
  std::array<MaxError, 4> all{};
  for (std::size_t k = 0; k < all.size(); ++k) {
    const bool tensor = k < 2;
    const auto unit = [&](std::size_t i) { return tensor ? unit_of(input.problem, i) : 0; };
    std::vector<double> scales(tensor ? input.problem.statistics() : 1);
    for (std::size_t i = 0; i < expected[k].size(); ++i) {
      scales[unit(i)] = std::max(scales[unit(i)], std::abs(expected[k][i]));
    }
    for (std::size_t i = 0; i < expected[k].size(); ++i) {
      double error = std::abs(static_cast<double>(found[k][i]) - expected[k][i]);
      if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
      if (error == 0) continue;
      constexpr int kPrecision = std::numeric_limits<float>::digits - 1, kLowest = -149;
      const double scale = scales[unit(i)];
      const double ulp = scale > 0 ? std::ldexp(1.0, std::max(std::ilogb(scale) - kPrecision, kLowest)) : 0;
      all[k].absolute = std::max(all[k].absolute, error);
      all[k].ulp = std::max(all[k].ulp, error / ulp);
    }
  }
  return all;
}

}  // namespace equinorm::bench
