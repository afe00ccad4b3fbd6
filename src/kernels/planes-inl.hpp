// The segment family: kernels over the planes of some channels, coefficients per channel.
#if defined(EQUINORM_KERNELS_PLANES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_KERNELS_PLANES_INL_HPP
#undef EQUINORM_KERNELS_PLANES_INL_HPP
#else
#define EQUINORM_KERNELS_PLANES_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <utility>

#include "kernels/elementwise-inl.hpp"
#include "reduce/segments-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Vectors of a plane that a pass takes at a time (see NormalizeVectors): where little is done with each, so many at
/// first. (Measured: of planes of 56×56 eight took 1 to 6 % less than four; behind SiLU they would be much code.)
template <Gate kGate>
inline constexpr std::size_t kPlaneVectors = kGate == Gate::any ? 4 : 8;

/// For a plane that begins at `begin`: calls fetch(offset) for what is fetched of it, a vector, or of two bytes two,
/// group(offset, Constant<vectors>) behind those of kVectors vectors, then of four, and behind the others one(offset,
/// count), whole or not.
template <class T, std::size_t kVectors, class Fetch, class Group, class One>
HWY_INLINE void ForEachVector(std::size_t begin, std::size_t length, const Fetch& fetch, const Group& group,
                              const One& one) {
  constexpr std::size_t kLanes = hn::MaxLanes(Tag<T>()), kOfFetch = kByPairs<T> ? 2 : 1;
  std::size_t i = 0;
  const auto take = [&](auto vectors) EQUINORM_INLINE {
    for (; i + vectors * kLanes <= length; i += vectors * kLanes) {
      Unroll<vectors / kOfFetch>([&](auto k) EQUINORM_INLINE { fetch(begin + i + k * kOfFetch * kLanes); });
      group(begin + i, vectors);
    }
  };
  take(Constant<kVectors>());
  if constexpr (kVectors > 4) take(Constant<4>());
  for (; i < length; i += kLanes) {
    fetch(begin + i);
    one(begin + i, std::min(length - i, kLanes));
  }
}

/// Calls f(v, v, …), with n of them.
template <std::size_t n, class V, class F>
HWY_INLINE void WithCopies(const V& v, const F& f) {
  const auto call = [&]<std::size_t... i>(std::index_sequence<i...>) EQUINORM_INLINE {
    f((static_cast<void>(i), v)...);
  };
  call(std::make_index_sequence<n>());
}

/// Meanwhile the next planes are fetched, where `ahead` is not 0: memory would wait else for the statistics of these.
/// Of a residual, which no statistics have read, it is what comes next.
template <class T>
void NormalizePlanes(const Forward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients) {
  WithForward(tensors, [&](auto gate, auto residual) HWY_ATTR {
    using D = Tag<T>;
    const Forward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    const bool fetches = t.stream || gate == Gate::any || kByPairs<T>;  // else ahead is 0
    const auto [samples, stride, channels, spacing, length, cached] = block;
    for (std::size_t s = 0; s < samples; ++s) {
      for (std::size_t c = 0; c < channels; ++c) {
        const Normalizer<D> normalizer(PerChannel(), D(), k, c);
        ForEachVector<T, kPlaneVectors<gate>>(
            s * stride + c * spacing, length,
            [&](std::size_t at) EQUINORM_INLINE {
              if (!t.stream) ClaimLine(t.y + at + kClaimAhead<T>);
              if (!fetches) return;
              hwy::Prefetch(t.x + at + t.ahead);
              if constexpr (residual) FetchFar(t.residual + at + kFarAhead<T>);
            },
            [&](std::size_t at, auto vectors) EQUINORM_INLINE {
              WithCopies<vectors>(normalizer, [&](const auto&... n) EQUINORM_INLINE {
                NormalizeVectors<gate, residual>(D(), t, at, n...);
              });
            },
            [&](std::size_t at, std::size_t count)
                EQUINORM_INLINE { Normalize<gate, residual>(D(), t, at, count, normalizer); });
      }
    }
  });
}

template <class T>
void PlaneDotSums(const Backward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients, double* sum,
                  double* dot) {
  const auto accumulate = [&](auto gate, auto output, auto writes) HWY_ATTR {
    using D = Tag<T>;
    const Backward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    const auto gradient = [&](std::size_t at, std::size_t c, std::size_t count, auto difference) EQUINORM_INLINE {
      const auto g = GatedGradient<gate, output>(D(), t, at, count, difference, Normalizer<D>(PerChannel(), D(), k, c));
      if (writes || (gate == Gate::any && t.g != nullptr)) StoreCount<false>(g, D(), t.g + at, count);
      return g;
    };
    const auto fetch = [&](std::size_t at) EQUINORM_INLINE {
      FetchFar(t.x + at);
      FetchFar(t.dy + at);
      if constexpr (output) FetchFar(t.y + at);
    };
    PlaneDots(t.x, block, k.mean, k.unit, gradient, fetch, sum, dot);
  };
  WithSums(tensors, accumulate);
}

/// The next planes are fetched, where `ahead` is not 0, whether dx goes around the caches or not: two inputs are much to
/// wait for.
template <class T>
void GradientPlanes(const Backward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients) {
  WithBackward(tensors, [&](auto gate, auto output, auto residual) HWY_ATTR {
    using D = Tag<T>;
    const Backward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    const auto [samples, stride, channels, spacing, length, cached] = block;
    for (std::size_t s = 0; s < samples; ++s) {
      for (std::size_t c = 0; c < channels; ++c) {
        const Differentiator<D> differentiator(PerChannel(), D(), k, c);
        ForEachVector<T, kPlaneVectors<gate>>(
            s * stride + c * spacing, length,
            [&](std::size_t at) EQUINORM_INLINE {
              if (!t.stream) ClaimLine(t.dx + at + kClaimAhead<T>);
              if (t.ahead == 0) return;
              FetchFar(t.x + at + t.ahead);
              FetchFar(t.dy + at + t.ahead);
              if constexpr (output) FetchFar(t.y + at + t.ahead);
            },
            [&](std::size_t at, auto vectors) EQUINORM_INLINE {
              WithCopies<vectors>(differentiator, [&](const auto&... n) EQUINORM_INLINE {
                DifferentiateVectors<gate, output, residual>(D(), t, at, n...);
              });
            },
            [&](std::size_t at, std::size_t count)
                EQUINORM_INLINE { Differentiate<gate, output, residual>(D(), t, at, count, differentiator); });
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
