// The kernels that make coefficients, against channel.hpp's formulas of one channel, bit by bit, on every processor.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/philox.hpp"
#include "equinorm/execution.hpp"
#include "kernels/channel.hpp"
#include "kernels/kernels.hpp"

namespace equinorm {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kEpsilon = 1e-5, kValues = 37;
constexpr std::size_t kMargin = 3;  // channels around those that are asked for

template <class T>
class Channels : public testing::Test {
 protected:
  using P = Parameter<T>;

  void TearDown() override { ASSERT_TRUE(set_simd_target("").ok()); }

  /// Channels whose statistics and sums take on all pairs of these, and some ordinary ones.
  void make(const std::vector<double>& means, const std::vector<double>& variances, const std::vector<double>& sums) {
    const Philox random(5, 1);
    const auto add = [&](double m, double v, double s, double d) {
      const std::size_t i = mean.size();
      mean.push_back(m), variance.push_back(v), sum.push_back(s), dot.push_back(d);
      gamma.push_back(static_cast<P>(random.normal(2 * i))), beta.push_back(static_cast<P>(random.normal(2 * i + 1)));
    };
    for (const double m : means) {
      for (const double v : variances) {
        for (const double s : sums) add(m, v, s, sums[mean.size() % sums.size()]);
      }
    }
    for (std::uint64_t i = 0; i < 40; ++i) {
      add(random.normal(1000 + 4 * i), std::abs(random.normal(1001 + 4 * i)), random.normal(1002 + 4 * i),
          random.normal(1003 + 4 * i));
    }
  }
  std::size_t count() const { return mean.size(); }

  /// What the kernels write, of channels begin … end − 1; the rest is left at −77.
  struct Written {
    Written(std::size_t count, std::vector<double> sums, std::vector<double> dots)
        : inverse(count, -77),
          sum(std::move(sums)),
          dot(std::move(dots)),
          dgamma(count, P{-77}),
          dbeta(count, P{-77}),
          memory(6 * count, P{-77}) {}
    std::vector<double> inverse, sum, dot;
    std::vector<P> dgamma, dbeta, memory;
    bool forward_careful = false, backward_careful = false;
  };
  kernels::ChannelStatistics<T> statistics(Written& to, bool affine) const {
    return {mean.data(), variance.data(),  affine ? gamma.data() : nullptr, affine ? beta.data() : nullptr,
            kEpsilon,    to.inverse.data()};
  }
  Written by_kernels(std::size_t begin, std::size_t end, bool affine, bool exact) const {
    Written to(count(), sum, dot);
    const kernels::CoefficientArrays<T> arrays(to.memory.data(), count());
    const auto& run = kernels::get<T>();
    const auto of = statistics(to, affine);
    to.forward_careful = run.prepare_channels(of, arrays, begin, end);
    to.backward_careful = run.finish_channels(of,
                                              {kValues, to.sum.data(), to.dot.data(), exact,
                                               affine ? to.dgamma.data() : nullptr, affine ? to.dbeta.data() : nullptr},
                                              arrays, begin, end);
    return to;
  }
  Written one_by_one(std::size_t begin, std::size_t end, bool affine, bool exact) const {
    Written to(count(), sum, dot);
    const kernels::CoefficientArrays<T> arrays(to.memory.data(), count());
    for (std::size_t c = begin; c < end; ++c) {
      const double inverse = to.inverse[c] = 1.0 / std::sqrt(variance[c] + kEpsilon);
      kernels::Channel k{mean[c], (affine ? static_cast<double>(gamma[c]) : 1.0) * inverse,
                         affine ? static_cast<double>(beta[c]) : 0.0};
      arrays.write_forward(c, k);
      arrays.write_unit(c, k, inverse);
      to.forward_careful |= kernels::needs_care<T>(mean[c], variance[c]);
      if (!exact) to.dot[c] -= sum[c] * kernels::mean_rest<P>(mean[c]);
      if (affine) {
        to.dgamma[c] = static_cast<P>(to.dot[c] * inverse);
        to.dbeta[c] = static_cast<P>(sum[c]);
      }
      k.offset = sum[c] / kValues * k.scale;
      k.slope = to.dot[c] / kValues * inverse * inverse * k.scale;
      arrays.write_backward(c, k);
      to.backward_careful |= kernels::needs_care<T>(mean[c], variance[c]) || !std::isfinite(sum[c]) ||
                             !std::isfinite(to.dot[c]) || kernels::needs_care<T>(k.slope);
    }
    return to;
  }

  /// The same bits, or NaN in both.
  template <class V>
  static void expect_equal(const std::vector<V>& found, const std::vector<V>& expected, const std::string& what) {
    using Bits = std::conditional_t<sizeof(V) == 4, std::uint32_t, std::uint64_t>;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (std::isnan(found[i]) && std::isnan(expected[i])) continue;
      ASSERT_EQ(std::bit_cast<Bits>(found[i]), std::bit_cast<Bits>(expected[i]))
          << what << '[' << i << "]: " << found[i] << " for " << expected[i];
    }
  }
  void expect_as_one_by_one(std::size_t begin, std::size_t end) const {
    for (const bool affine : {true, false}) {
      for (const bool exact : {true, false}) {
        const Written found = by_kernels(begin, end, affine, exact), expected = one_by_one(begin, end, affine, exact);
        expect_equal(found.inverse, expected.inverse, "inverse deviation");
        expect_equal(found.sum, expected.sum, "sum");
        expect_equal(found.dot, expected.dot, "dot");
        expect_equal(found.dgamma, expected.dgamma, "dgamma");
        expect_equal(found.dbeta, expected.dbeta, "dbeta");
        expect_equal(found.memory, expected.memory, "coefficients");
        EXPECT_EQ(found.forward_careful, expected.forward_careful);
        EXPECT_EQ(found.backward_careful, expected.backward_careful);
      }
    }
  }
  template <class Body>
  void on_every_processor(const Body& body) const {
    for (const std::string& target : simd_targets()) {
      ASSERT_TRUE(set_simd_target(target).ok());
      SCOPED_TRACE(target);
      body();
    }
  }

  std::vector<double> mean, variance, sum, dot;
  std::vector<P> gamma, beta;
};

using Types = testing::Types<float, double, bfloat16, float16>;
TYPED_TEST_SUITE(Channels, Types);

TYPED_TEST(Channels, AreWhatOneChannelIs) {
  this->make({0.0, -0.0, 1e6, -1e6, 0x1p-140, 3e38, 1e39, kInfinity, kNan, 1e300},
             {0.0, 1.0, 1e-300, 1e12, 0x1p90, 1e300, kInfinity, kNan}, {0.0, -0.0, 1.5, -1e30, 1e300, kInfinity, kNan});
  this->on_every_processor([&] { this->expect_as_one_by_one(0, this->count()); });
}

TYPED_TEST(Channels, OfAnyCountLeaveTheOthersAlone) {
  this->make({}, {}, {});
  this->on_every_processor([&] {
    for (std::size_t count = 0; count + 2 * kMargin < this->count(); ++count) {
      this->expect_as_one_by_one(kMargin, kMargin + count);
    }
  });
}

// Of one channel among ordinary ones, wherever it stands in a vector: everything that asks for care, and nothing else.
TYPED_TEST(Channels, AskForCareOneByOne) {
  this->make({}, {}, {});
  this->on_every_processor([&] {
    const auto expect_with = [&](std::vector<double>& values, std::size_t c, double x) {
      const double before = std::exchange(values[c], x);
      this->expect_as_one_by_one(0, this->count());
      values[c] = before;
    };
    for (std::size_t c = 0; c < 17; ++c) {
      for (const double x : {0x1p100, -0x1.8p100, 0x1p101, kInfinity, kNan}) expect_with(this->mean, c, x);
      for (const double x : {0x1p80, 0x1.8p80, kInfinity, kNan}) expect_with(this->variance, c, x);
      for (const double x : {1e30, -1e45, kInfinity, kNan}) {
        expect_with(this->sum, c, x);
        expect_with(this->dot, c, x);
      }
    }
  });
}

}  // namespace
}  // namespace equinorm
