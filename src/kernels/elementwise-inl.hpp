// One vector of each elementwise pass, or some whole ones. `count` is Lanes(d) for a whole vector; fewer are loaded and
// stored alone.
#if defined(EQUINORM_ELEMENTWISE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_ELEMENTWISE_INL_HPP
#undef EQUINORM_ELEMENTWISE_INL_HPP
#else
#define EQUINORM_ELEMENTWISE_INL_HPP
#endif

#include <hwy/highway.h>

#include "kernels/kernels.hpp"
#include "simd/activation-inl.hpp"
#include "simd/elements-inl.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

using kernels::Backward;
using kernels::Coefficients;
using kernels::Forward;

template <auto value>
using Static = std::integral_constant<decltype(value), value>;

/// Calls f with a compile-time true or false.
template <class F>
HWY_INLINE void WithBool(bool value, const F& f) {
  if (value) {
    f(Static<true>());
  } else {
    f(Static<false>());
  }
}

/// Whether passes are compiled for each case by itself, where that saves time and nothing else. Not where a·b + c is
/// emulated: that outweighs all else, and to compile every case for such processors took twice as long.
inline constexpr bool kByCase = HWY_TARGET != HWY_SSE4;

/// The same; or one version is compiled that will do in both cases, kEither.
template <bool kEither, class F>
HWY_INLINE void WithCase(bool value, const F& f) {
  if constexpr (kByCase) {
    WithBool(value, f);
  } else {
    f(Static<kEither>());
  }
}

/// How the activation is compiled in: the two that nets are full of on their own, the others by a switch. What else a
/// pass does is compiled in beside the first two (false or true); beside `any`, which is long, it is asked for vector
/// by vector.
enum class Gate { none, relu, any };

/// Calls f(gate, residual) for a forward pass, with compile-time values.
template <class T, class F>
HWY_INLINE void WithForward(const Forward<T>& t, const F& f) {
  const auto with_gate = [&](auto gate) HWY_ATTR {
    WithBool(t.residual != nullptr, [&](auto residual) HWY_ATTR { f(gate, residual); });
  };
  if (t.activation == Activation::none) return with_gate(Static<Gate::none>());
  if constexpr (kByCase) {
    if (t.activation == Activation::relu) return with_gate(Static<Gate::relu>());
  }
  f(Static<Gate::any>(), Static<false>());
}

/// Calls f(gate, from_output) for a pass that needs g. Only `any` adds a residual to z: relu is rarely without its y
/// there.
template <class T, class F>
HWY_INLINE void WithGate(const Backward<T>& t, const F& f) {
  if (t.activation == Activation::none) return f(Static<Gate::none>(), Static<false>());
  if constexpr (kByCase) {
    if (t.activation == Activation::relu && t.residual == nullptr) {
      return WithBool(t.y != nullptr, [&](auto output) HWY_ATTR { f(Static<Gate::relu>(), output); });
    }
  }
  f(Static<Gate::any>(), Static<false>());
}

/// Calls f(gate, from_output, writes) for the pass that sums g, and writes it.
template <class T, class F>
HWY_INLINE void WithSums(const Backward<T>& t, const F& f) {
  WithGate(t, [&](auto gate, auto output) HWY_ATTR {
    if constexpr (output) {
      WithBool(t.g != nullptr, [&](auto writes) HWY_ATTR { f(gate, output, writes); });
    } else {
      f(gate, output, Static<false>());
    }
  });
}

/// Calls f(gate, from_output, residual) for the pass that writes dx.
template <class T, class F>
HWY_INLINE void WithBackward(const Backward<T>& t, const F& f) {
  WithGate(t, [&](auto gate, auto output) HWY_ATTR {
    if constexpr (gate == Gate::any) {
      f(gate, output, Static<false>());
    } else {
      WithBool(t.dresidual != nullptr, [&](auto residual) HWY_ATTR { f(gate, output, residual); });
    }
  });
}

/// Coefficients of the columns from c on, or of channel c for all lanes.
struct PerColumn {
  template <class D>
  static HWY_INLINE hn::Vec<D> Get(D d, const hn::TFromD<D>* p, std::size_t c) {
    return hn::LoadU(d, p + c);
  }
};
struct PerChannel {
  template <class D>
  static HWY_INLINE hn::Vec<D> Get(D d, const hn::TFromD<D>* p, std::size_t c) {
    return hn::Set(d, p[c]);
  }
};

/// What makes z of x − mean.
template <class D>
struct Normalizer {
  template <class Get, class T>
  HWY_INLINE Normalizer(Get, D d, const Coefficients<T>& k, std::size_t c)
      : mean(Get::Get(d, k.mean, c)), scale(Get::Get(d, k.scale, c)), shift(Get::Get(d, k.shift, c)) {}

  HWY_INLINE hn::Vec<D> Affine(hn::Vec<D> difference) const { return MulAdd(D(), difference, scale, shift); }

  hn::Vec<D> mean, scale, shift;
};

template <class D>
struct Differentiator : Normalizer<D> {
  template <class Get, class T>
  HWY_INLINE Differentiator(Get get, D d, const Coefficients<T>& k, std::size_t c)
      : Normalizer<D>(get, d, k, c), offset(Get::Get(d, k.offset, c)), slope(Get::Get(d, k.slope, c)) {}

  hn::Vec<D> offset, slope;
};

/// Stores a result, around the caches if `stream`.
template <class D, class T>
HWY_INLINE void StoreResult(hn::Vec<D> v, D d, T* p, std::size_t count, bool stream) {
  if (stream) return StoreCount<true>(v, d, p, count);
  StoreCount<false>(v, d, p, count);
}
/// The same of whole vectors, one behind the other.
template <std::size_t n, class D, class T>
HWY_INLINE void StoreResults(const hn::Vec<D> (&v)[n], D d, T* p, bool stream) {
  if (stream) return StoreVectors<true>(v, d, p);
  StoreVectors<false>(v, d, p);
}

/// y of a vector.
template <Gate kGate, bool kResidual, class T, class D>
HWY_INLINE hn::Vec<D> Normalized(D d, const Forward<T>& t, std::size_t at, std::size_t count, const Normalizer<D>& n) {
  auto z = n.Affine(hn::Sub(LoadCount(d, t.x + at, count), n.mean));
  if (kResidual || (kGate == Gate::any && t.residual != nullptr)) z = hn::Add(z, LoadCount(d, t.residual + at, count));
  if constexpr (kGate == Gate::relu) z = Activate(d, Activation::relu, z);
  if constexpr (kGate == Gate::any) z = Activate(d, t.activation, z);
  return z;
}

template <Gate kGate, bool kResidual, class T, class D>
HWY_INLINE void Normalize(D d, const Forward<T>& t, std::size_t at, std::size_t count, const Normalizer<D>& n) {
  StoreResult(Normalized<kGate, kResidual>(d, t, at, count, n), d, t.y + at, count, t.stream);
}
/// y of whole vectors, one behind the other. All are read before one is written: a load seems to wait for a store just
/// before it to the same place of another page (measured: where y begins a line or two behind x in its page, copies
/// vector by vector took up to twice as long). So all passes do, but for what goes down strips of rows or one by one in
/// backward of row norms: it took longer so.
template <Gate kGate, bool kResidual, class T, class D, class... More>
HWY_INLINE void NormalizeVectors(D d, const Forward<T>& t, std::size_t at, const Normalizer<D>& first,
                                 const More&... more) {
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  std::size_t next = at;
  const auto one = [&](const Normalizer<D>& n) EQUINORM_INLINE {
    const auto y = Normalized<kGate, kResidual>(d, t, next, kLanes, n);
    next += kLanes;
    return y;
  };
  const hn::Vec<D> y[] = {one(first), one(more)...};
  StoreResults(y, d, t.y + at, t.stream);
}

/// g, where x − mean = difference. z is computed again, to the same bits as in forward.
template <Gate kGate, bool kOutput, class T, class D>
HWY_INLINE hn::Vec<D> GatedGradient(D d, const Backward<T>& t, std::size_t at, std::size_t count, hn::Vec<D> difference,
                                    const Normalizer<D>& n) {
  const auto dy = LoadCount(d, t.dy + at, count);
  if constexpr (kGate == Gate::none) {
    return dy;
  } else {
    const Activation activation = kGate == Gate::relu ? Activation::relu : t.activation;
    hn::Vec<D> z;
    if (kOutput || (kGate == Gate::any && t.y != nullptr)) {
      z = LoadCount(d, t.y + at, count);  // as good for these: see Backward
    } else {
      z = n.Affine(difference);
      if (kGate == Gate::any && t.residual != nullptr) z = hn::Add(z, LoadCount(d, t.residual + at, count));
    }
    return ActivationGradient(d, activation, dy, z);
  }
}

/// dx of a vector, whose g is stored if it is wanted too.
template <Gate kGate, bool kOutput, bool kResidual, class T, class D>
HWY_INLINE hn::Vec<D> Differentiated(D d, const Backward<T>& t, std::size_t at, std::size_t count,
                                     const Differentiator<D>& n) {
  const auto difference = hn::Sub(LoadCount(d, t.x + at, count), n.mean);
  const auto g = GatedGradient<kGate, kOutput>(d, t, at, count, difference, n);
  if (kResidual || (kGate == Gate::any && t.dresidual != nullptr)) {
    StoreResult(g, d, t.dresidual + at, count, t.stream);
  }
  return NegMulAdd(d, difference, n.slope, MulSub(d, g, n.scale, n.offset));
}

template <Gate kGate, bool kOutput, bool kResidual, class T, class D>
HWY_INLINE void Differentiate(D d, const Backward<T>& t, std::size_t at, std::size_t count,
                              const Differentiator<D>& n) {
  const auto dx = Differentiated<kGate, kOutput, kResidual>(d, t, at, count, n);
  StoreResult(dx, d, t.dx + at, count, t.stream);
}
/// The same of whole vectors.
template <Gate kGate, bool kOutput, bool kResidual, class T, class D, class... More>
HWY_INLINE void DifferentiateVectors(D d, const Backward<T>& t, std::size_t at, const Differentiator<D>& first,
                                     const More&... more) {
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  std::size_t next = at;
  const auto one = [&](const Differentiator<D>& n) EQUINORM_INLINE {
    const auto dx = Differentiated<kGate, kOutput, kResidual>(d, t, next, kLanes, n);
    next += kLanes;
    return dx;
  };
  const hn::Vec<D> dx[] = {one(first), one(more)...};
  StoreResults(dx, d, t.dx + at, t.stream);
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
