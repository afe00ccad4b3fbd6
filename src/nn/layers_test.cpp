// Every layer against its formula in double, forward and by finite differences.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "equinorm/status.hpp"
#include "nn/layer_check.hpp"
#include "nn/layers/activation.hpp"
#include "nn/layers/batch_norm.hpp"
#include "nn/layers/conv2d.hpp"
#include "nn/layers/dropout.hpp"
#include "nn/layers/group_norm.hpp"
#include "nn/layers/linear.hpp"
#include "nn/layers/pooling.hpp"
#include "nn/layers/rms_norm.hpp"
#include "nn/layers/wiring.hpp"
#include "nn/loss.hpp"

namespace equinorm::nn {
namespace {

constexpr double kUlp = 0x1p-24;

TEST(Layers, Linear) {
  for (const bool bias : {true, false}) {
    for (const onednn::LinearShape s : {onednn::LinearShape{5, 7, 3}, {1, 1, 2}, {4, 33, 17}}) {
      Linear layer("fc", s, {.bias = bias});
      const Formula formula = [&](const auto& in, const auto& p) {
        Values y(s.rows * s.out_features);
        for (std::size_t n = 0; n < s.rows; ++n) {
          for (std::size_t o = 0; o < s.out_features; ++o) {
            double sum = bias ? p[1][o] : 0;
            for (std::size_t i = 0; i < s.in_features; ++i) {
              sum += in[0][n * s.in_features + i] * p[0][o * s.in_features + i];
            }
            y[n * s.out_features + o] = sum;
          }
        }
        return y;
      };
      // As many roundings as terms, each of a sum a few times the largest result.
      run({layer, {{s.rows, s.in_features}}, {s.rows, s.out_features}, formula, 4 * 34 * kUlp});
    }
  }
}

TEST(Layers, Convolution) {
  const onednn::ConvolutionShape shapes[] = {
      {2, 6, 5, 1, 16, 3, 1, 1},   // a first layer: one channel
      {1, 5, 7, 3, 4, 3, 1, 1},    // channels that fill no vector
      {2, 7, 7, 16, 8, 3, 2, 1},   // stride, odd size
      {1, 6, 6, 16, 16, 1, 2, 0},  // a shortcut: 1×1, stride 2
      {1, 4, 4, 2, 3, 1, 1, 0},
  };
  for (const bool bias : {true, false}) {
    for (const auto& s : shapes) {
      Conv2d layer("conv", s, {.bias = bias});
      const Formula formula = [&](const auto& in, const auto& p) {
        Values y;
        for (std::size_t n = 0; n < s.batch; ++n) {
          for (std::size_t i = 0; i < s.out_height(); ++i) {
            for (std::size_t j = 0; j < s.out_width(); ++j) {
              for (std::size_t o = 0; o < s.out_channels; ++o) {
                double sum = bias ? p[1][o] : 0;
                for (std::size_t a = 0; a < s.kernel; ++a) {
                  for (std::size_t b = 0; b < s.kernel; ++b) {
                    const std::size_t row = i * s.stride + a, column = j * s.stride + b;  // each with the padding added
                    if (row < s.padding || column < s.padding || row - s.padding >= s.height ||
                        column - s.padding >= s.width) {
                      continue;
                    }
                    for (std::size_t c = 0; c < s.in_channels; ++c) {
                      const std::size_t at = (n * s.height + row - s.padding) * s.width + column - s.padding;
                      sum +=
                          in[0][at * s.in_channels + c] * p[0][((o * s.in_channels + c) * s.kernel + a) * s.kernel + b];
                    }
                  }
                }
                y.push_back(sum);
              }
            }
          }
        }
        return y;
      };
      run({layer,
           {{s.batch, s.height, s.width, s.in_channels}},
           {s.batch, s.out_height(), s.out_width(), s.out_channels},
           formula,
           4 * 9 * 16 * kUlp});
    }
  }
}

/// γ·x̂ + β (+ r) through an activation, x̂ by the statistics of the set that `set_of(index in memory)` names.
template <class SetOf>
Formula normalization(std::size_t sets, SetOf set_of, std::size_t channels, double epsilon, bool centred,
                      Activation activation) {
  return [=](const std::vector<Values>& in, const std::vector<Values>& p) {
    Values y(in[0].size()), count(sets), mean(sets), square(sets);
    for (std::size_t at = 0; at < y.size(); ++at) {
      count[set_of(at)] += 1;
      if (centred) mean[set_of(at)] += in[0][at];
    }
    for (std::size_t set = 0; set < sets; ++set) mean[set] /= count[set];
    for (std::size_t at = 0; at < y.size(); ++at) square[set_of(at)] += std::pow(in[0][at] - mean[set_of(at)], 2);
    for (std::size_t at = 0; at < y.size(); ++at) {
      const std::size_t set = set_of(at), c = at % channels;
      y[at] = p[0][c] * (in[0][at] - mean[set]) / std::sqrt(square[set] / count[set] + epsilon);
      if (p.size() == 2) y[at] += p[1][c];
      if (in.size() == 2) y[at] += in[1][at];
      if (activation == Activation::relu) y[at] = std::max(y[at], 0.0);
    }
    return y;
  };
}

TEST(Layers, Norms) {
  constexpr double epsilon = 1e-3;
  // A handful of roundings in y and dx; sums of 24 values in double, rounded once.
  constexpr double tolerance = 32 * kUlp;
  NormSpec batch;
  batch.epsilon = epsilon;
  for (const Activation activation : {Activation::none, Activation::relu}) {
    for (const Shape& shape : {Shape{3, 4, 2, 6}, Shape{8, 6}}) {
      const std::size_t channels = 6, sample = shape.elements() / shape[0];
      for (const bool residual : {false, true}) {
        const std::vector<Shape> in = residual ? std::vector{shape, shape} : std::vector{shape};
        BatchNorm over_batch("bn", shape, batch, activation, residual, true);
        const auto channel = [=](std::size_t at) { return at % channels; };
        run({over_batch, in, shape, normalization(channels, channel, channels, epsilon, true, activation), tolerance});
        for (const std::size_t groups :
             std::initializer_list<std::size_t>{1, 2, 3, 6}) {  // 1: layer norm; 6: instance norm
          if (sample == groups) continue;
          GroupNorm over_groups("gn", shape, epsilon, groups, activation, residual, true);
          const auto group = [=](std::size_t at) { return at / sample * groups + at % channels * groups / channels; };
          run({over_groups, in, shape, normalization(shape[0] * groups, group, channels, epsilon, true, activation),
               tolerance});
        }
      }
      RmsNorm over_channels("rms", shape, epsilon, activation, true);
      const auto position = [=](std::size_t at) { return at / channels; };
      run({over_channels,
           {shape},
           shape,
           normalization(shape.elements() / channels, position, channels, epsilon, false, activation),
           tolerance});
    }
  }
}

TEST(Layers, Activations) {
  const std::pair<Nonlinearity, double (*)(double)> cases[] = {
      {Nonlinearity::relu, [](double x) { return std::max(x, 0.0); }},
      {Nonlinearity::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {Nonlinearity::tanh, [](double x) { return std::tanh(x); }},
  };
  for (const auto& [kind, function] : cases) {
    ActivationLayer layer(std::string(name_of(kind)), kind);
    const Formula formula = [&f = function](const auto& in, const auto&) {
      Values y;
      for (const double x : in[0]) y.push_back(f(x));
      return y;
    };
    run({layer, {{300, 7}}, {300, 7}, formula, 8 * kUlp});
  }
}

TEST(Layers, ActivationsAtTheEndsOfTheNumberLine) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> xs{-inf,    -1e30F, -100,   -20,     -1e-3F,
                              -1e-30F, 0,      1e-30F, 0.1499F, 0.1501F,
                              20,      100,    1e30F,  inf,     std::numeric_limits<float>::quiet_NaN()};
  for (const auto kind : {Nonlinearity::relu, Nonlinearity::sigmoid, Nonlinearity::tanh}) {
    ActivationLayer layer(std::string(name_of(kind)), kind);
    std::vector<float> x = xs, y(xs.size());
    const Shape shape{xs.size()};
    layer.bind({{{shape, x.data(), nullptr}}, {{shape, y.data(), nullptr}}});
    layer.forward({});
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const auto v = static_cast<double>(xs[i]);
      const double expected = kind == Nonlinearity::relu      ? (std::isnan(v) ? v : std::max(v, 0.0))
                              : kind == Nonlinearity::sigmoid ? 1 / (1 + std::exp(-v))
                                                              : std::tanh(v);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(y[i])) << layer.name() << "(" << xs[i] << ")";
      } else if (std::isinf(expected)) {
        EXPECT_EQ(y[i], xs[i]);
      } else {
        // Relative to the value, down to e^−87, where the exponential is clamped.
        EXPECT_NEAR(static_cast<double>(y[i]), expected, std::abs(expected) * 8 * kUlp + 2e-38)
            << layer.name() << "(" << xs[i] << ")";
      }
    }
  }
}

/// The mean or the maximum over windows.
Formula pooling(const Shape& in, std::size_t height, std::size_t width, bool maximum) {
  return [=](const auto& inputs, const auto&) {
    Values y;
    for (std::size_t n = 0; n < in[0]; ++n) {
      for (std::size_t i = 0; i + height <= in[1]; i += height) {
        for (std::size_t j = 0; j + width <= in[2]; j += width) {
          for (std::size_t c = 0; c < in[3]; ++c) {
            double best = -1e300, sum = 0;
            for (std::size_t a = 0; a < height; ++a) {
              for (std::size_t b = 0; b < width; ++b) {
                const double x = inputs[0][((n * in[1] + i + a) * in[2] + j + b) * in[3] + c];
                best = std::max(best, x);
                sum += x;
              }
            }
            y.push_back(maximum ? best : sum / static_cast<double>(height * width));
          }
        }
      }
    }
    return y;
  };
}

TEST(Layers, Pooling) {
  for (const Shape& in : {Shape{2, 6, 4, 5}, Shape{1, 7, 5, 16}, Shape{3, 2, 3, 1}}) {  // the last two leave pixels out
    for (const std::size_t window : {std::size_t{1}, std::size_t{2}, std::size_t{3}}) {
      if (in[1] < window || in[2] < window) continue;
      const Shape out{in[0], in[1] / window, in[2] / window, in[3]};
      MaxPool maximum("max", out, window, true);
      run({maximum, {in}, out, pooling(in, window, window, true), kUlp});
      AveragePool average("average", window);
      run({average, {in}, out, pooling(in, window, window, false), 16 * kUlp});
    }
    GlobalAveragePool global("global");
    run({global, {in}, {in[0], in[3]}, pooling(in, in[1], in[2], false), 64 * kUlp});
  }
}

TEST(Layers, AMaximumOverANaNIsNaN) {
  for (const std::size_t window : {std::size_t{2}, std::size_t{3}}) {
    const Shape in{1, window, window, 1}, out{1, 1, 1, 1};
    for (std::size_t bad = 0; bad < window * window; ++bad) {
      MaxPool layer("max", out, window, true);
      std::vector<float> x(window * window, 1.0F);
      x[bad] = std::numeric_limits<float>::quiet_NaN();
      float y = 0;
      const Arena saved(1);
      layer.bind({{{in, x.data(), nullptr}}, {{out, &y, nullptr}}, {}, saved.data()});
      layer.forward({.training = true});
      EXPECT_TRUE(std::isnan(y)) << bad;
      EXPECT_EQ(static_cast<std::size_t>(*saved.data()), bad);
    }
  }
}

TEST(Layers, Wiring) {
  const Shape shape{2, 3, 2, 4};
  Flatten flatten("flatten");
  run({flatten, {shape}, {2, 24}, [](const auto& in, const auto&) { return in[0]; }, 0});
  Add add("add");
  const Formula sum = [](const auto& in, const auto&) {
    Values y;
    for (std::size_t i = 0; i < in[0].size(); ++i) y.push_back(in[0][i] + in[1][i]);
    return y;
  };
  run({add, {shape, shape}, shape, sum, kUlp});

  Fork fork("fork");  // two outputs: by hand
  std::vector<float> x(48, 1.0F), first(48, 2.0F), second(48, 3.0F);
  fork.bind({{{shape, x.data(), first.data()}}, {{shape, x.data(), first.data()}, {shape, x.data(), second.data()}}});
  fork.backward({});
  EXPECT_EQ(first, std::vector<float>(48, 5.0F));
}

TEST(Layers, Dropout) {
  for (const double rate : {0.25, 0.5, 0.9}) {
    Dropout layer("drop", rate, true);
    const std::size_t n = 100000;
    const auto total = static_cast<double>(n);
    std::vector<float> x(n, 1.0F), y(n), dy(n, 2.0F);
    layer.bind({{{{n}, x.data(), dy.data()}}, {{{n}, y.data(), dy.data()}}});
    const Call call{.training = true, .seed = 5, .step = 9};
    layer.forward(call);
    layer.backward(call);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT_EQ(dy[i], 2 * y[i]);  // the same mask and factor
      EXPECT_TRUE(y[i] == 0 || y[i] == static_cast<float>(1 / (1 - rate)));
      if (y[i] != 0) ++kept;
    }
    // Six deviations of a binomial.
    EXPECT_NEAR(static_cast<double>(kept), total * (1 - rate), 6 * std::sqrt(total * rate * (1 - rate)));

    std::vector<float> again(n);
    layer.bind({{{{n}, x.data(), dy.data()}}, {{{n}, again.data(), dy.data()}}});
    layer.forward({.training = true, .seed = 5, .step = 9, .threads = 2});
    EXPECT_EQ(again, y);
    layer.forward({.training = true, .seed = 5, .step = 10});
    EXPECT_NE(again, y);
    layer.forward({.training = false});
    EXPECT_EQ(again, x);
  }
}

TEST(Loss, IsSoftmaxCrossEntropyWithItsGradient) {
  const std::size_t rows = 4, classes = 3;
  const std::vector<float> z{0.1F, 2, -1, 5, 5, 5, -3, 0, 1, 100, -100, 0};
  const std::vector<std::uint8_t> labels{1, 2, 0, 1};
  const auto loss = [&](const std::vector<double>& logits) {
    double sum = 0;
    for (std::size_t n = 0; n < rows; ++n) {
      double total = 0;
      for (std::size_t k = 0; k < classes; ++k) total += std::exp(logits[n * classes + k]);
      sum += std::log(total) - logits[n * classes + labels[n]];
    }
    return sum / static_cast<double>(rows);
  };
  std::vector<float> gradient(z.size());
  const Outcome outcome = softmax_cross_entropy(z.data(), labels.data(), rows, classes, gradient.data());
  std::vector<double> at(z.begin(), z.end());
  EXPECT_NEAR(outcome.loss, loss(at), 1e-12);
  EXPECT_EQ(outcome.correct, 1U);
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double h = 1e-5, before = at[i];
    at[i] = before + h;
    const double up = loss(at);
    at[i] = before - h;
    EXPECT_NEAR(static_cast<double>(gradient[i]), (up - loss(at)) / (2 * h), 1e-7);
    at[i] = before;
  }
}

TEST(Loss, SurvivesHugeLogitsAndReportsTheNonFinite) {
  const std::vector<std::uint8_t> label{0};
  const std::vector<float> huge{-3e38F, 3e38F};
  EXPECT_NEAR(softmax_cross_entropy(huge.data(), label.data(), 1, 2, nullptr).loss, 6e38, 1e33);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const std::vector<float> z{1, bad};
    EXPECT_FALSE(std::isfinite(softmax_cross_entropy(z.data(), label.data(), 1, 2, nullptr).loss));
  }
}

TEST(Loss, RefusesALabelThatIsNoClass) {
  const std::vector<float> z{1, 2};
  const std::vector<std::uint8_t> label{2};
  EXPECT_THROW(softmax_cross_entropy(z.data(), label.data(), 1, 2, nullptr), Error);
}

}  // namespace
}  // namespace equinorm::nn
