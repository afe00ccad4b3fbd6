// What is measured beside ours does the job: its results are those of the formulas in double.
#include "plain.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/check.hpp"
#include "core/philox.hpp"
#include "memory.hpp"

namespace equinorm::bench {
namespace {

/// Which statistics and which channel the element i has.
struct Index {
  explicit Index(const Problem& problem) : p(problem) {}
  std::size_t channel(std::size_t i) const { return p.planes() ? i / (p.h * p.w) % p.c : i % p.c; }
  std::size_t set(std::size_t i) const {
    const std::size_t n = i / (p.c * p.h * p.w), c = channel(i);
    switch (p.op) {
      case Op::batch_norm:
        return c;
      case Op::layer_norm:
      case Op::rms_norm:
        return n;
      case Op::group_norm:
        return n * p.groups + c / (p.c / p.groups);
      case Op::instance_norm:
        break;
    }
    return n * p.c + c;
  }
  Problem p;
};

/// A problem with its tensors filled, and what their passes should come to.
struct Case {
  explicit Case(const Problem& problem) : p(problem), index(problem) {
    std::uint64_t streams = 0;
    const auto fill = [&](std::size_t count, double from, double to) {
      auto* values = memory.take<float>(count);
      const Philox random(1, ++streams);
      constexpr std::size_t kPeriod = 9973;  // is there sooner
      for (std::size_t i = 0; i < count; ++i) {
        values[i] = i < kPeriod ? static_cast<float>(from + (to - from) * random.uniform(i)) : values[i - kPeriod];
      }
      return values;
    };
    const std::size_t n = p.elements(), sets = p.statistics();
    for (float** tensor : {&t.x, &t.residual, &t.y, &t.dy, &t.dx, &t.sum, &t.dresidual}) *tensor = fill(n, -1, 1.5);
    for (float** vector : {&t.gamma, &t.dgamma}) *vector = fill(p.c, 0.5, 2);
    if (p.has_beta()) t.beta = fill(p.c, 0.5, 2), t.dbeta = fill(p.c, 0.5, 2);
    t.mean = fill(sets, -0.5, 0.5);
    t.variance = fill(sets, 0.5, 2);
    gate.assign(t.y, t.y + n);
    if (p.activation != Activation::relu || p.add) return;
    // Without a residual the gate is computed again, too near zero perhaps with another sign: no gradient there.
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t s = index.set(i), c = index.channel(i);
      gate[i] = static_cast<float>(
          (at(t.x, i) - at(t.mean, s)) / std::sqrt(at(t.variance, s) + kEpsilon) * at(t.gamma, c) + beta(c));
      if (std::abs(gate[i]) < 1e-5F) t.dy[i] = 0;
    }
  }

  static double at(const float* tensor, std::size_t i) { return static_cast<double>(tensor[i]); }
  double beta(std::size_t c) const { return p.has_beta() ? at(t.beta, c) : 0; }
  bool before() const { return p.add && p.by_rows(); }  ///< whether the residual is added before the norm
  double input(std::size_t i) const {
    if (p.pass == Pass::backward) return before() ? at(t.sum, i) : at(t.x, i);
    return at(t.x, i) + (before() ? at(t.residual, i) : 0);
  }

  /// The mean over each set of value(i).
  template <class Value>
  std::vector<double> means(const Value& value) const {
    std::vector<double> sums(p.statistics()), counts(p.statistics());
    for (std::size_t i = 0; i < p.elements(); ++i) sums[index.set(i)] += value(i), counts[index.set(i)] += 1;
    for (std::size_t s = 0; s < sums.size(); ++s) sums[s] /= counts[s];
    return sums;
  }

  void expect_forward(const std::string& what) const {
    const bool given = p.op == Op::batch_norm && p.pass == Pass::infer;
    std::vector<double> mean(p.statistics()), variance;
    if (given) {
      mean.assign(t.mean, t.mean + mean.size());
      variance.assign(t.variance, t.variance + mean.size());
    } else {
      if (p.op != Op::rms_norm) mean = means([&](std::size_t i) { return input(i); });
      variance = means([&](std::size_t i) {
        const double difference = input(i) - mean[index.set(i)];
        return difference * difference;
      });
    }
    for (std::size_t i = 0; i < p.elements(); ++i) {
      const std::size_t s = index.set(i), c = index.channel(i);
      double z = (input(i) - mean[s]) / std::sqrt(variance[s] + kEpsilon) * at(t.gamma, c) + beta(c);
      if (p.add && !p.by_rows()) z += at(t.residual, i);
      if (p.activation == Activation::relu) z = std::max(z, 0.0);
      ASSERT_NEAR(t.y[i], z, 2e-5) << what << " element " << i;
      if (before()) {
        ASSERT_EQ(t.sum[i], t.x[i] + t.residual[i]) << what << " element " << i;
      }
    }
  }

  void expect_backward(const std::string& what) const {
    const auto x_hat = [&](std::size_t i) {
      const std::size_t s = index.set(i);
      return (input(i) - (p.op == Op::rms_norm ? 0 : at(t.mean, s))) / std::sqrt(at(t.variance, s) + kEpsilon);
    };
    const auto g = [&](std::size_t i) { return p.activation == Activation::relu && gate[i] <= 0 ? 0.0 : at(t.dy, i); };
    const auto h = [&](std::size_t i) { return g(i) * at(t.gamma, index.channel(i)); };
    auto mean_h = means(h);
    if (p.op == Op::rms_norm) mean_h.assign(mean_h.size(), 0);
    const auto mean_hx = means([&](std::size_t i) { return h(i) * x_hat(i); });
    std::vector<double> dgamma(p.c), dbeta(p.c);
    for (std::size_t i = 0; i < p.elements(); ++i) {
      const std::size_t s = index.set(i);
      const double dx = (h(i) - mean_h[s] - x_hat(i) * mean_hx[s]) / std::sqrt(at(t.variance, s) + kEpsilon);
      ASSERT_NEAR(t.dx[i], dx, 2e-5) << what << " element " << i;
      if (p.add && !p.by_rows()) {
        ASSERT_EQ(t.dresidual[i], static_cast<float>(g(i))) << what << " element " << i;
      }
      dgamma[index.channel(i)] += g(i) * x_hat(i);
      dbeta[index.channel(i)] += g(i);
    }
    for (std::size_t c = 0; c < p.c; ++c) {
      const double scale = static_cast<double>(p.elements()) / static_cast<double>(p.c);
      ASSERT_NEAR(t.dgamma[c], dgamma[c], 1e-5 * scale) << what << " channel " << c;
      if (!p.has_beta()) continue;
      ASSERT_NEAR(t.dbeta[c], dbeta[c], 1e-5 * scale) << what << " channel " << c;
    }
  }

  Problem p;
  Index index;
  Memory memory;
  Tensors<float> t;
  std::vector<float> gate;
};

/// Channels and sides: folded or not, planes as columns or as lines, with and without what is left over of a vector.
struct Extents {
  std::size_t n, c, side;
};
constexpr Extents kSmall[] = {{9, 32, 1}, {70, 8, 1}, {3, 48, 7}, {2, 40, 9}, {3, 8, 16}, {2, 72, 13}};
/// Around the caches.
constexpr Extents kLarge[] = {{33, 64, 32}, {53, 832, 7}};

void expect_right(const Problem& p, Fetch fetch, const std::string& what) {
  Case c(p);
  plain(p, c.t, fetch)();
  if (p.pass == Pass::backward) {
    c.expect_backward(what);
  } else {
    c.expect_forward(what);
  }
}

template <class Body>
void for_each_problem(const Extents& e, const Body& body) {
  for (const auto& op : kOps) {
    // The variance of one value or two is little but rounding.
    if ((op.value == Op::instance_norm || op.value == Op::group_norm) && e.side == 1) continue;
    for (const auto& layout : kLayouts) {
      for (const auto& pass : kPasses) {
        for (const bool add : {false, true}) {
          for (const Activation activation : {Activation::none, Activation::relu}) {
            Problem p;
            p.op = op.value;
            p.n = e.n, p.c = e.c, p.h = p.w = e.side;
            if (p.by_rows()) p.c *= e.side * e.side, p.h = p.w = 1;
            p.groups = 4;
            p.layout = layout.value;
            p.pass = pass.value;
            p.activation = activation;
            p.add = add;
            if (p.by_rows() && activation != Activation::none) continue;  // is not there
            body(p, std::string(op.name) + " " + std::string(layout.name) + " " + std::string(pass.name) +
                        fused_text(p) + " of " + to_string(p.shape()));
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(Plain, ResultsAreThoseOfTheFormulas) {
  for (const Extents& e : kSmall) {
    ASSERT_NO_FATAL_FAILURE(for_each_problem(e, [](const Problem& p, const std::string& what) {
      for (const Fetch fetch : kFetches) ASSERT_NO_FATAL_FAILURE(expect_right(p, fetch, what));
    }));
  }
}

TEST(Plain, ResultsAroundTheCachesAreThoseOfTheFormulas) {
  for (const Extents& e : kLarge) {
    ASSERT_NO_FATAL_FAILURE(for_each_problem(e, [](const Problem& p, const std::string& what) {
      const bool other = p.op == Op::rms_norm || p.op == Op::instance_norm;
      if (!other && !p.add && p.activation == Activation::none) expect_right(p, Fetch::far, what);
    }));
  }
}

TEST(Plain, KnowsNoOtherActivations) {
  Case c({});
  Problem p;
  p.activation = Activation::gelu;
  EXPECT_EQ(plain(p, c.t, Fetch::near), nullptr);
}

}  // namespace
}  // namespace equinorm::bench
