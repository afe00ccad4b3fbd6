// What every function of the C interface goes through: C's structs become C++'s, and no exception gets out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "equinorm/equinorm.h"
#include "equinorm/execution.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/status.hpp"
#include "equinorm/tensor.hpp"
#include "equinorm/types.hpp"

namespace equinorm::capi {

/// How an argument is refused on this side of the edge; run() makes a status of it.
struct Refusal {
  Status status;
};

[[noreturn]] inline void refuse(const std::string& found, const std::string& expected,
                                StatusCode code = StatusCode::invalid_argument) {
  throw Refusal{{code, found + "; expected " + expected}};
}

inline equinorm_status code_of(const Status& status) {
  static_assert(static_cast<int>(StatusCode::invalid_argument) == EQUINORM_INVALID_ARGUMENT);
  static_assert(static_cast<int>(StatusCode::too_few_values) == EQUINORM_TOO_FEW_VALUES);
  static_assert(static_cast<int>(StatusCode::non_finite) == EQUINORM_NON_FINITE);
  static_assert(static_cast<int>(StatusCode::unsupported) == EQUINORM_UNSUPPORTED);
  return static_cast<equinorm_status>(status.code());
}

/// The defaults of a struct that begins with its size, in the caller's struct, which may be shorter or longer than
/// ours.
template <class Struct>
void initialize(Struct* out, std::size_t size, Struct defaults) {
  if (out == nullptr) return;
  defaults.size = size;
  std::memset(static_cast<void*>(out), 0, size);
  std::memcpy(static_cast<void*>(out), &defaults, std::min(size, sizeof(Struct)));
}

/// The caller's struct as ours. Fields we do not know are harmless while they are 0. `least`: the size of a struct's
/// first version, if it has grown; what is missing keeps its default.
template <class Struct>
Struct read_sized(const Struct* given, Struct defaults, std::string_view name, std::size_t least = sizeof(Struct)) {
  static_assert(std::is_trivially_copyable_v<Struct> && offsetof(Struct, size) == 0);
  if (given == nullptr) return defaults;
  const std::size_t size = given->size, known = std::min(size, sizeof(Struct));
  if (size < least) {
    refuse(std::string(name) + ".size is " + std::to_string(size),
           std::to_string(sizeof(Struct)) + ", as its _init function sets it");
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (std::any_of(bytes + known, bytes + size, [](unsigned char byte) { return byte != 0; })) {
    refuse(std::string(name) + " sets fields that this version, " + equinorm_version() + ", does not know",
           "zeros there", StatusCode::unsupported);
  }
  std::memcpy(static_cast<void*>(&defaults), given, known);
  return defaults;
}

/// A number from C as one of the enumerators 0 … last.
template <class Enum>
Enum read_enum(std::int32_t value, Enum last, std::string_view name) {
  const auto limit = static_cast<std::int32_t>(last);
  if (value < 0 || value > limit) {
    refuse(std::string(name) + " is " + std::to_string(value), "0 to " + std::to_string(limit),
           StatusCode::unsupported);
  }
  return static_cast<Enum>(value);
}

/// The arguments of a call on elements of type T, which is that of `x`. NULL is a tensor that is absent.
template <class T>
class Arguments {
 public:
  explicit Arguments(const equinorm_tensor& x) : x_(x) {}

  TensorView<const T> in(const equinorm_tensor* tensor, const char* name) const { return read<const T>(tensor, name); }
  TensorView<T> out(const equinorm_tensor* tensor, const char* name) const { return read<T>(tensor, name); }
  Affine<T> affine(const void* gamma, const void* beta) const {
    return {static_cast<const Parameter<T>*>(gamma), static_cast<const Parameter<T>*>(beta)};
  }
  Tangents<T> tangents(const equinorm_tangents* t) const {
    if (t == nullptr) return {};
    return {in(t->x, "tangents.x"), in(t->residual, "tangents.residual"), affine(t->gamma, t->beta)};
  }
  AffineGradients<T> gradients(void* gamma, void* beta) const {
    return {static_cast<Parameter<T>*>(gamma), static_cast<Parameter<T>*>(beta)};
  }

 private:
  template <class Element>
  TensorView<Element> read(const equinorm_tensor* tensor, const char* name) const {
    if (tensor == nullptr) return {};
    if (tensor->dtype != x_.dtype) {
      refuse(name + (" has dtype " + std::to_string(tensor->dtype)), std::to_string(x_.dtype) + ", that of x");
    }
    if (tensor->rank > kMaxRank) refuse(name + (" has rank " + std::to_string(tensor->rank)), "at most 5");
    if (tensor->layout != EQUINORM_CHANNELS_LAST && tensor->layout != EQUINORM_CHANNELS_FIRST) {
      refuse(name + (" has layout " + std::to_string(tensor->layout)),
             "EQUINORM_CHANNELS_LAST or EQUINORM_CHANNELS_FIRST", StatusCode::unsupported);
    }
    return {static_cast<Element*>(tensor->data), Shape(std::span(tensor->extents, tensor->rank)),
            static_cast<Layout>(tensor->layout), tensor->row_stride};
  }

  const equinorm_tensor& x_;
};

/// Statistics that backward reads only, though C++ has one struct for both ways.
inline Statistics read_only(const double* mean, const double* variance) {
  return {const_cast<double*>(mean), const_cast<double*>(variance)};
}

/// Calls body(std::type_identity<T>()) for the element type T.
template <class Body>
auto with_type(equinorm_dtype dtype, const Body& body) {
  switch (dtype) {
    case EQUINORM_F32:
      return body(std::type_identity<float>());
    case EQUINORM_F64:
      return body(std::type_identity<double>());
    case EQUINORM_BF16:
      return body(std::type_identity<bfloat16>());
    case EQUINORM_F16:
      return body(std::type_identity<float16>());
    default:
      refuse("x has dtype " + std::to_string(dtype), "one of EQUINORM_F32, EQUINORM_F64, EQUINORM_BF16, EQUINORM_F16",
             StatusCode::unsupported);
  }
}

/// Calls body(Arguments<T>) for the element type T of x.
template <class Body>
auto with_type(const equinorm_tensor* x, const Body& body) {
  if (x == nullptr) refuse("x is null", "a tensor");
  return with_type(x->dtype, [&]<class T>(std::type_identity<T>) { return body(Arguments<T>(*x)); });
}

/// The threads that the caller of C brings.
class CallersThreads final : public Executor {
 public:
  explicit CallersThreads(const equinorm_execution& execution) : execution_(execution) {}
  void run(std::size_t tasks, Task task, void* context) override {
    execution_.run(execution_.run_data, tasks, task, context);
  }

 private:
  const equinorm_execution& execution_;
};

/// Calls body(Execution) → Status, and turns whatever comes of it into C's status and message.
template <class Body>
equinorm_status run(const char* operation, const equinorm_execution* given, const Body& body) noexcept {
  equinorm_execution execution{};
  equinorm_execution_init(&execution, sizeof execution);
  // Nothing is allocated here: success must not, and running out of memory is one of the failures.
  const auto outcome = [&](equinorm_status code, const char* text) {
    if (given == nullptr || given->size < sizeof execution || given->message == nullptr) return code;
    if (*text == '\0' && given->message_bytes > 0) {
      *given->message = '\0';  // most calls: formatted, it was a tenth of a call of 4096 values
    } else {
      const bool named = *text == '[';
      std::snprintf(given->message, given->message_bytes, "%s%s%s%s", named ? "" : "[", named ? "" : operation,
                    named ? "" : "] ", text);
    }
    return code;
  };
  try {
    execution = read_sized(given, execution, "execution");
    CallersThreads threads(execution);
    const Status status = body(Execution{execution.threads, execution.workspace, execution.workspace_bytes,
                                         execution.run == nullptr ? nullptr : &threads});
    return outcome(code_of(status), status.message().c_str());
  } catch (const Refusal& refusal) {
    return outcome(code_of(refusal.status), refusal.status.message().c_str());
  } catch (const std::bad_alloc&) {
    return outcome(EQUINORM_OUT_OF_MEMORY, "no memory; expected enough for scratch, or a workspace");
  } catch (const std::exception& error) {
    return outcome(EQUINORM_INTERNAL_ERROR, error.what());
  } catch (...) {
    return outcome(EQUINORM_INTERNAL_ERROR, "an exception of unknown type");
  }
}

/// What body(Arguments<T>) says of x's type; 0 where it has none.
template <class Body>
std::size_t workspace_bytes(const equinorm_tensor* x, const Body& body) {
  std::size_t bytes = 0;
  const auto count = [&](const Execution&) {
    bytes = with_type(x, body);
    return Status();
  };
  return run("workspace_bytes", nullptr, count) == EQUINORM_OK ? bytes : 0;
}

}  // namespace equinorm::capi
