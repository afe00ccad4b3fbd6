// With a workspace a successful call allocates nothing. Every operator new of this program counts; the operations go
// through the C interface, which stands on the C++ one.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "equinorm/equinorm.h"

namespace {

std::atomic<std::size_t> allocations = 0;

void* allocate(std::size_t size, std::size_t alignment) noexcept {
  ++allocations;
  return std::aligned_alloc(alignment, (std::max<std::size_t>(size, 1) + alignment - 1) / alignment * alignment);
}
void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  void* const memory = allocate(size, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

constexpr std::size_t kUsual = alignof(std::max_align_t);
std::size_t of(std::align_val_t alignment) {
  return static_cast<std::size_t>(alignment);
}

}  // namespace

// All of them: one that is left out would be the standard library's, which need not call these.
void* operator new(std::size_t size) {
  return allocate_or_throw(size, kUsual);
}
void* operator new[](std::size_t size) {
  return allocate_or_throw(size, kUsual);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, of(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, of(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, kUsual);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, kUsual);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(size, of(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(size, of(alignment));
}
// Not inlined beside a call of new that is not: compilers take the two for a mismatch.
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}

namespace {

/// How often body() allocates.
template <class Body>
std::size_t count(const Body& body) {
  const std::size_t before = allocations;
  body();
  return allocations - before;
}

TEST(Allocation, IsCounted) {
  struct alignas(128) Wide {
    char bytes[128];
  };
  void* memory = nullptr;
  EXPECT_EQ(count([&] { memory = ::operator new(1); }), 1U);
  ::operator delete(memory);
  EXPECT_EQ(count([&] { memory = ::operator new[](8, std::align_val_t{64}); }), 1U);
  ::operator delete[](memory, std::align_val_t{64});
  EXPECT_EQ(count([&] { memory = ::operator new (sizeof(Wide), std::align_val_t{alignof(Wide)}, std::nothrow); }), 1U);
  ::operator delete (memory, std::align_val_t{alignof(Wide)}, std::nothrow);
  EXPECT_EQ(count([&] { memory = ::operator new[](8, std::nothrow); }), 1U);
  ::operator delete[](memory, std::nothrow);
}

/// The caller's thread alone, the last task first.
void run_backwards(void*, std::size_t tasks, equinorm_task task, void* context) {
  for (std::size_t i = tasks; i-- > 0;) task(context, i);
}

/// Tensors large enough for several tasks, and all that the passes of every norm take.
struct Call {
  static constexpr std::size_t kSamples = 6, kChannels = 40, kSide = 12, kPositions = kSide * kSide;
  static constexpr std::size_t kElements = kSamples * kChannels * kPositions;

  Call(equinorm_dtype type, equinorm_layout of_layout, bool padded, bool fused)
      : dtype(type), layout(of_layout), is_padded(padded), is_fused(fused) {
    for (std::vector<std::byte>* tensor : {&x, &residual, &dy, &sum, &y, &dx, &dresidual}) {
      tensor->resize(kElements * sizeof(double));
    }
    // 1 and 2 in every type, so that no variance is 0.
    constexpr std::uint64_t kOne[] = {0x3f800000, 0x3ff0000000000000, 0x3f80, 0x3c00};
    constexpr std::uint64_t kTwo[] = {0x40000000, 0x4000000000000000, 0x4000, 0x4000};
    const std::size_t size = dtype == EQUINORM_F64 ? 8 : dtype == EQUINORM_F32 ? 4 : 2;
    for (std::vector<std::byte>* tensor : {&x, &residual, &dy}) {
      for (std::size_t i = 0; i < kElements; ++i) {
        const std::uint64_t value = i % 3 == 0 ? kOne[dtype] : kTwo[dtype];
        std::copy_n(reinterpret_cast<const std::byte*>(&value), size, tensor->data() + i * size);
      }
    }
    for (std::vector<double>* v : {&gamma, &beta, &dgamma, &dbeta, &running_mean, &running_variance}) {
      v->resize(kChannels * kPositions);
    }
    mean.resize(kElements);
    variance.resize(kElements);
    equinorm_batch_norm_options_init(&batch, sizeof batch);
    equinorm_group_norm_options_init(&group, sizeof group);
    equinorm_instance_norm_options_init(&instance, sizeof instance);
    equinorm_layer_norm_options_init(&layer, sizeof layer);
    equinorm_rms_norm_options_init(&rms, sizeof rms);
    group.groups = 4;
    if (is_fused) {
      batch.activation = group.activation = instance.activation = layer.activation = rms.activation = EQUINORM_GELU;
    }
    if (is_padded) batch.lengths = group.lengths = instance.lengths = layer.lengths = rms.lengths = lengths;
    equinorm_running_statistics_init(&running, sizeof running);
    running.mean = running_mean.data();
    running.variance = running_variance.data();
    equinorm_batch_moments_init(&moments, sizeof moments);
    moments.channels = kChannels;
    moments.mean = mean.data() + kChannels;
    moments.m2 = variance.data() + kChannels;
    tx = view(x);
    tr = view(residual);
    tdy = view(dy);
    tsum = view(sum);
    ty = view(y);
    tdx = view(dx);
    tdr = view(dresidual);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  equinorm_tensor view(std::vector<std::byte>& tensor) const {
    if (layout == EQUINORM_CHANNELS_FIRST) {
      return {tensor.data(), dtype, layout, 4, {kSamples, kChannels, kSide, kSide}, 0};
    }
    return {tensor.data(), dtype, layout, 4, {kSamples, kSide, kSide, kChannels}, 0};
  }
  const equinorm_tensor* if_fused(const equinorm_tensor& tensor) const { return is_fused ? &tensor : nullptr; }

  equinorm_dtype dtype;
  equinorm_layout layout;
  bool is_padded, is_fused;
  std::size_t lengths[kSamples] = {12, 0, 7, 1, 12, 11};  // of a row norm's positions too, whatever the layout
  std::vector<std::byte> x, residual, dy, sum, y, dx, dresidual;
  std::vector<double> gamma, beta, dgamma, dbeta, running_mean, running_variance, mean, variance;
  equinorm_tensor tx{}, tr{}, tdy{}, tsum{}, ty{}, tdx{}, tdr{};
  equinorm_batch_norm_options batch{};
  equinorm_group_norm_options group{};
  equinorm_instance_norm_options instance{};
  equinorm_layer_norm_options layer{};
  equinorm_rms_norm_options rms{};
  equinorm_running_statistics running{};
  equinorm_batch_moments moments{};
};

struct Pass {
  std::string name;
  bool needs_scratch;
  std::function<std::size_t(Call&)> workspace_bytes;
  std::function<equinorm_status(Call&, const equinorm_execution*)> run;
};

std::size_t none(Call&) {
  return 0;
}

/// Every pass of every norm, each forward before what needs its statistics.
std::vector<Pass> passes() {
#define PASSES_OF_IMAGES(norm, ...)                                                                                   \
  const auto norm##_bytes = [](Call& c) { return equinorm_##norm##_norm_workspace_bytes(&c.norm, &c.tx); };           \
  table.push_back({#norm "_norm_forward", true, norm##_bytes, [](Call& c, const equinorm_execution* e) {              \
                     return equinorm_##norm##_norm_forward(&c.norm, &c.tx, c.gamma.data(), c.beta.data(),             \
                                                           c.if_fused(c.tr), &c.ty, c.mean.data(), c.variance.data(), \
                                                           __VA_ARGS__ e);                                            \
                   }});                                                                                               \
  table.push_back({#norm "_norm_backward", true, norm##_bytes, [](Call& c, const equinorm_execution* e) {             \
                     return equinorm_##norm##_norm_backward(&c.norm, &c.tx, nullptr, c.if_fused(c.tr), &c.tdy,        \
                                                            c.gamma.data(), c.beta.data(), c.mean.data(),             \
                                                            c.variance.data(), &c.tdx, c.if_fused(c.tdr),             \
                                                            c.dgamma.data(), c.dbeta.data(), e);                      \
                   }});                                                                                               \
  table.push_back({#norm "_norm_jvp", false, none, [](Call& c, const equinorm_execution* e) {                         \
                     const equinorm_tangents tangents = {&c.tdy, c.if_fused(c.tdy), c.gamma.data(), c.beta.data()};   \
                     return equinorm_##norm##_norm_jvp(&c.norm, &c.tx, c.if_fused(c.tr), &tangents, c.gamma.data(),   \
                                                       c.beta.data(), c.mean.data(), c.variance.data(), &c.ty, e);    \
                   }})
#define STATISTICS_OF_layer c.mean.data(), c.variance.data()
#define STATISTICS_OF_rms c.variance.data()
#define PASSES_OF_ROWS(norm)                                                                                           \
  table.push_back({#norm "_norm_forward", false, none, [](Call& c, const equinorm_execution* e) {                      \
                     return equinorm_##norm##_norm_forward(&c.norm, &c.tx, c.gamma.data(), c.beta.data(),              \
                                                           c.if_fused(c.tr), c.if_fused(c.tsum), &c.ty,                \
                                                           STATISTICS_OF_##norm, e);                                   \
                   }});                                                                                                \
  table.push_back(                                                                                                     \
      {#norm "_norm_backward", true, [](Call& c) { return equinorm_##norm##_norm_workspace_bytes(&c.norm, &c.tx); },   \
       [](Call& c, const equinorm_execution* e) {                                                                      \
         return equinorm_##norm##_norm_backward(&c.norm, c.is_fused ? &c.tsum : &c.tx, &c.tdy, c.gamma.data(),         \
                                                c.beta.data(), STATISTICS_OF_##norm, c.if_fused(c.tdy), &c.tdx,        \
                                                c.dgamma.data(), c.dbeta.data(), e);                                   \
       }});                                                                                                            \
  table.push_back({#norm "_norm_jvp", false, none, [](Call& c, const equinorm_execution* e) {                          \
                     const equinorm_tangents tangents = {&c.tdy, nullptr, c.gamma.data(), c.beta.data()};              \
                     return equinorm_##norm##_norm_jvp(&c.norm, c.is_fused ? &c.tsum : &c.tx, &tangents,               \
                                                       c.gamma.data(), c.beta.data(), STATISTICS_OF_##norm, &c.ty, e); \
                   }})
  std::vector<Pass> table;
  PASSES_OF_IMAGES(batch, &c.running, );
  table.push_back({"batch_norm_inference", true, batch_bytes, [](Call& c, const equinorm_execution* e) {
                     return equinorm_batch_norm_inference(&c.batch, &c.tx, c.gamma.data(), c.beta.data(),
                                                          c.running_mean.data(), c.running_variance.data(),
                                                          c.if_fused(c.tr), &c.ty, e);
                   }});
  table.push_back({"batch_moments_accumulate", true,
                   [](Call& c) { return equinorm_batch_moments_workspace_bytes(&c.batch, &c.tx); },
                   [](Call& c, const equinorm_execution* e) {
                     return equinorm_batch_moments_accumulate(&c.batch, &c.tx, &c.moments, e);
                   }});
  table.push_back({"batch_moments_merge", false, none, [](Call& c, const equinorm_execution* e) {
                     const equinorm_batch_moments same = c.moments;
                     return equinorm_batch_moments_merge(&same, &c.moments, e);
                   }});
  table.push_back({"batch_moments_statistics", false, none, [](Call& c, const equinorm_execution* e) {
                     return equinorm_batch_moments_statistics(&c.moments, c.mean.data(), c.variance.data(), e);
                   }});
  table.push_back({"batch_moments_commit", false, none, [](Call& c, const equinorm_execution* e) {
                     return equinorm_batch_moments_commit(&c.batch, &c.moments, c.dtype, &c.running, e);
                   }});
  PASSES_OF_IMAGES(group, );
  PASSES_OF_IMAGES(instance, );
  PASSES_OF_ROWS(layer);
  PASSES_OF_ROWS(rms);
#undef PASSES_OF_IMAGES
#undef PASSES_OF_ROWS
#undef STATISTICS_OF_layer
#undef STATISTICS_OF_rms
  return table;
}

TEST(Allocation, NoneWhereAWorkspaceIsGiven) {
  const std::vector<Pass> table = passes();
  for (equinorm_dtype dtype = EQUINORM_F32; dtype <= EQUINORM_F16; ++dtype) {
    for (const equinorm_layout layout : {EQUINORM_CHANNELS_LAST, EQUINORM_CHANNELS_FIRST}) {
      for (const bool padded : {false, true}) {
        for (const bool fused : {false, true}) {
          Call call(dtype, layout, padded, fused);
          for (const Pass& pass : table) {
            const std::string what = pass.name + " dtype " + std::to_string(dtype) + " layout " +
                                     std::to_string(layout) + (padded ? ", padded" : "") + (fused ? ", fused" : "");
            char message[300];
            equinorm_execution execution;
            equinorm_execution_init(&execution, sizeof execution);
            execution.message = message;
            execution.message_bytes = sizeof message;
            const auto run = [&] {
              equinorm_status status = EQUINORM_OK;
              const std::size_t allocated = count([&] { status = pass.run(call, &execution); });
              EXPECT_EQ(status, EQUINORM_OK) << what << ": " << message;
              return allocated;
            };
            EXPECT_EQ(run(), pass.needs_scratch ? 1U : 0U) << what << ", without a workspace";

            std::size_t bytes = 0;
            EXPECT_EQ(count([&] { bytes = pass.workspace_bytes(call); }), 0U) << what << ", the size of a workspace";
            EXPECT_EQ(bytes > 0, pass.needs_scratch) << what;
            std::vector<std::byte> memory(bytes + 64);
            execution.workspace = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
            execution.workspace_bytes = bytes;
            for (const std::int32_t threads : {1, 3}) {
              execution.threads = threads;
              for (const bool own : {false, true}) {
                execution.run = own ? run_backwards : nullptr;
                EXPECT_EQ(run(), 0U) << what << ", " << threads << " threads" << (own ? " of the caller" : "");
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace
