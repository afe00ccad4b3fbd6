#include "nn/layers/activation.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "nn/blocks.hpp"
#include "nn/vectorize.hpp"

namespace equinorm::nn {
namespace {

/// e^x for |x| ≤ 87 without a branch, so that loops over it vectorize: 2^k·e^r with k = round(x/ln 2), |r| ≤ ln(2)/2,
/// e^r by the Cephes polynomial (Moshier); relative error below 2 ulp.
inline float exponential(float x) {
  const float k = (x * 1.44269504F + 12582912.0F) - 12582912.0F;  // adding 1.5·2²³ rounds to an integer
  const float r = (x - k * 0.693359375F) + k * 2.12194440e-4F;    // ln 2 in two parts: the first product is exact
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = (p * r) * r + r + 1.0F;
  return p * std::bit_cast<float>((static_cast<std::int32_t>(k) + 127) << 23);
}

inline float clamp(float x, float limit) {
  return x < -limit ? -limit : (x > limit ? limit : x);  // NaN stays NaN
}

EQUINORM_VECTORIZE void relu(const float* x, float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] = x[i] < 0 ? 0.0F : x[i];
}
EQUINORM_VECTORIZE void relu_backward(const float* y, float* g, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) g[i] = y[i] > 0 ? g[i] : 0.0F;
}
EQUINORM_VECTORIZE void sigmoid(const float* x, float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const float value = x[i];
    // The conversion to an integer within needs a number.
    const float e = exponential(clamp(value == value ? -value : 0.0F, 87.0F));
    y[i] = value == value ? 1.0F / (1.0F + e) : value;
  }
}
EQUINORM_VECTORIZE void sigmoid_backward(const float* y, float* g, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) g[i] *= y[i] * (1.0F - y[i]);
}
EQUINORM_VECTORIZE void tanh(const float* x, float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const float value = x[i];
    const float a = clamp(value == value ? value : 0.0F, 10.0F);  // beyond 9.02 tanh rounds to ±1
    // Near 0, (e^2a − 1)/(e^2a + 1) cancels; the odd series to a⁷ is good to an ulp below 0.15.
    const float e = exponential(2.0F * a);
    const float s = a * a;
    const float series = a + a * s * (-0.333333333F + s * (0.133333333F - s * 0.0539682540F));
    const float large = 1.0F - 2.0F / (e + 1.0F);
    const float result = s < 0.0225F ? series : large;
    y[i] = value == value ? result : value;
  }
}
EQUINORM_VECTORIZE void tanh_backward(const float* y, float* g, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) g[i] *= 1.0F - y[i] * y[i];
}

struct Kernels {
  void (*forward)(const float* x, float* y, std::size_t n);
  void (*backward)(const float* y, float* gradient, std::size_t n);
};

Kernels kernels_of(Nonlinearity nonlinearity) {
  switch (nonlinearity) {
    case Nonlinearity::relu:
      return {relu, relu_backward};
    case Nonlinearity::sigmoid:
      return {sigmoid, sigmoid_backward};
    case Nonlinearity::tanh:
      return {tanh, tanh_backward};
  }
  return {};
}

}  // namespace

ActivationLayer::ActivationLayer(std::string name, Nonlinearity nonlinearity)
    : Layer(std::move(name), "activation"), nonlinearity_(nonlinearity) {
  plan_.placement = Placement::may_share;
  plan_.gradient_shares = 0;
  plan_.keeps_output = true;
}

void ActivationLayer::forward(const Call& call) {
  const auto kernel = kernels_of(nonlinearity_).forward;
  for_each_block(in().elements(), call.threads, [&](std::size_t begin, std::size_t count) {
    kernel(in().values + begin, out().values + begin, count);
  });
}

void ActivationLayer::backward(const Call& call) {
  const auto kernel = kernels_of(nonlinearity_).backward;
  for_each_block(in().elements(), call.threads, [&](std::size_t begin, std::size_t count) {
    kernel(out().values + begin, out().gradient + begin, count);
  });
}

}  // namespace equinorm::nn
