// Element types. Tensors are float, double, bfloat16 or float16; parameters and running statistics are float, or double
// beside double; statistics are double always. Narrow types are read, computed in float and rounded once, to nearest.
#pragma once

#include <cstdint>
#include <type_traits>

#include "equinorm/export.h"

namespace equinorm {

/// The upper half of an IEEE float: 8 bits of exponent, 7 of fraction. A bit pattern, without arithmetic.
struct EQUINORM_API bfloat16 {
  std::uint16_t bits = 0;
  friend bool operator==(bfloat16, bfloat16) = default;  ///< of bits: NaN equals itself, −0 differs from 0
};

/// IEEE binary16: 5 bits of exponent, 10 of fraction. A bit pattern, without arithmetic.
struct EQUINORM_API float16 {
  std::uint16_t bits = 0;
  friend bool operator==(float16, float16) = default;  ///< of bits
};

/// The type of the parameters beside tensors of T, which is also the one that T is computed in.
template <class T>
using Parameter = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace equinorm
