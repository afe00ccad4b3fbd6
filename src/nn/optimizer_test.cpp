#include "nn/optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/philox.hpp"
#include "equinorm/status.hpp"

namespace equinorm::nn {
namespace {

/// A weight, a bias, γ and β of 37 values each, moved by random gradients for five steps; the same in double.
class Updates {
 public:
  explicit Updates(const OptimizerSpec& spec) : spec_(spec) {
    constexpr ParameterKind kinds[] = {ParameterKind::weight, ParameterKind::bias, ParameterKind::gamma,
                                       ParameterKind::beta};
    for (std::size_t k = 0; k < 4; ++k) {
      values_[k].resize(n);
      gradient_[k].resize(n);
      for (std::size_t i = 0; i < n; ++i) values_[k][i] = static_cast<float>(random_.normal(1000 * k + i));
      expected_[k].assign(values_[k].begin(), values_[k].end());
      m_[k].assign(n, 0);
      v_[k].assign(n, 0);
      parameters_.push_back({"p" + std::to_string(k), kinds[k], {n}, values_[k], gradient_[k]});
    }
    Optimizer optimizer(spec, parameters_);
    for (int t = 1; t <= 5; ++t) {
      const double lr = spec.lr / t;
      for (std::size_t k = 0; k < 4; ++k) {
        for (std::size_t i = 0; i < n; ++i) {
          gradient_[k][i] = static_cast<float>(random_.normal(100000 * static_cast<std::size_t>(t) + 1000 * k + i));
        }
        move(k, lr, t);
      }
      optimizer.step(lr);
    }
  }

  /// Five steps of a handful of roundings each, of values up to about 4.
  void compare() const {
    for (std::size_t k = 0; k < 4; ++k) {
      for (std::size_t i = 0; i < n; ++i) {
        EXPECT_NEAR(static_cast<double>(values_[k][i]), expected_[k][i], 5 * 8 * 4 * 0x1p-24) << k << ", " << i;
      }
    }
  }

 private:
  void move(std::size_t k, double lr, int t) {
    const bool norm = k >= 2;
    const double decay = k == 0 || (k == 1 && spec_.decay_bias) || (norm && spec_.decay_norm) ? spec_.weight_decay : 0;
    const double rate = norm ? lr * spec_.norm_lr : lr;
    for (std::size_t i = 0; i < n; ++i) {
      double& w = expected_[k][i];
      const double g = static_cast<double>(gradient_[k][i]) + (spec_.decoupled ? 0 : decay * w);
      const double shrunk = spec_.decoupled ? w - rate * decay * w : w;
      if (spec_.kind == OptimizerKind::sgd) {
        m_[k][i] = spec_.momentum * m_[k][i] + g;
        w = shrunk - rate * m_[k][i];
      } else {
        m_[k][i] = spec_.beta1 * m_[k][i] + (1 - spec_.beta1) * g;
        v_[k][i] = spec_.beta2 * v_[k][i] + (1 - spec_.beta2) * g * g;
        const double mean = m_[k][i] / (1 - std::pow(spec_.beta1, t)),
                     square = v_[k][i] / (1 - std::pow(spec_.beta2, t));
        w = shrunk - rate * mean / (std::sqrt(square) + spec_.epsilon);
      }
    }
  }

  static constexpr std::size_t n = 37;
  OptimizerSpec spec_;
  Philox random_{11, 1};
  std::vector<float> values_[4], gradient_[4];
  std::vector<double> expected_[4], m_[4], v_[4];
  std::vector<Parameter> parameters_;
};

TEST(Optimizer, FollowsItsFormula) {
  for (const auto kind : {OptimizerKind::sgd, OptimizerKind::adam}) {
    for (const bool decoupled : {false, true}) {
      for (const bool decay_all : {false, true}) {
        OptimizerSpec spec;
        spec.kind = kind;
        spec.lr = 0.1;
        spec.weight_decay = 0.05;
        spec.decoupled = decoupled;
        spec.decay_norm = spec.decay_bias = decay_all;
        spec.norm_lr = 3;
        Updates(spec).compare();
      }
    }
  }
}

TEST(Optimizer, RefusesWhatMakesNoSense) {
  const auto refuses = [](auto change) {
    OptimizerSpec spec;
    change(spec);
    EXPECT_THROW(validate(spec), Error);
  };
  refuses([](OptimizerSpec& s) { s.lr = 0; });
  refuses([](OptimizerSpec& s) { s.lr = std::nan(""); });
  refuses([](OptimizerSpec& s) { s.momentum = 1; });
  refuses([](OptimizerSpec& s) { s.weight_decay = -1; });
  refuses([](OptimizerSpec& s) { s.norm_lr = -1; });
  EXPECT_THROW(parse_optimizer("lion"), Error);
  EXPECT_THROW(parse_schedule("linear"), Error);
}

TEST(Schedule, WarmsUpThenFollowsItsShape) {
  const auto rate = [](ScheduleKind kind, std::uint64_t step) {
    return scheduled_rate({.kind = kind, .warmup = 10}, 0.4, step, 110);
  };
  for (const auto kind : {ScheduleKind::constant, ScheduleKind::step, ScheduleKind::cosine}) {
    EXPECT_DOUBLE_EQ(rate(kind, 0), 0.04);
    EXPECT_DOUBLE_EQ(rate(kind, 9), 0.4);
    EXPECT_DOUBLE_EQ(rate(kind, 10), 0.4);
  }
  EXPECT_DOUBLE_EQ(rate(ScheduleKind::constant, 109), 0.4);
  EXPECT_DOUBLE_EQ(rate(ScheduleKind::cosine, 60), 0.2);
  EXPECT_LT(rate(ScheduleKind::cosine, 109), 0.001);
  EXPECT_DOUBLE_EQ(rate(ScheduleKind::step, 43), 0.4);
  EXPECT_DOUBLE_EQ(rate(ScheduleKind::step, 44), 0.04);
  EXPECT_NEAR(rate(ScheduleKind::step, 109), 0.004, 1e-15);
}

}  // namespace
}  // namespace equinorm::nn
