// What norms with a residual behind them promise, asked of a call of any of them: equal bits whatever the threads, the
// instruction set, the memory and the way backward is asked; what stays apart; gradients. For tests alone.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/activation.hpp"
#include "core/elements.hpp"
#include "core/fingerprint.hpp"
#include "core/norm_testing.hpp"
#include "equinorm/execution.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/status.hpp"
#include "equinorm/tensor.hpp"

namespace equinorm::testing_tools {

/// Where all that a call takes and gives lies: what is written may be what is read.
template <class T>
struct Places {
  const T *x, *residual, *dy;
  T *y, *dx, *dresidual;
  Affine<T> affine;
  Statistics statistics;
  AffineGradients<T> gradients;
};

/// A call of a norm with a residual behind it. Call gives it options, set_of(element), the set of elements that share
/// statistics, forward_at(places, execution), and backward_at, for which y and residual are as said here.
template <class Call, class T>
struct CallOverResidual : Tensors<T> {
  using Tensors<T>::Tensors, Tensors<T>::view;

  Places<T> places() {
    return {this->x.data(),         this->residual.data(), this->dy.data(),    this->y.data(),   this->dx.data(),
            this->dresidual.data(), this->affine(),        this->statistics(), this->gradients()};
  }
  Status forward(const Execution& execution = {}) { return call().forward_at(places(), execution); }
  Status backward(const Execution& execution = {}) { return call().backward_at(places(), execution); }
  Status run(const Execution& execution = {}) {
    const Status status = forward(execution);
    return status.ok() ? backward(execution) : status;
  }
  Status forward_to(T* for_y, const Execution& execution = {}) {
    Places<T> p = places();
    p.y = for_y;
    return call().forward_at(p, execution);
  }
  Status backward_to(T* for_dx, T* for_dresidual, const Execution& execution = {}) {
    Places<T> p = places();
    p.dx = for_dx;
    p.dresidual = for_dresidual;
    return call().backward_at(p, execution);
  }

  TensorView<const T> added(const Places<T>& p) const { return view(add ? p.residual : nullptr); }
  TensorView<const T> y_for_backward(const Places<T>& p) const {
    return this->template view<const T>(add && gives_y ? p.y : nullptr);
  }
  TensorView<const T> residual_for_backward(const Places<T>& p) const {
    return view(add && gives_residual ? p.residual : nullptr);
  }
  TensorView<T> wanted(const Places<T>& p) const { return view(add && wants_dresidual ? p.dresidual : nullptr); }

  bool add = false;                                                    ///< a residual
  bool gives_y = true, gives_residual = true, wants_dresidual = true;  ///< backward's, if there is one

 private:
  Call& call() { return static_cast<Call&>(*this); }
};

/// Forward and backward on every instruction set and number of threads, to the same bits; inference too, where a norm
/// has one. Most numbers of threads on the best instruction set alone, for the time it takes.
template <class Call>
void expect_the_same_bits(const Call& start, std::initializer_list<int> threads, SeenBits& seen,
                          const std::string& what) {
  std::optional<std::uint64_t> first;
  for (const std::string& target : simd_targets()) {
    ASSERT_TRUE(set_simd_target(target).ok());
    for (const int count : threads) {
      if (count != 1 && count != 3 && target != simd_targets().front()) continue;
      Call call = start;
      const Status status = call.run({count});
      ASSERT_TRUE(status.ok()) << what << ": " << status.message();
      std::uint64_t bits = call.fingerprint();
      if constexpr (requires { call.inference_at(call.places(), {}); }) {
        ASSERT_TRUE(call.inference_at(call.places(), {count}).ok()) << what;
        bits = hash_of(std::vector{bits}, call.y);
      }
      if (!first) first = seen.add(call.fingerprint_of_inputs(), bits);
      ASSERT_EQ(bits, *first) << what << ", " << target << ", threads " << count;
    }
  }
  ASSERT_TRUE(set_simd_target("").ok());
}

/// Outputs over inputs, in every way that the headers allow, hold what they hold apart.
template <class Call>
void expect_the_same_in_place(const Call& start, const std::string& what) {
  using Tensor = decltype(start.x) Call::*;
  Call apart = start;
  ASSERT_TRUE(apart.run().ok()) << what;
  for (const Tensor place : {Tensor{&Call::x}, Tensor{&Call::residual}}) {
    if (place == Tensor{&Call::residual} && !apart.add) continue;
    Call inside = apart;
    ASSERT_TRUE(inside.forward_to((inside.*place).data()).ok()) << what;
    ASSERT_TRUE(inside.*place == apart.y) << what << ", y";
    ASSERT_EQ(hash_of(inside.mean, inside.variance), hash_of(apart.mean, apart.variance)) << what;
    if constexpr (requires { apart.inference_at(apart.places(), {}); }) {
      Call outside = inside = apart;
      auto places = inside.places();
      places.y = (inside.*place).data();
      ASSERT_TRUE(outside.inference_at(outside.places(), {}).ok() && inside.inference_at(places, {}).ok()) << what;
      ASSERT_TRUE(inside.*place == outside.y) << what << ", y of inference";
    }
  }
  for (const bool gives_y : {true, false}) {
    if (!gives_y && (!apart.add || apart.x.size() > kSmall)) continue;  // the latter for the time it takes
    for (const Tensor dx : {Tensor{&Call::dx}, Tensor{&Call::x}, Tensor{&Call::dy}, Tensor{&Call::residual}}) {
      for (const Tensor dresidual : {Tensor{&Call::dresidual}, Tensor{&Call::dy}, Tensor{&Call::residual}}) {
        if (dx == dresidual) continue;
        if (!apart.add && (dx == Tensor{&Call::residual} || dresidual != Tensor{&Call::dresidual})) continue;
        Call inside = apart;
        inside.gives_y = gives_y;
        ASSERT_TRUE(inside.backward_to((inside.*dx).data(), (inside.*dresidual).data()).ok()) << what;
        ASSERT_TRUE(inside.*dx == apart.dx) << what << ", dx";
        ASSERT_TRUE(inside.*dresidual == apart.dresidual) << what << ", dresidual";
        ASSERT_EQ(hash_of(inside.dgamma, inside.dbeta), hash_of(apart.dgamma, apart.dbeta)) << what;
      }
    }
  }
}

/// Elements at any address, between others that are nobody's.
template <class V>
class Fenced {
 public:
  /// `behind` = 0: they end where their memory ends, and AddressSanitizer sees what is read beyond.
  Fenced(const std::vector<V>& values, std::size_t before, std::size_t behind, double fence)
      : before_(before), behind_(behind), fence_(to_element<V>(fence)), memory_(before + values.size() + behind) {
    std::fill(memory_.begin(), memory_.end(), fence_);
    std::copy(values.begin(), values.end(), memory_.begin() + static_cast<std::ptrdiff_t>(before));
  }
  V* data() { return memory_.data() + before_; }
  std::vector<V> copy() const { return {memory_.begin() + at(before_), memory_.end() - at(behind_)}; }
  /// Of bits: NaN equals itself.
  bool stands() const {
    const auto is_fence = [this](auto from, auto to) {
      const std::vector<V> found(from, to);
      return hash_of(found) == hash_of(std::vector<V>(found.size(), fence_));
    };
    return is_fence(memory_.begin(), memory_.begin() + at(before_)) &&
           is_fence(memory_.end() - at(behind_), memory_.end());
  }

 private:
  static std::ptrdiff_t at(std::size_t i) { return static_cast<std::ptrdiff_t>(i); }
  std::size_t before_, behind_;
  V fence_;
  std::vector<V> memory_;
};

/// Neither alignment nor what lies around the tensors and parameters changes a bit, and nothing is written there.
/// Around what is read lies NaN, which would spread.
template <class Call>
void expect_nothing_beyond(const Call& start, const std::string& what) {
  Call want = start;
  ASSERT_TRUE(want.run().ok()) << what;
  for (const auto& [before, behind] : {std::pair{1U, 0U}, std::pair{3U, 19U}}) {
    const auto read = [&, before = before, behind = behind](const auto& v) {
      return Fenced(v, before, behind, std::numeric_limits<double>::quiet_NaN());
    };
    const auto write = [&, before = before](const auto& v) { return Fenced(v, before, 19, -77); };
    auto x = read(start.x), residual = read(start.residual), dy = read(start.dy);
    auto y = write(start.y), dx = write(start.dx), dresidual = write(start.dresidual);
    auto gamma = read(start.gamma), beta = read(start.beta), dgamma = write(start.dgamma), dbeta = write(start.dbeta);
    auto mean = write(start.mean), variance = write(start.variance);
    const auto expect_fences = [&] {
      const auto stand = [](const auto&... fenced) { return (fenced.stands() && ...); };
      ASSERT_TRUE(stand(x, residual, dy, y, dx, dresidual)) << what << ", tensors";
      ASSERT_TRUE(stand(gamma, beta, dgamma, dbeta, mean, variance)) << what << ", parameters and statistics";
    };
    Call call = start;
    auto places = call.places();
    places = {x.data(),
              residual.data(),
              dy.data(),
              y.data(),
              dx.data(),
              dresidual.data(),
              {gamma.data(), beta.data()},
              {mean.data(), variance.data()},
              {dgamma.data(), dbeta.data()}};
    ASSERT_TRUE(call.forward_at(places, {}).ok()) << what;
    ASSERT_TRUE(call.backward_at(places, {}).ok()) << what;
    expect_fences();
    call.x = x.copy(), call.residual = residual.copy(), call.dy = dy.copy();
    call.gamma = gamma.copy(), call.beta = beta.copy();
    ASSERT_EQ(call.fingerprint_of_inputs(), start.fingerprint_of_inputs()) << what << ", what is read";
    call.y = y.copy(), call.dx = dx.copy(), call.dresidual = dresidual.copy();
    call.dgamma = dgamma.copy(), call.dbeta = dbeta.copy(), call.mean = mean.copy(), call.variance = variance.copy();
    ASSERT_EQ(call.fingerprint(), want.fingerprint()) << what << ", " << before << " elements behind";
    if constexpr (requires { call.inference_at(places, {}); }) {
      ASSERT_TRUE(call.inference_at(places, {}).ok() && want.inference_at(want.places(), {}).ok()) << what;
      ASSERT_TRUE(y.copy() == want.y) << what << ", inference";
      ASSERT_TRUE(want.forward().ok());
    }
    expect_fences();
  }
}

/// One value that is not finite in x or dy spoils the set it belongs to, and of the parameters' gradients those of that
/// set's channels; all other bits are as without it.
template <class Call>
void expect_poison_to_stay(const Call& start, const std::string& of) {
  using T = std::remove_cvref_t<decltype(start.x[0])>;
  using Tensor = decltype(start.x) Call::*;
  Call clean = start;
  ASSERT_TRUE(clean.run().ok()) << of;
  const std::size_t at = start.x.size() / 2, set = start.set_of(at);
  std::vector<bool> channel_is_in_set(start.channels);
  for (std::size_t i = 0; i < start.x.size(); ++i) {
    if (start.set_of(i) == set) channel_is_in_set[start.channel_of(i)] = true;
  }
  const auto spoiled = [](auto v) { return !std::isfinite(to_double(v)); };
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    for (const Tensor tensor : {Tensor{&Call::x}, Tensor{&Call::dy}}) {
      const bool in_x = tensor == Tensor{&Call::x};
      if (!in_x && start.options.activation != Activation::none) continue;  // whose slope may be 0
      const std::string what = of + ", " + std::to_string(bad) + (in_x ? " in x" : " in dy");
      Call call = start;
      (call.*tensor)[at] = to_element<T>(bad);
      const Status status = call.run();
      ASSERT_TRUE(status.ok()) << what << ": " << status.message();
      for (std::size_t i = 0; i < call.x.size(); ++i) {
        const bool hit = call.set_of(i) == set;
        ASSERT_TRUE(hit && in_x ? spoiled(call.y[i]) : call.y[i] == clean.y[i]) << what << ", y " << i;
        ASSERT_TRUE(hit ? spoiled(call.dx[i]) : call.dx[i] == clean.dx[i]) << what << ", dx " << i;
        ASSERT_TRUE(hit || call.dresidual[i] == clean.dresidual[i]) << what << ", dresidual " << i;
      }
      for (std::size_t c = 0; c < call.channels; ++c) {
        if (in_x ? channel_is_in_set[c] : c == call.channel_of(at)) {
          ASSERT_TRUE(spoiled(call.dgamma[c])) << what << ", dgamma " << c;
          ASSERT_TRUE(in_x || spoiled(call.dbeta[c])) << what << ", dbeta " << c;
        } else {
          ASSERT_EQ(call.dgamma[c], clean.dgamma[c]) << what << ", dgamma " << c;
          ASSERT_EQ(call.dbeta[c], clean.dbeta[c]) << what << ", dbeta " << c;
        }
      }
      for (std::size_t k = 0; k < call.mean.size(); ++k) {
        const bool hit = in_x && k == set;
        ASSERT_TRUE(hit ? spoiled(call.variance[k]) : call.variance[k] == clean.variance[k]) << what << ", σ² " << k;
        ASSERT_TRUE(hit ? spoiled(call.mean[k]) : call.mean[k] == clean.mean[k]) << what << ", μ " << k;
      }
    }
  }
}

/// Of every set Σdx = 0 and Σ dx·x̂ = Σh·x̂·ε/(σ² + ε)/√(σ² + ε), h = γ·dy: what the norm takes out of its input no
/// gradient brings back. `call`: done, without an activation. The sums may be off by what their terms are: 8 roundings
/// of the parts of dx and one of T (ops/batch_norm/README.md), and what statistics bring: x̂ is off by r.mean roundings
/// and r.variance/2 of itself, the same in all terms, so that Σx̂ is not quite 0 either. In double sums have n
/// roundings, and the saved mean one, relative to itself.
template <class Call>
void expect_gradient_to_be_orthogonal(const Call& call, const std::string& what) {
  using T = std::remove_cvref_t<decltype(call.x[0])>;
  constexpr double u = kUnit<Parameter<T>>;
  const std::size_t sets = call.mean.size();
  const double n = static_cast<double>(call.x.size()) / static_cast<double>(sets), epsilon = call.options.epsilon;
  const auto roundings = StatisticsRoundings::of<T>(n);
  const auto h = [&](std::size_t i) { return to_double(call.gamma[call.channel_of(i)]) * to_double(call.dy[i]); };
  const auto inverse = [&](std::size_t k) { return 1 / std::sqrt(call.variance[k] + epsilon); };
  const auto x_hat = [&](std::size_t i, std::size_t k) { return (to_double(call.x[i]) - call.mean[k]) * inverse(k); };
  std::vector<double> magnitude(sets), dot(sets), abs_dot(sets);  // Σ|h|, Σh·x̂, Σ|h·x̂|
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t k = call.set_of(i);
    magnitude[k] += std::abs(h(i));
    dot[k] += h(i) * x_hat(i, k);
    abs_dot[k] += std::abs(h(i) * x_hat(i, k));
  }
  std::vector<double> sum(sets), product(sets), sum_error(sets), product_error(sets);
  for (std::size_t i = 0; i < call.x.size(); ++i) {
    const std::size_t k = call.set_of(i);
    const double dx = to_double(call.dx[i]), x = std::abs(x_hat(i, k));
    const double of_mean = roundings.mean + std::abs(call.mean[k]) * inverse(k);
    const double parts = std::abs(h(i)) + magnitude[k] / n + (x + 1) * (abs_dot[k] + magnitude[k]) / n;
    const double statistics = (of_mean + roundings.variance * x) * (abs_dot[k] + magnitude[k]) / n;
    const double error =
        inverse(k) * u * (8 * roundings_of_sum<T>(n) * parts + statistics) + kUnit<T> * std::abs(dx) + kTiny<T>;
    sum[k] += dx;
    product[k] += dx * x_hat(i, k);
    sum_error[k] += error;
    product_error[k] += error * (x + 1);
  }
  for (std::size_t k = 0; k < sets; ++k) {
    const double rest = dot[k] * inverse(k) * epsilon / (call.variance[k] + epsilon);
    ASSERT_NEAR(sum[k], 0, sum_error[k]) << what << ", set " << k;
    ASSERT_NEAR(product[k], rest, product_error[k]) << what << ", set " << k;
    ASSERT_LT(sum_error[k], inverse(k) * magnitude[k] / 4) << what << ": the bound says nothing";
  }
}

/// dx, dγ, dβ and dr of a call in double agree with central differences of reference(x, γ, β, residual), which gives z:
/// the closed form of the gradient is checked, not just copied. With steps h and h/2 they are off by a·h² + O(h⁴) and a
/// quarter of it, so what remains in the second is a third of what they differ by; and by the roundings of two losses,
/// of which each has a few a term. No gradient starts where z is so near 0 that a step might cross relu's kink.
template <class Call, class Reference>
void expect_finite_differences_to_agree(Call call, const Reference& reference, const std::string& what) {
  constexpr double kStep = 0x1p-13, kKink = 0x1p-8;
  const Activation activation = call.options.activation;
  const std::vector<double> z = reference(call.x, call.gamma, call.beta, call.residual);
  for (std::size_t i = 0; i < z.size(); ++i) {
    if (std::abs(z[i]) < kKink) call.dy[i] = 0;
  }
  ASSERT_TRUE(call.run().ok()) << what;
  using Arguments = std::array<std::vector<double>, 4>;
  double magnitude = 0;  // of the terms of a loss
  const auto loss = [&](const Arguments& a) {
    const std::vector<double> moved = reference(a[0], a[1], a[2], a[3]);
    double sum = 0;
    magnitude = 0;
    for (std::size_t i = 0; i < moved.size(); ++i) {
      sum += activate(activation, moved[i]) * call.dy[i];
      magnitude += (std::abs(moved[i]) + 1) * std::abs(call.dy[i]);
    }
    return sum;
  };
  const auto expect = [&](std::size_t which, const std::vector<double>& gradient, const char* name) {
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const auto difference = [&](double h) {
        Arguments up = {call.x, call.gamma, call.beta, call.residual}, down = up;
        up[which][i] += h;
        down[which][i] -= h;
        return (loss(up) - loss(down)) / (2 * h);
      };
      const double coarse = difference(kStep), fine = difference(kStep / 2);
      const double rounding = static_cast<double>(z.size() + 16) * 0x1p-53 * magnitude / (kStep / 2);
      const double bound = std::abs(coarse - fine) + rounding;
      ASSERT_NEAR(gradient[i], fine, bound) << what << ", " << name << " " << i;
      ASSERT_LT(bound, 1e-5) << what << ", " << name << ": the bound says nothing";
    }
  };
  expect(0, call.dx, "dx");
  expect(1, call.dgamma, "dgamma");
  expect(2, call.dbeta, "dbeta");
  if (call.add) expect(3, call.dresidual, "dresidual");
}

/// Whether outputs go around the caches, which they do from 8 MB on if all of them begin lines, changes no bit: of dx
/// and dresidual, and of dx that has held g before.
template <class Call>
void expect_the_same_around_the_caches(Call call, const std::string& what) {
  using T = std::remove_cvref_t<decltype(call.x[0])>;
  ASSERT_GE(call.x.size() * sizeof(T), std::size_t{8} << 20) << what;
  for (const auto& [activation, add] : {std::pair{Activation::relu, true}, std::pair{Activation::silu, false}}) {
    call.options.activation = activation;
    call.add = add;
    std::optional<std::uint64_t> first;
    for (const std::string& target : simd_targets()) {
      ASSERT_TRUE(set_simd_target(target).ok());
      for (const auto& [of_a_line, both] : {std::pair{false, false}, std::pair{true, false}, std::pair{true, true}}) {
        if (of_a_line && !both && !add) continue;  // dresidual is not there
        const std::size_t count = call.x.size();
        Room<T> y(count, of_a_line), dx(count, of_a_line), dresidual(count, both);
        ASSERT_TRUE(call.forward_to(y.data()).ok()) << what;
        call.y = y.copy();
        ASSERT_TRUE(call.backward_to(dx.data(), dresidual.data()).ok()) << what;
        call.dx = dx.copy();
        if (add) call.dresidual = dresidual.copy();
        if (!first) first = call.fingerprint();
        ASSERT_EQ(call.fingerprint(), *first)
            << what << ", " << target << (both ? ", around" : "") << (add ? ", add" : "");
      }
    }
  }
  ASSERT_TRUE(set_simd_target("").ok());
}

/// What backward gives over a residual, it must give in every way that it may be asked: of y or the residual or both,
/// with dresidual or without. Large tensors: of relu alone, for the time it takes.
template <class Call>
void expect_backward_is_the_same_however_asked(Call done, const std::string& of) {
  done.add = true;
  for (const Activation activation : kActivations) {
    if (done.x.size() > kSmall && activation != Activation::relu) continue;
    done.options.activation = activation;
    ASSERT_TRUE(done.run().ok()) << of;
    const std::string what = of + ", activation " + std::to_string(static_cast<int>(activation));
    for (const bool y : {false, true}) {
      for (const bool residual : {false, true}) {
        if (!residual && !(y && has_slope_of_sign(activation))) continue;
        for (const bool dresidual : {false, true}) {
          Call call = done;
          call.gives_y = y;
          call.gives_residual = residual;
          call.wants_dresidual = dresidual;
          call.dx.assign(call.x.size(), call.x[0]);
          if (dresidual) call.dresidual = call.dx;
          const Status status = call.backward();
          ASSERT_TRUE(status.ok()) << what << ": " << status.message();
          ASSERT_EQ(call.fingerprint(), done.fingerprint())
              << what << (y ? ", y" : "") << (residual ? ", residual" : "") << (dresidual ? "" : ", no dresidual");
        }
      }
    }
  }
}

/// The refusals of backward over a residual of which too little is given, and what it cannot refuse.
template <class Call>
void expect_backward_asks_for_y_or_residual(Call call, const std::string& op) {
  call.add = true;
  const auto expect = [&](const std::string& message) {
    const Status status = call.backward();
    EXPECT_EQ(status.code(), message.empty() ? StatusCode::ok : StatusCode::invalid_argument) << status.message();
    EXPECT_EQ(status.message().rfind(message.empty() ? "" : "[" + op + "] " + message, 0), 0U) << status.message();
  };
  for (const Activation activation : kActivations) {
    call.options.activation = activation;
    ASSERT_TRUE(call.forward().ok());
    const bool none = activation == Activation::none, by_sign = has_slope_of_sign(activation);
    call.gives_y = call.gives_residual = false;
    call.wants_dresidual = true;
    const auto gradient = call.dx;
    expect(none ? "" : by_sign ? "y and residual are null; expected" : "residual is null; expected");
    EXPECT_TRUE(none || call.dx == gradient) << "nothing is written";
    call.wants_dresidual = false;
    expect("");  // of forward without a residual
    for (const bool wants_dresidual : {false, true}) {
      call.wants_dresidual = wants_dresidual;
      call.gives_y = true;
      expect(none || by_sign ? "" : "residual is null; expected");
      call.gives_y = false;
      call.gives_residual = true;
      expect("");
      call.gives_residual = false;
    }
  }
}

}  // namespace equinorm::testing_tools
