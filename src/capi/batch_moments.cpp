#include "equinorm/batch_moments.hpp"

#include <vector>

#include "capi/batch_norm.hpp"

namespace equinorm::capi {
namespace {

BatchMoments moments_of(const equinorm_batch_moments* given, const char* name) {
  if (given == nullptr) refuse(name + std::string(" is null"), "moments");
  const equinorm_batch_moments m = read_sized(given, {}, name);
  return {m.channels, m.count, m.mean, m.m2};
}

/// Calls body(BatchMoments&), and writes the count back.
template <class Body>
Status update(equinorm_batch_moments* given, const Body& body) {
  BatchMoments moments = moments_of(given, "moments");
  Status status = body(moments);
  given->count = moments.count;
  return status;
}

}  // namespace
}  // namespace equinorm::capi

using namespace equinorm;
using namespace equinorm::capi;

void equinorm_batch_moments_init(equinorm_batch_moments* moments, size_t size) {
  initialize(moments, size, {});
}

size_t equinorm_batch_moments_workspace_bytes(const equinorm_batch_norm_options* options, const equinorm_tensor* x) {
  return workspace_bytes(x, [&]<class T>(const Arguments<T>& a) {
    return batch_moments_workspace_bytes<T>(a.in(x, "x").shape, a.in(x, "x").layout, options_of(options));
  });
}

equinorm_status equinorm_batch_moments_accumulate(const equinorm_batch_norm_options* options, const equinorm_tensor* x,
                                                  equinorm_batch_moments* moments,
                                                  const equinorm_execution* execution) {
  return run("batch_moments_accumulate", execution, [&](const Execution& how) {
    return with_type(x, [&]<class T>(const Arguments<T>& a) {
      return update(moments, [&](BatchMoments& ours) {
        return batch_moments_accumulate<T>(options_of(options), a.in(x, "x"), ours, how);
      });
    });
  });
}

equinorm_status equinorm_batch_moments_merge(const equinorm_batch_moments* other, equinorm_batch_moments* moments,
                                             const equinorm_execution* execution) {
  return run("batch_moments_merge", execution, [&](const Execution&) {
    return update(moments, [&](BatchMoments& ours) { return batch_moments_merge(moments_of(other, "other"), ours); });
  });
}

equinorm_status equinorm_batch_moments_statistics(const equinorm_batch_moments* moments, double* mean, double* variance,
                                                  const equinorm_execution* execution) {
  return run("batch_moments_statistics", execution, [&](const Execution&) {
    return batch_moments_statistics(moments_of(moments, "moments"), {mean, variance});
  });
}

equinorm_status equinorm_batch_moments_commit(const equinorm_batch_norm_options* options,
                                              const equinorm_batch_moments* moments, equinorm_dtype dtype,
                                              equinorm_running_statistics* running,
                                              const equinorm_execution* execution) {
  return run("batch_moments_commit", execution, [&](const Execution&) {
    return with_type(dtype, [&]<class T>(std::type_identity<T>) {
      if (running == nullptr) refuse("running is null", "running statistics");
      Running<T> taken(running);
      return batch_moments_commit<T>(options_of(options), moments_of(moments, "moments"), *taken.get());
    });
  });
}

equinorm_status equinorm_pool_running_statistics(const equinorm_running_statistics* const* models, size_t count,
                                                 const double* weights, size_t channels, equinorm_dtype dtype,
                                                 equinorm_running_statistics* pooled,
                                                 const equinorm_execution* execution) {
  return run("pool_running_statistics", execution, [&](const Execution&) {
    return with_type(dtype, [&]<class T>(std::type_identity<T>) {
      if (models == nullptr) refuse("models is null", "running statistics of models");
      if (pooled == nullptr) refuse("pooled is null", "running statistics");
      std::vector<RunningStatistics<T>> ours;
      for (const equinorm_running_statistics* model : std::span(models, count)) {
        if (model == nullptr) refuse("one of models is null", "running statistics");
        ours.push_back(running_of<T>(model, "one of models"));
      }
      Running<T> taken(pooled);
      return pool_running_statistics<T>(ours, std::span(weights, weights == nullptr ? 0 : count), channels,
                                        *taken.get());
    });
  });
}
