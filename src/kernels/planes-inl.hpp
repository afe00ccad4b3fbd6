// The segment family: kernels over the planes of some channels, coefficients per channel.
#if defined(EQUINORM_KERNELS_PLANES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_KERNELS_PLANES_INL_HPP
#undef EQUINORM_KERNELS_PLANES_INL_HPP
#else
#define EQUINORM_KERNELS_PLANES_INL_HPP
#endif

#include "kernels/elementwise-inl.hpp"
#include "reduce/segments-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Calls body(vectors, offset, count) for the vectors of a plane that begins at `begin`: one, whole or not, or where
/// results are stored so two.
template <class T, class Body>
HWY_INLINE void ForEachVector(std::size_t begin, std::size_t length, const Body& body) {
  constexpr std::size_t kLanes = hn::MaxLanes(Tag<T>());
  std::size_t i = 0;
  if constexpr (kByPairs<T>) {
    for (; i + 2 * kLanes <= length; i += 2 * kLanes) body(Static<2>(), begin + i, 2 * kLanes);
  }
  for (; i + kLanes <= length; i += kLanes) body(Static<1>(), begin + i, kLanes);
  if (i < length) body(Static<1>(), begin + i, length - i);
}

/// Meanwhile the next planes are fetched, where `ahead` is not 0: memory would wait else for the statistics of these.
/// Of a residual, which no statistics have read, it is what comes next.
template <class T>
void NormalizePlanes(const Forward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients) {
  WithForward(tensors, [&](auto gate, auto residual, auto stream) HWY_ATTR {
    using D = Tag<T>;
    const Forward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    constexpr bool kFetches = stream || gate == Gate::any || kByPairs<T>;  // else ahead is 0
    const auto [samples, stride, channels, spacing, length] = block;
    for (std::size_t s = 0; s < samples; ++s) {
      for (std::size_t c = 0; c < channels; ++c) {
        const Normalizer<D> normalizer(PerChannel(), D(), k, c);
        ForEachVector<T>(s * stride + c * spacing, length,
                         [&](auto vectors, std::size_t at, std::size_t count) HWY_ATTR {
                           if constexpr (kFetches) hwy::Prefetch(t.x + at + t.ahead);
                           if constexpr (kFetches && residual) FetchFar(t.residual + at + kFarAhead<T>);
                           if constexpr (vectors == 2) {
                             NormalizePair<gate, residual, stream>(D(), t, at, normalizer, normalizer);
                           } else {
                             Normalize<gate, residual, stream>(D(), t, at, count, normalizer);
                           }
                         });
      }
    }
  });
}

template <class T>
void PlaneDotSums(const Backward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients, double* sum,
                  double* dot) {
  WithGate(tensors, [&](auto gate, auto output) HWY_ATTR {
    using D = Tag<T>;
    const Backward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    const auto gradient = [&](std::size_t at, std::size_t c, std::size_t count, auto difference) EQUINORM_INLINE {
      FetchFar(t.dy + at + kFarAhead<T>);
      if constexpr (output) FetchFar(t.y + at + kFarAhead<T>);
      return GatedGradient<gate, output>(D(), t, at, count, difference, Normalizer<D>(PerChannel(), D(), k, c));
    };
    PlaneDots(t.x, block, k.mean, k.unit, gradient, sum, dot);
  });
}

/// The next planes are fetched whether dx goes around the caches or not: two inputs are much to wait for.
template <class T>
void GradientPlanes(const Backward<T>& tensors, const PlaneBlock& block, const Coefficients<T>& coefficients) {
  WithBackward(tensors, [&](auto gate, auto output, auto residual, auto stream) HWY_ATTR {
    using D = Tag<T>;
    const Backward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    const auto [samples, stride, channels, spacing, length] = block;
    for (std::size_t s = 0; s < samples; ++s) {
      for (std::size_t c = 0; c < channels; ++c) {
        const Differentiator<D> differentiator(PerChannel(), D(), k, c);
        ForEachVector<T>(
            s * stride + c * spacing, length, [&](auto vectors, std::size_t at, std::size_t count) HWY_ATTR {
              FetchFar(t.x + at + t.ahead);
              FetchFar(t.dy + at + t.ahead);
              if constexpr (output) FetchFar(t.y + at + t.ahead);
              if constexpr (vectors == 2) {
                DifferentiatePair<gate, output, residual, stream>(D(), t, at, differentiator, differentiator);
              } else {
                Differentiate<gate, output, residual, stream>(D(), t, at, count, differentiator);
              }
            });
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
