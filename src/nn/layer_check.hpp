// For tests: checks a layer against its formula, written as a plain function in double. Forward is compared with the
// function itself, every gradient with central differences of it, taken of L = Σ w·y with random w.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "core/philox.hpp"
#include "nn/arena.hpp"
#include "nn/layer.hpp"
#include "nn/plan.hpp"

namespace equinorm::nn {

using Values = std::vector<double>;

/// The formula: outputs[0] from inputs and parameters.
using Formula = std::function<Values(const std::vector<Values>& inputs, const std::vector<Values>& parameters)>;

struct LayerCheck {
  Layer& layer;
  std::vector<Shape> in;
  Shape out;
  Formula formula;
  /// Of the largest sum of magnitudes that any result is rounded from: 2⁻²⁴ for each of the roundings in a row.
  double tolerance;
  Call call{.training = true, .seed = 1, .step = 3, .threads = 1};
  bool gradients = true;
};

inline void run(const LayerCheck& check) {
  const LayerPlan& plan = check.layer.plan();
  const Philox random(7, 7);
  std::uint64_t drawn = 0;
  const auto draw = [&](std::size_t n) {
    std::vector<float> values(n);
    for (float& value : values) value = static_cast<float>(random.normal(drawn++));
    return values;
  };
  const auto widen = [](const std::vector<float>& values) { return Values(values.begin(), values.end()); };

  // Memory of its own for everything but what the plan says must be shared.
  std::vector<std::vector<float>> in, in_gradient, parameter, parameter_gradient;
  for (const Shape& shape : check.in) {
    in.push_back(draw(shape.elements()));
    in_gradient.emplace_back(shape.elements(), -99.0F);
  }
  std::vector<Parameter> parameters;
  for (const ParameterPlan& p : plan.parameters) {
    parameter.push_back(draw(p.shape.elements()));
    parameter_gradient.emplace_back(p.shape.elements(), -99.0F);
  }
  for (std::size_t i = 0; i < parameter.size(); ++i) {
    parameters.push_back({plan.parameters[i].suffix, plan.parameters[i].kind, plan.parameters[i].shape, parameter[i],
                          parameter_gradient[i]});
  }
  const std::vector<float> weight = draw(check.out.elements());  // dL/dy
  std::vector<float> y(check.out.elements(), -99.0F), dy = weight;
  const bool same = plan.placement == Placement::same;
  const Arena saved(plan.saved), state(plan.state), workspace(plan.workspace);
  Binding binding{{}, {}, parameters, saved.data(), state.data(), workspace.data()};
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool shares = plan.gradient_shares == static_cast<int>(i);
    binding.in.push_back({check.in[i], in[i].data(), shares ? dy.data() : in_gradient[i].data()});
  }
  binding.out.push_back({check.out, same ? in[0].data() : y.data(), dy.data()});
  check.layer.bind(std::move(binding));

  std::vector<Values> inputs, values;
  for (const auto& x : in) inputs.push_back(widen(x));
  for (const auto& p : parameter) values.push_back(widen(p));
  check.layer.forward(check.call);
  const Values expected = check.formula(inputs, values);
  const std::vector<float>& got = same ? in[0] : y;
  ASSERT_EQ(expected.size(), got.size());
  double scale = 1;
  for (const double value : expected) scale = std::max(scale, std::abs(value));
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got[i]), expected[i], check.tolerance * scale)
        << check.layer.name() << " y[" << i << "]";
  }
  if (!check.gradients) return;

  check.layer.backward(check.call);
  const auto loss = [&] {
    const Values result = check.formula(inputs, values);
    double sum = 0;
    for (std::size_t i = 0; i < result.size(); ++i) sum += static_cast<double>(weight[i]) * result[i];
    return sum;
  };
  // In double, central differences at h = 1e-5 err by h² ≈ 1e-10 (truncation) and 1e-16·|L|/h ≈ 1e-9: nothing beside
  // the rounding of f32.
  const auto compare = [&](const char* what, std::size_t which, Values& at, const float* gradient) {
    constexpr double h = 1e-5;
    Values slope(at.size());
    double largest = 1;
    for (std::size_t i = 0; i < at.size(); ++i) {
      const double before = at[i];
      at[i] = before + h;
      const double up = loss();
      at[i] = before - h;
      slope[i] = (up - loss()) / (2 * h);
      at[i] = before;
      largest = std::max(largest, std::abs(slope[i]));
    }
    for (std::size_t i = 0; i < at.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(gradient[i]), slope[i], check.tolerance * largest + 1e-8)
          << check.layer.name() << " d" << what << which << "[" << i << "]";
    }
  };
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    compare("in", i, inputs[i], plan.gradient_shares == static_cast<int>(i) ? dy.data() : in_gradient[i].data());
  }
  for (std::size_t i = 0; i < values.size(); ++i) compare("parameter", i, values[i], parameter_gradient[i].data());
}

}  // namespace equinorm::nn
