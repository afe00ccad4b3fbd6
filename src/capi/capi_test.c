/* The C interface as a C program sees it: built as C11, linked with the shared library alone. */
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

#include "equinorm/equinorm.h"

static atomic_int failures = 0;

#define CHECK(condition)                                             \
  do {                                                               \
    if (!(condition)) {                                              \
      ++failures;                                                    \
      printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                \
  } while (0)
#define CHECK_OK(call) CHECK((call) == EQUINORM_OK)

/* Large enough to be cut into several tasks. */
enum { kSamples = 32, kChannels = 12, kPlane = 900, kCount = kSamples * kChannels * kPlane };

static equinorm_tensor tensor(void* data, equinorm_layout layout) {
  equinorm_tensor t = {data, EQUINORM_F32, layout, 4, {kSamples, 30, 30, kChannels}, 0};
  if (layout == EQUINORM_CHANNELS_FIRST) {
    t.extents[1] = kChannels;
    t.extents[3] = 30;
  }
  return t;
}

static size_t channel_of(size_t i, equinorm_layout layout) {
  return layout == EQUINORM_CHANNELS_LAST ? i % kChannels : i / kPlane % kChannels;
}

/* Some values, the same on every machine. */
static float value(size_t i) {
  return (float)((i * 7919U + 13U) % 1009U) / 101.0F + (float)(i % 17U);
}

struct Data {
  float x[kCount], y[kCount], dy[kCount], dx[kCount];
  float gamma[kChannels], beta[kChannels], dgamma[kChannels], dbeta[kChannels];
  float running_mean[kChannels], running_variance[kChannels];
  double mean[kChannels], variance[kChannels];
};

static struct Data* make_data(void) {
  struct Data* d = calloc(1, sizeof *d);
  if (d == NULL) abort();
  for (size_t i = 0; i < kCount; ++i) {
    d->x[i] = value(i);
    d->dy[i] = value(3 * i + 1) - 5.0F;
  }
  for (size_t c = 0; c < kChannels; ++c) {
    d->gamma[c] = value(c) / 10.0F;
    d->beta[c] = 1.0F - value(c + 50) / 10.0F;
    d->running_variance[c] = 1.0F;
  }
  return d;
}

/* The caller's threads: here the caller alone, who does the last task first and counts them. */
static void run_backwards(void* count, size_t tasks, equinorm_task task, void* context) {
  *(size_t*)count += tasks;
  for (size_t i = tasks; i-- > 0;) task(context, i);
}

static void train(struct Data* d, equinorm_layout layout, const equinorm_execution* execution) {
  const equinorm_tensor x = tensor(d->x, layout), y = tensor(d->y, layout), dy = tensor(d->dy, layout),
                        dx = tensor(d->dx, layout);
  equinorm_batch_norm_options options;
  equinorm_batch_norm_options_init(&options, sizeof options);
  equinorm_running_statistics running;
  equinorm_running_statistics_init(&running, sizeof running);
  running.mean = d->running_mean;
  running.variance = d->running_variance;
  CHECK_OK(equinorm_batch_norm_forward(&options, &x, d->gamma, d->beta, NULL, &y, d->mean, d->variance, &running,
                                       execution));
  CHECK(running.batches == 1);
  CHECK(running.skipped == 0);
  CHECK_OK(equinorm_batch_norm_backward(&options, &x, NULL, NULL, &dy, d->gamma, d->beta, d->mean, d->variance, &dx,
                                        NULL, d->dgamma, d->dbeta, execution));
}

/* Against the formulas, in double. The values are of size 10, so 1e-4 is a few roundings. */
static void test_batch_norm_values(equinorm_layout layout) {
  struct Data* d = make_data();
  train(d, layout, NULL);
  const double m = kSamples * kPlane;
  double mean[kChannels] = {0}, variance[kChannels] = {0}, dbeta[kChannels] = {0}, dgamma[kChannels] = {0};
  double terms[kChannels] = {0};
  for (size_t i = 0; i < kCount; ++i) mean[channel_of(i, layout)] += (double)d->x[i] / m;
  for (size_t i = 0; i < kCount; ++i) {
    const size_t c = channel_of(i, layout);
    variance[c] += ((double)d->x[i] - mean[c]) * ((double)d->x[i] - mean[c]) / m;
  }
  for (size_t i = 0; i < kCount; ++i) {
    const size_t c = channel_of(i, layout);
    dbeta[c] += (double)d->dy[i];
    const double term = (double)d->dy[i] * ((double)d->x[i] - mean[c]) / sqrt(variance[c] + 1e-5);
    dgamma[c] += term;
    terms[c] += fabs(term);
  }
  double worst_y = 0, worst_dx = 0;
  for (size_t i = 0; i < kCount; ++i) {
    const size_t c = channel_of(i, layout);
    const double x_hat = ((double)d->x[i] - mean[c]) / sqrt(variance[c] + 1e-5);
    const double y = (double)d->gamma[c] * x_hat + (double)d->beta[c];
    const double dx =
        (double)d->gamma[c] / sqrt(variance[c] + 1e-5) * ((double)d->dy[i] - dbeta[c] / m - x_hat * dgamma[c] / m);
    worst_y = fmax(worst_y, fabs(y - (double)d->y[i]));
    worst_dx = fmax(worst_dx, fabs(dx - (double)d->dx[i]));
  }
  CHECK(worst_y < 1e-4);
  CHECK(worst_dx < 1e-4);
  for (size_t c = 0; c < kChannels; ++c) {
    CHECK(fabs(d->mean[c] - mean[c]) < 1e-5);
    CHECK(fabs(d->variance[c] - variance[c]) < 1e-4);
    CHECK(fabs((double)d->dbeta[c] - dbeta[c]) < 1e-6 * (1 + fabs(dbeta[c])));
    CHECK(fabs((double)d->dgamma[c] - dgamma[c]) < 1e-6 * terms[c]);
    CHECK(fabs((double)d->running_mean[c] - 0.1 * mean[c]) < 1e-5);
    CHECK(fabs((double)d->running_variance[c] - (0.9 + 0.1 * variance[c] * m / (m - 1))) < 1e-4);
  }
  free(d);
}

static void test_same_bits_however_it_runs(equinorm_layout layout) {
  struct Data* want = make_data();
  train(want, layout, NULL);
  for (int32_t threads = 1; threads <= 3; ++threads) {
    for (int own_threads = 0; own_threads < 2; ++own_threads) {
      struct Data* d = make_data();
      const equinorm_tensor x = tensor(d->x, layout);
      size_t tasks = 0;
      equinorm_execution execution;
      equinorm_execution_init(&execution, sizeof execution);
      CHECK(execution.size == sizeof execution);
      execution.threads = threads;
      execution.workspace_bytes = equinorm_batch_norm_workspace_bytes(NULL, &x);
      CHECK(execution.workspace_bytes > 0);
      execution.workspace = aligned_alloc(64, (execution.workspace_bytes + 63) / 64 * 64);
      if (own_threads) {
        execution.run = run_backwards;
        execution.run_data = &tasks;
      }
      train(d, layout, &execution);
      CHECK(memcmp(d, want, sizeof *d) == 0);
      CHECK((tasks > 0) == (own_threads && threads > 1));
      free(execution.workspace);
      free(d);
    }
  }
  free(want);
}

/* The running variance is the unbiased one unless the biased is asked for; another word is refused. */
static void test_variance_kinds(void) {
  float x[4] = {1, -1, 1, -1}, y[4], running_mean, running_variance; /* mean 0, variance 1, or 4/3 unbiased */
  double mean, variance;
  char message[200];
  const equinorm_tensor in = {x, EQUINORM_F32, EQUINORM_CHANNELS_LAST, 2, {4, 1}, 0};
  equinorm_tensor out = in;
  out.data = y;
  equinorm_execution execution;
  equinorm_execution_init(&execution, sizeof execution);
  execution.message = message;
  execution.message_bytes = sizeof message;
  equinorm_batch_moments moments;
  equinorm_batch_moments_init(&moments, sizeof moments);
  double of_mean = 0, m2 = 4;
  moments.channels = 1;
  moments.count = 4;
  moments.mean = &of_mean;
  moments.m2 = &m2;
  equinorm_running_statistics running;
  equinorm_running_statistics_init(&running, sizeof running);
  CHECK(running.variance_kind == EQUINORM_UNBIASED);
  running.mean = &running_mean;
  running.variance = &running_variance;
  running.running_weight = 0.5;
  for (equinorm_variance_kind kind = EQUINORM_BIASED; kind <= EQUINORM_UNBIASED; ++kind) {
    running.variance_kind = kind;
    const float want = kind == EQUINORM_BIASED ? 2.0F : 13.0F / 6.0F; /* half of 3, half of the batch's */
    running_mean = running_variance = 3;
    CHECK_OK(equinorm_batch_norm_forward(NULL, &in, NULL, NULL, NULL, &out, &mean, &variance, &running, &execution));
    CHECK(running_mean == 1.5F && fabsf(running_variance - want) < 1e-6F);
    running_mean = running_variance = 3;
    CHECK_OK(equinorm_batch_moments_commit(NULL, &moments, EQUINORM_F32, &running, &execution));
    CHECK(running_mean == 1.5F && fabsf(running_variance - want) < 1e-6F);
  }
  running.variance_kind = EQUINORM_UNBIASED + 1;
  CHECK(equinorm_batch_norm_forward(NULL, &in, NULL, NULL, NULL, &out, &mean, &variance, &running, &execution) ==
        EQUINORM_UNSUPPORTED);
  CHECK(strstr(message, "running.variance_kind is 2") != NULL);
}

static int train_in_thread(void* data) {
  train(data, EQUINORM_CHANNELS_FIRST, NULL);
  return 0;
}

/* At the very beginning of the program, when the library does not know the instruction sets yet. */
static void test_many_threads_at_once(void) {
  enum { kThreads = 4 };
  struct Data* data[kThreads];
  thrd_t threads[kThreads];
  for (int i = 0; i < kThreads; ++i) {
    data[i] = make_data();
    CHECK(thrd_create(&threads[i], train_in_thread, data[i]) == thrd_success);
  }
  for (int i = 0; i < kThreads; ++i) thrd_join(threads[i], NULL);
  for (int i = 1; i < kThreads; ++i) CHECK(memcmp(data[i], data[0], sizeof *data[0]) == 0);
  CHECK(data[0]->y[1] != 0);
  for (int i = 0; i < kThreads; ++i) free(data[i]);
}

static void test_inference(void) {
  struct Data* d = make_data();
  for (size_t c = 0; c < kChannels; ++c) {
    d->running_mean[c] = 2.0F;
    d->running_variance[c] = 4.0F;
  }
  const equinorm_tensor x = tensor(d->x, EQUINORM_CHANNELS_LAST), y = tensor(d->y, EQUINORM_CHANNELS_LAST),
                        residual = tensor(d->dy, EQUINORM_CHANNELS_LAST);
  equinorm_batch_norm_options options;
  equinorm_batch_norm_options_init(&options, sizeof options);
  options.epsilon = 1e-3;
  options.activation = EQUINORM_RELU;
  CHECK_OK(equinorm_batch_norm_inference(&options, &x, NULL, d->beta, d->running_mean, d->running_variance, &residual,
                                         &y, NULL));
  int zeros = 0;
  for (size_t i = 0; i < kCount; ++i) {
    const double z = ((double)d->x[i] - 2) / sqrt(4 + 1e-3) + (double)d->beta[i % kChannels] + (double)d->dy[i];
    CHECK(fabs((double)d->y[i] - fmax(z, 0)) < 1e-5);
    zeros += z < 0;
  }
  CHECK(zeros > 0 && zeros < kCount);
  free(d);
}

/* ±1 has mean 0 and variance 1: y is ±1/√(1 + ε), which is ±1 in the narrow types. */
static void test_every_type(void) {
  static const float f32[4] = {1, -1, 1, -1};
  static const double f64[4] = {1, -1, 1, -1};
  static const uint16_t bf16[4] = {0x3f80, 0xbf80, 0x3f80, 0xbf80}, f16[4] = {0x3c00, 0xbc00, 0x3c00, 0xbc00};
  static const void* const inputs[] = {f32, f64, bf16, f16}; /* as equinorm_dtype counts */
  for (equinorm_dtype dtype = EQUINORM_F32; dtype <= EQUINORM_F16; ++dtype) {
    union {
      float f32[4];
      double f64[4];
      uint16_t bits[4];
    } out, in;
    memcpy(&in, inputs[dtype], sizeof(uint16_t[4]) << (dtype == EQUINORM_F64 ? 2 : dtype == EQUINORM_F32));
    const equinorm_tensor x = {&in, dtype, EQUINORM_CHANNELS_LAST, 2, {4, 1}, 0},
                          y = {&out, dtype, EQUINORM_CHANNELS_LAST, 2, {4, 1}, 0};
    double mean, variance;
    CHECK_OK(equinorm_batch_norm_forward(NULL, &x, NULL, NULL, NULL, &y, &mean, &variance, NULL, NULL));
    CHECK(mean == 0 && variance == 1);
    const double want = 1 / sqrt(1 + 1e-5);
    for (int i = 0; i < 4; ++i) {
      if (dtype == EQUINORM_F32) CHECK(fabs((double)out.f32[i] - (i % 2 ? -want : want)) < 1e-7);
      if (dtype == EQUINORM_F64) CHECK(fabs(out.f64[i] - (i % 2 ? -want : want)) < 1e-15);
      if (dtype >= EQUINORM_BF16) CHECK(out.bits[i] == in.bits[i]);
    }
  }
}

/* Instance norm is group norm with a group for every channel: forward and backward, bit for bit. */
static void test_group_and_instance_norm(void) {
  struct Data *group = make_data(), *instance = make_data();
  equinorm_group_norm_options options;
  equinorm_group_norm_options_init(&options, sizeof options);
  CHECK(options.groups == 1 && options.epsilon == 1e-5);
  options.groups = kChannels;
  double mean[2][kSamples * kChannels], variance[2][kSamples * kChannels];
  const equinorm_layout layout = EQUINORM_CHANNELS_FIRST;
  equinorm_tensor x = tensor(group->x, layout), y = tensor(group->y, layout), dy = tensor(group->dy, layout),
                  dx = tensor(group->dx, layout);
  CHECK(equinorm_group_norm_workspace_bytes(&options, &x) > 0);
  CHECK_OK(equinorm_group_norm_forward(&options, &x, group->gamma, group->beta, NULL, &y, mean[0], variance[0], NULL));
  CHECK_OK(equinorm_group_norm_backward(&options, &x, NULL, NULL, &dy, group->gamma, group->beta, mean[0], variance[0],
                                        &dx, NULL, group->dgamma, group->dbeta, NULL));
  options.groups = 5;
  CHECK(equinorm_group_norm_forward(&options, &x, NULL, NULL, NULL, &y, NULL, NULL, NULL) == EQUINORM_INVALID_ARGUMENT);
  CHECK(equinorm_group_norm_workspace_bytes(&options, &x) == 0);

  x.data = instance->x;
  y.data = instance->y;
  dy.data = instance->dy;
  dx.data = instance->dx;
  CHECK_OK(
      equinorm_instance_norm_forward(NULL, &x, instance->gamma, instance->beta, NULL, &y, mean[1], variance[1], NULL));
  CHECK_OK(equinorm_instance_norm_backward(NULL, &x, NULL, NULL, &dy, instance->gamma, instance->beta, mean[1],
                                           variance[1], &dx, NULL, instance->dgamma, instance->dbeta, NULL));
  CHECK(memcmp(group, instance, sizeof *group) == 0);
  CHECK(memcmp(mean[0], mean[1], sizeof mean[0]) == 0);
  CHECK(memcmp(variance[0], variance[1], sizeof variance[0]) == 0);
  CHECK(group->y[5] != 0 && group->dx[5] != 0);
  free(group);
  free(instance);
}

/* Two halves of a batch, merged and committed, are the batch; so is a batch behind which padding lies. */
static void test_statistics_that_merge(void) {
  struct Data* whole = make_data();
  train(whole, EQUINORM_CHANNELS_LAST, NULL);
  struct Data* d = make_data();
  double mean[2][kChannels], m2[2][kChannels];
  equinorm_batch_moments moments[2];
  for (int half = 0; half < 2; ++half) {
    equinorm_tensor x = tensor(d->x + half * kCount / 2, EQUINORM_CHANNELS_LAST);
    x.extents[0] = kSamples / 2;
    equinorm_batch_moments_init(&moments[half], sizeof moments[half]);
    moments[half].channels = kChannels;
    moments[half].mean = mean[half];
    moments[half].m2 = m2[half];
    CHECK(equinorm_batch_moments_workspace_bytes(NULL, &x) > 0);
    CHECK_OK(equinorm_batch_moments_accumulate(NULL, &x, &moments[half], NULL));
    CHECK(moments[half].count == kCount / kChannels / 2);
  }
  CHECK_OK(equinorm_batch_moments_merge(&moments[1], &moments[0], NULL));
  CHECK(moments[0].count == kCount / kChannels);
  CHECK_OK(equinorm_batch_moments_statistics(&moments[0], d->mean, d->variance, NULL));
  equinorm_running_statistics running, other;
  equinorm_running_statistics_init(&running, sizeof running);
  running.mean = d->running_mean;
  running.variance = d->running_variance;
  CHECK_OK(equinorm_batch_moments_commit(NULL, &moments[0], EQUINORM_F32, &running, NULL));
  CHECK(running.batches == 1);
  for (size_t c = 0; c < kChannels; ++c) {
    CHECK(fabs(d->mean[c] - whole->mean[c]) < 1e-6);
    CHECK(fabs(d->variance[c] - whole->variance[c]) < 1e-5);
    CHECK(fabsf(d->running_mean[c] - whole->running_mean[c]) < 1e-6F);
    CHECK(fabsf(d->running_variance[c] - whole->running_variance[c]) < 1e-5F);
  }

  /* Means m and 3m with the same variance v pool to 2m and v + m². */
  float mean3[kChannels], pooled_mean[kChannels], pooled_variance[kChannels];
  for (size_t c = 0; c < kChannels; ++c) mean3[c] = 3 * d->running_mean[c];
  other = running;
  other.mean = mean3;
  const equinorm_running_statistics* const models[] = {&running, &other};
  equinorm_running_statistics pooled;
  equinorm_running_statistics_init(&pooled, sizeof pooled);
  pooled.mean = pooled_mean;
  pooled.variance = pooled_variance;
  CHECK_OK(equinorm_pool_running_statistics(models, 2, NULL, kChannels, EQUINORM_F32, &pooled, NULL));
  CHECK(pooled.batches == 2);
  for (size_t c = 0; c < kChannels; ++c) {
    const double m = (double)d->running_mean[c], v = (double)d->running_variance[c];
    CHECK(fabs((double)pooled_mean[c] - 2 * m) < 1e-6);
    CHECK(fabs((double)pooled_variance[c] - (v + m * m)) < 1e-5 * (v + m * m));
  }
  CHECK(equinorm_pool_running_statistics(NULL, 2, NULL, kChannels, EQUINORM_F32, &pooled, NULL) ==
        EQUINORM_INVALID_ARGUMENT);
  CHECK(equinorm_batch_moments_merge(NULL, &moments[0], NULL) == EQUINORM_INVALID_ARGUMENT);
  free(d);
  free(whole);
}

static void test_padding_is_not_seen(void) {
  enum { kLength = 7, kShort = 5 };
  float x[2 * kLength], y[2 * kLength];
  for (size_t i = 0; i < 2 * kLength; ++i) x[i] = i < kLength + kShort ? value(i) : NAN;
  const size_t lengths[2] = {kLength, kShort};
  const equinorm_tensor in = {x, EQUINORM_F32, EQUINORM_CHANNELS_LAST, 3, {2, kLength, 1}, 0};
  equinorm_tensor out = in;
  out.data = y;
  equinorm_batch_norm_options options;
  equinorm_batch_norm_options_init(&options, sizeof options);
  CHECK(options.lengths == NULL);
  options.lengths = lengths;
  double mean, variance, want = 0;
  CHECK_OK(equinorm_batch_norm_forward(&options, &in, NULL, NULL, NULL, &out, &mean, &variance, NULL, NULL));
  for (size_t i = 0; i < kLength + kShort; ++i) want += (double)x[i] / (kLength + kShort);
  CHECK(fabs(mean - want) < 1e-6);
  for (size_t i = kLength + kShort; i < 2 * kLength; ++i) CHECK(y[i] == 0);

  /* Group and instance norm of one channel: each sample by itself. */
  equinorm_group_norm_options group;
  equinorm_group_norm_options_init(&group, sizeof group);
  CHECK(group.lengths == NULL);
  group.lengths = lengths;
  equinorm_instance_norm_options instance;
  equinorm_instance_norm_options_init(&instance, sizeof instance);
  CHECK(instance.lengths == NULL);
  instance.lengths = lengths;
  float same[2 * kLength];
  equinorm_tensor other = in;
  other.data = same;
  double means[2], variances[2];
  CHECK_OK(equinorm_group_norm_forward(&group, &in, NULL, NULL, NULL, &out, means, variances, NULL));
  CHECK_OK(equinorm_instance_norm_forward(&instance, &in, NULL, NULL, NULL, &other, NULL, NULL, NULL));
  CHECK(memcmp(y, same, sizeof y) == 0);
  want = 0;
  for (size_t i = kLength; i < kLength + kShort; ++i) want += (double)x[i] / kShort;
  CHECK(fabs(means[1] - want) < 1e-6);
  CHECK(fabs((double)y[kLength] - ((double)x[kLength] - want) / sqrt(variances[1] + 1e-5)) < 1e-5);
  for (size_t i = kLength + kShort; i < 2 * kLength; ++i) CHECK(y[i] == 0);
  const size_t beyond[2] = {kLength, kLength + 1};
  group.lengths = beyond;
  CHECK(equinorm_group_norm_forward(&group, &in, NULL, NULL, NULL, &out, NULL, NULL, NULL) ==
        EQUINORM_INVALID_ARGUMENT);
}

/* Rows behind a sample's length: NaN there reaches neither the gradients of the parameters nor an output. */
static void test_padding_of_rows_is_not_seen(void) {
  enum { kN = 2, kLength = 4, kFeatures = 3, kRows = kN * kLength, kAll = kRows * kFeatures };
  const size_t lengths[kN] = {1, kLength}, beyond[kN] = {1, kLength + 1};
  float x[kAll], dy[kAll], residual[kAll], sum[kAll], y[kAll], dx[kAll], tangent[kAll], dgamma[kFeatures],
      dbeta[kFeatures];
  for (size_t i = 0; i < kAll; ++i) {
    const size_t row = i / kFeatures;
    const int valid = row % kLength < lengths[row / kLength];
    x[i] = valid ? value(i) : NAN;
    residual[i] = valid ? value(i + 40) : NAN;
    dy[i] = valid ? value(3 * i) - 10.0F : NAN;
  }
#define TENSOR(data) \
  { data, EQUINORM_F32, EQUINORM_CHANNELS_LAST, 3, {kN, kLength, kFeatures}, 0 }
  const equinorm_tensor tx = TENSOR(x), tdy = TENSOR(dy), tr = TENSOR(residual), ts = TENSOR(sum), ty = TENSOR(y),
                        tdx = TENSOR(dx), tt = TENSOR(tangent);
#undef TENSOR
  const equinorm_tangents tangents = {&tdy, NULL, NULL, NULL};
  equinorm_layer_norm_options layer;
  equinorm_layer_norm_options_init(&layer, sizeof layer);
  equinorm_rms_norm_options rms;
  equinorm_rms_norm_options_init(&rms, sizeof rms);
  CHECK(layer.lengths == NULL && rms.lengths == NULL);
  for (int is_rms = 0; is_rms < 2; ++is_rms) {
    double mean[kRows] = {0}, spread[kRows];
    layer.lengths = rms.lengths = lengths;
    if (is_rms) {
      CHECK(equinorm_rms_norm_workspace_bytes(&rms, &tx) > 0);
      CHECK_OK(equinorm_rms_norm_forward(&rms, &tx, NULL, NULL, &tr, &ts, &ty, spread, NULL));
      CHECK_OK(equinorm_rms_norm_backward(&rms, &ts, &tdy, NULL, NULL, spread, NULL, &tdx, dgamma, dbeta, NULL));
      CHECK_OK(equinorm_rms_norm_jvp(&rms, &ts, &tangents, NULL, NULL, spread, &tt, NULL));
    } else {
      CHECK(equinorm_layer_norm_workspace_bytes(&layer, &tx) > 0);
      CHECK_OK(equinorm_layer_norm_forward(&layer, &tx, NULL, NULL, &tr, &ts, &ty, mean, spread, NULL));
      CHECK_OK(
          equinorm_layer_norm_backward(&layer, &ts, &tdy, NULL, NULL, mean, spread, NULL, &tdx, dgamma, dbeta, NULL));
      CHECK_OK(equinorm_layer_norm_jvp(&layer, &ts, &tangents, NULL, NULL, mean, spread, &tt, NULL));
    }
    double want[kFeatures] = {0}, sums[kFeatures] = {0};
    for (size_t i = 0; i < kAll; ++i) {
      const size_t row = i / kFeatures, feature = i % kFeatures;
      if (row % kLength < lengths[row / kLength]) {
        const double total = (double)(x[i] + residual[i]);
        want[feature] +=
            (double)dy[i] * (total - (is_rms ? 0 : mean[row])) / sqrt(spread[row] + (is_rms ? 1e-6 : 1e-5));
        sums[feature] += (double)dy[i];
        CHECK((double)sum[i] == total && spread[row] > 0 && y[i] != 0);
      } else {
        CHECK(sum[i] == 0 && y[i] == 0 && dx[i] == 0 && tangent[i] == 0 && mean[row] == 0 && spread[row] == 0);
      }
    }
    /* Five terms of size 30 at most: a few roundings of floats. */
    for (size_t j = 0; j < kFeatures; ++j) {
      CHECK(fabs((double)dgamma[j] - want[j]) < 1e-4);
      CHECK(fabs((double)dbeta[j] - sums[j]) < 1e-4);
    }
    layer.lengths = rms.lengths = beyond;
    CHECK((is_rms ? equinorm_rms_norm_forward(&rms, &tx, NULL, NULL, NULL, NULL, &ty, NULL, NULL)
                  : equinorm_layer_norm_forward(&layer, &tx, NULL, NULL, NULL, NULL, &ty, NULL, NULL, NULL)) ==
          EQUINORM_INVALID_ARGUMENT);
  }
}

/* Rows that lie apart, with a residual: against the formulas. */
static void test_layer_and_rms_norm(void) {
  enum { kRows = 3, kFeatures = 5, kStride = 8 };
  float x[kRows * kStride], residual[kRows * kFeatures], sum[kRows * kFeatures], y[kRows * kStride];
  for (size_t i = 0; i < kRows * kStride; ++i) {
    x[i] = i % kStride < kFeatures ? value(i) : NAN;
    y[i] = -7;
  }
  for (size_t i = 0; i < kRows * kFeatures; ++i) residual[i] = value(i + 100);
  const equinorm_tensor in = {x, EQUINORM_F32, EQUINORM_CHANNELS_LAST, 2, {kRows, kFeatures}, kStride};
  equinorm_tensor added = in, total = in, out = in;
  added.data = residual;
  total.data = sum;
  added.row_stride = total.row_stride = 0;
  out.data = y;
  for (int rms = 0; rms < 2; ++rms) {
    double mean[kRows] = {0}, spread[kRows];
    if (rms) {
      CHECK_OK(equinorm_rms_norm_forward(NULL, &in, NULL, NULL, &added, &total, &out, spread, NULL));
    } else {
      CHECK_OK(equinorm_layer_norm_forward(NULL, &in, NULL, NULL, &added, &total, &out, mean, spread, NULL));
    }
    for (size_t row = 0; row < kRows; ++row) {
      double s[kFeatures], want_mean = 0, want_spread = 0;
      for (size_t j = 0; j < kFeatures; ++j) {
        s[j] = (double)(x[row * kStride + j] + residual[row * kFeatures + j]);
        CHECK((double)sum[row * kFeatures + j] == s[j]);
        if (!rms) want_mean += s[j] / kFeatures;
      }
      for (size_t j = 0; j < kFeatures; ++j) want_spread += (s[j] - want_mean) * (s[j] - want_mean) / kFeatures;
      CHECK(fabs(mean[row] - want_mean) < 1e-5);
      CHECK(fabs(spread[row] - want_spread) < 1e-4 * want_spread);
      for (size_t j = 0; j < kStride; ++j) {
        const double got = (double)y[row * kStride + j];
        if (j < kFeatures) {
          CHECK(fabs(got - (s[j] - want_mean) / sqrt(want_spread + (rms ? 1e-6 : 1e-5))) < 1e-5);
        } else {
          CHECK(got == -7); /* nothing is written between the rows */
        }
      }
    }
  }
  equinorm_layer_norm_options options;
  equinorm_layer_norm_options_init(&options, sizeof options);
  options.normalized_axes = 3;
  CHECK(equinorm_layer_norm_forward(&options, &in, NULL, NULL, NULL, NULL, &out, NULL, NULL, NULL) ==
        EQUINORM_INVALID_ARGUMENT);
}

/* Backward is the transpose of the derivative in a direction, ⟨dy, J·v⟩ = ⟨Jᵀ·dy, v⟩: in double, up to the roundings of
 * sums of a few hundred terms of size 1000. */
static void test_derivatives_in_a_direction(void) {
  enum { kN = 4, kPositions = 6, kC = 4, kAll = kN * kPositions * kC, kOperations = 5 };
  double x[kAll], residual[kAll], dy[kAll], v[kAll], v_residual[kAll], y[kAll], sum[kAll], out[kAll], dx[kAll],
      dresidual[kAll];
  double gamma[kC], beta[kC], v_gamma[kC], v_beta[kC], dgamma[kC], dbeta[kC];
  for (size_t i = 0; i < kAll; ++i) {
    x[i] = (double)value(i);
    residual[i] = (double)value(i + 300) - 10;
    dy[i] = (double)value(5 * i + 1) - 10;
    v[i] = (double)value(7 * i + 2) - 10;
    v_residual[i] = (double)value(11 * i + 3) - 10;
  }
  for (size_t c = 0; c < kC; ++c) {
    gamma[c] = (double)value(c) / 10;
    beta[c] = (double)value(c + 9) / 10;
    v_gamma[c] = (double)value(c + 5) - 10;
    v_beta[c] = (double)value(c + 70) - 10;
  }
#define TENSOR(data) \
  { data, EQUINORM_F64, EQUINORM_CHANNELS_LAST, 3, {kN, kPositions, kC}, 0 }
  const equinorm_tensor tx = TENSOR(x), tr = TENSOR(residual), tdy = TENSOR(dy), tv = TENSOR(v),
                        tvr = TENSOR(v_residual), ty = TENSOR(y), ts = TENSOR(sum), tout = TENSOR(out),
                        tdx = TENSOR(dx), tdr = TENSOR(dresidual);
#undef TENSOR
  equinorm_batch_norm_options batch;
  equinorm_batch_norm_options_init(&batch, sizeof batch);
  equinorm_group_norm_options group;
  equinorm_group_norm_options_init(&group, sizeof group);
  equinorm_instance_norm_options instance;
  equinorm_instance_norm_options_init(&instance, sizeof instance);
  equinorm_layer_norm_options layer;
  equinorm_layer_norm_options_init(&layer, sizeof layer);
  equinorm_rms_norm_options rms;
  equinorm_rms_norm_options_init(&rms, sizeof rms);
  batch.activation = group.activation = instance.activation = layer.activation = rms.activation = EQUINORM_GELU;
  group.groups = 2;
  for (int operation = 0; operation < kOperations; ++operation) {
    const int rows = operation >= 3; /* where x is the sum of x and the residual, and dx its gradient */
    double mean[kN * kPositions], variance[kN * kPositions];
    const equinorm_tangents of_images = {&tv, &tvr, v_gamma, v_beta}, of_rows = {&tv, NULL, v_gamma, v_beta};
    memset(dresidual, 0, sizeof dresidual);
    switch (operation) {
#define IMAGES(name, ...)                                                                                        \
  CHECK_OK(equinorm_##name##_norm_forward(&name, &tx, gamma, beta, &tr, &ty, mean, variance, __VA_ARGS__));      \
  CHECK_OK(equinorm_##name##_norm_backward(&name, &tx, NULL, &tr, &tdy, gamma, beta, mean, variance, &tdx, &tdr, \
                                           dgamma, dbeta, NULL));                                                \
  CHECK_OK(equinorm_##name##_norm_jvp(&name, &tx, &tr, &of_images, gamma, beta, mean, variance, &tout, NULL));   \
  break
      case 0:
        IMAGES(batch, NULL, NULL);
      case 1:
        IMAGES(group, NULL);
      case 2:
        IMAGES(instance, NULL);
#undef IMAGES
      case 3:
        CHECK_OK(equinorm_layer_norm_forward(&layer, &tx, gamma, beta, &tr, &ts, &ty, mean, variance, NULL));
        CHECK_OK(equinorm_layer_norm_backward(&layer, &ts, &tdy, gamma, beta, mean, variance, NULL, &tdx, dgamma, dbeta,
                                              NULL));
        CHECK_OK(equinorm_layer_norm_jvp(&layer, &ts, &of_rows, gamma, beta, mean, variance, &tout, NULL));
        break;
      default:
        CHECK_OK(equinorm_rms_norm_forward(&rms, &tx, gamma, beta, &tr, &ts, &ty, variance, NULL));
        CHECK_OK(equinorm_rms_norm_backward(&rms, &ts, &tdy, gamma, beta, variance, NULL, &tdx, dgamma, dbeta, NULL));
        CHECK_OK(equinorm_rms_norm_jvp(&rms, &ts, &of_rows, gamma, beta, variance, &tout, NULL));
    }
    double direct = 0, transposed = 0;
    for (size_t i = 0; i < kAll; ++i) {
      direct += dy[i] * out[i];
      transposed += dx[i] * v[i] + (rows ? 0 : dresidual[i] * v_residual[i]);
    }
    for (size_t c = 0; c < kC; ++c) transposed += dgamma[c] * v_gamma[c] + dbeta[c] * v_beta[c];
    CHECK(fabs(direct) > 1); /* or nothing would be shown */
    CHECK(fabs(direct - transposed) < 1e-9);

    /* In no direction nothing changes. */
    if (operation == 0) {
      CHECK_OK(equinorm_batch_norm_jvp(&batch, &tx, &tr, NULL, gamma, beta, mean, variance, &tout, NULL));
      for (size_t i = 0; i < kAll; ++i) CHECK(out[i] == 0);
      CHECK(equinorm_batch_norm_jvp(&batch, &tx, &tr, NULL, gamma, beta, mean, variance, NULL, NULL) ==
            EQUINORM_INVALID_ARGUMENT);
    }
  }
}

/* One of the ways to call it wrongly: a word that the message must have, and the status. */
static void expect_refusal(equinorm_status status, equinorm_status want, const char* message, const char* word) {
  const int before = failures;
  CHECK(status == want);
  CHECK(strstr(message, word) != NULL);
  if (failures > before) printf("  status %d, message: %s\n", status, message);
}

static void test_bad_arguments_are_named(void) {
  struct Data* d = make_data();
  char message[200] = "";
  equinorm_execution execution;
  equinorm_execution_init(&execution, sizeof execution);
  execution.message = message;
  execution.message_bytes = sizeof message;
  equinorm_batch_norm_options options;
  equinorm_batch_norm_options_init(&options, sizeof options);
  const equinorm_tensor good = tensor(d->x, EQUINORM_CHANNELS_LAST), y = tensor(d->y, EQUINORM_CHANNELS_LAST);
#define FORWARD(x, y) \
  equinorm_batch_norm_forward(&options, x, d->gamma, d->beta, NULL, y, d->mean, d->variance, NULL, &execution)

  expect_refusal(FORWARD(NULL, &y), EQUINORM_INVALID_ARGUMENT, message, "[batch_norm_forward] x is null");
  expect_refusal(FORWARD(&good, NULL), EQUINORM_INVALID_ARGUMENT, message, "[batch_norm_forward] y is null");
  equinorm_tensor bad = good;
  bad.dtype = 17;
  expect_refusal(FORWARD(&bad, &y), EQUINORM_UNSUPPORTED, message, "x has dtype 17");
  bad = y;
  bad.dtype = EQUINORM_F64;
  expect_refusal(FORWARD(&good, &bad), EQUINORM_INVALID_ARGUMENT, message, "y has dtype");
  bad = good;
  bad.layout = 2;
  expect_refusal(FORWARD(&bad, &y), EQUINORM_UNSUPPORTED, message, "x has layout 2");
  bad = good;
  bad.rank = 6;
  expect_refusal(FORWARD(&bad, &y), EQUINORM_INVALID_ARGUMENT, message, "x has rank 6");
  bad = good;
  bad.row_stride = kChannels + 1;
  expect_refusal(FORWARD(&bad, &y), EQUINORM_INVALID_ARGUMENT, message, "x has a row stride of 13");
  bad = y;
  bad.row_stride = kChannels + 1;
  expect_refusal(FORWARD(&good, &bad), EQUINORM_INVALID_ARGUMENT, message, "y has a row stride of 13");
  bad = good;
  bad.extents[0] = 7;
  expect_refusal(FORWARD(&bad, &y), EQUINORM_INVALID_ARGUMENT, message, "the shape of x");
  options.activation = 99;
  expect_refusal(FORWARD(&good, &y), EQUINORM_UNSUPPORTED, message, "options.activation is 99");
  options.activation = EQUINORM_ACTIVATION_NONE;
  options.epsilon = NAN;
  expect_refusal(FORWARD(&good, &y), EQUINORM_INVALID_ARGUMENT, message, "epsilon");
  options.epsilon = 1e-5;
  options.size = 3;
  expect_refusal(FORWARD(&good, &y), EQUINORM_INVALID_ARGUMENT, message, "options.size is 3");
  options.size = sizeof options;
  for (size_t i = 0; i < kCount; ++i) CHECK(d->y[i] == 0); /* nothing was written */

  bad = good;
  bad.extents[0] = bad.extents[1] = bad.extents[2] = 1;
  equinorm_tensor bad_y = bad;
  bad_y.data = d->y;
  expect_refusal(FORWARD(&bad, &bad_y), EQUINORM_TOO_FEW_VALUES, message, "per channel");
  d->x[5] = NAN;
  expect_refusal(FORWARD(&good, &y), EQUINORM_NON_FINITE, message, "not finite");
  d->x[5] = 0;

  const equinorm_tensor dx = tensor(d->dx, EQUINORM_CHANNELS_LAST), dresidual = y;
  options.activation = EQUINORM_RELU;
#define BACKWARD(y, residual)                                                                                          \
  equinorm_batch_norm_backward(&options, &good, y, residual, &good, NULL, NULL, d->mean, d->variance, &dx, &dresidual, \
                               NULL, NULL, &execution)
  expect_refusal(BACKWARD(NULL, NULL), EQUINORM_INVALID_ARGUMENT, message, "y and residual are null");
  expect_refusal(BACKWARD(NULL, &bad), EQUINORM_INVALID_ARGUMENT, message, "residual has shape [1, 1, 1, 12]");
  options.activation = EQUINORM_SILU;
  expect_refusal(BACKWARD(&good, NULL), EQUINORM_INVALID_ARGUMENT, message, "residual is null");
  CHECK_OK(BACKWARD(NULL, &good));
#undef BACKWARD
  options.activation = EQUINORM_ACTIVATION_NONE;

  /* Numbers as they are, however small. */
  options.epsilon = 1e-31;
  expect_refusal(FORWARD(&good, &y), EQUINORM_INVALID_ARGUMENT, message, "epsilon is 1e-31; expected");
  options.epsilon = 1e-5;
  for (size_t c = 0; c < kChannels; ++c) d->running_variance[c] = c == 3 ? -1e-9F : 1.0F;
  expect_refusal(equinorm_batch_norm_inference(&options, &good, NULL, NULL, d->running_mean, d->running_variance, NULL,
                                               &y, &execution),
                 EQUINORM_INVALID_ARGUMENT, message, "variance[3] is -1e-09; expected");

  /* Instance norm by its own name, though group norm does its work. */
  equinorm_instance_norm_options instance;
  equinorm_instance_norm_options_init(&instance, sizeof instance);
  instance.epsilon = 0;
  expect_refusal(equinorm_instance_norm_forward(&instance, &good, NULL, NULL, NULL, &y, NULL, NULL, &execution),
                 EQUINORM_INVALID_ARGUMENT, message, "[instance_norm_forward] epsilon is 0;");
  expect_refusal(equinorm_instance_norm_backward(NULL, &good, NULL, NULL, &good, NULL, NULL, NULL, NULL, &dx, NULL,
                                                 NULL, NULL, &execution),
                 EQUINORM_INVALID_ARGUMENT, message,
                 "[instance_norm_backward] statistics.mean is null; expected [N, channels]");
  expect_refusal(equinorm_instance_norm_jvp(NULL, &good, NULL, NULL, NULL, NULL, NULL, NULL, &y, &execution),
                 EQUINORM_INVALID_ARGUMENT, message, "[instance_norm_jvp] statistics.mean is null");
  bad = good;
  bad.rank = 1;
  expect_refusal(equinorm_instance_norm_forward(NULL, &bad, NULL, NULL, NULL, &bad, NULL, NULL, &execution),
                 EQUINORM_INVALID_ARGUMENT, message, "[instance_norm_forward] x has rank 1; expected rank 2 to 5");

  execution.message_bytes = 8; /* a short buffer gets what fits, terminated */
  memset(message, 'z', sizeof message);
  CHECK(FORWARD(NULL, &y) == EQUINORM_INVALID_ARGUMENT);
  CHECK(strcmp(message, "[batch_") == 0);
  CHECK(message[8] == 'z');
  CHECK_OK(FORWARD(&good, &y));
  CHECK(strcmp(message, "") == 0);
  execution.message_bytes = 0; /* no room at all */
  message[0] = 'z';
  CHECK_OK(FORWARD(&good, &y));
  CHECK(FORWARD(NULL, &y) == EQUINORM_INVALID_ARGUMENT);
  CHECK(message[0] == 'z');
  execution.message = NULL;
  CHECK(FORWARD(NULL, &y) == EQUINORM_INVALID_ARGUMENT);
  CHECK(equinorm_batch_norm_workspace_bytes(NULL, NULL) == 0);
#undef FORWARD
  free(d);
}

/* A caller built with a later header, whose options have a field more. */
static void test_structs_may_grow(void) {
  struct Data* d = make_data();
  struct {
    equinorm_batch_norm_options known;
    double later;
  } options;
  memset(&options, 0xff, sizeof options);
  equinorm_batch_norm_options_init(&options.known, sizeof options);
  CHECK(options.known.size == sizeof options);
  CHECK(options.later == 0);
  CHECK(options.known.epsilon == 1e-5);
  const equinorm_tensor x = tensor(d->x, EQUINORM_CHANNELS_LAST), y = tensor(d->y, EQUINORM_CHANNELS_LAST);
  CHECK_OK(equinorm_batch_norm_forward(&options.known, &x, NULL, NULL, NULL, &y, d->mean, d->variance, NULL, NULL));
  options.later = 1;
  CHECK(equinorm_batch_norm_forward(&options.known, &x, NULL, NULL, NULL, &y, d->mean, d->variance, NULL, NULL) ==
        EQUINORM_UNSUPPORTED);
  /* And one built with an earlier header: nothing is written behind its struct. */
  struct {
    unsigned char known[16];
    unsigned char behind;
  } earlier;
  memset(&earlier, 0xff, sizeof earlier);
  equinorm_batch_norm_options_init((equinorm_batch_norm_options*)(void*)&earlier, sizeof earlier.known);
  CHECK(earlier.behind == 0xff);
  equinorm_execution_init(NULL, 0);
  /* Whose options of group norm ended before lengths. */
  equinorm_group_norm_options first = {offsetof(equinorm_group_norm_options, lengths), 3, 1e-5, 0, 0, (void*)&earlier};
  CHECK_OK(equinorm_group_norm_forward(&first, &x, NULL, NULL, NULL, &y, NULL, NULL, NULL));
  --first.size;
  CHECK(equinorm_group_norm_forward(&first, &x, NULL, NULL, NULL, &y, NULL, NULL, NULL) == EQUINORM_INVALID_ARGUMENT);
  /* And of layer and RMS norm. */
  equinorm_layer_norm_options layer = {offsetof(equinorm_layer_norm_options, lengths), 1e-5, 1, 0, 0, (void*)&earlier};
  CHECK_OK(equinorm_layer_norm_forward(&layer, &x, NULL, NULL, NULL, NULL, &y, NULL, NULL, NULL));
  --layer.size;
  CHECK(equinorm_layer_norm_forward(&layer, &x, NULL, NULL, NULL, NULL, &y, NULL, NULL, NULL) ==
        EQUINORM_INVALID_ARGUMENT);
  equinorm_rms_norm_options rms = {offsetof(equinorm_rms_norm_options, lengths), 1e-6, 1, 0, 0, (void*)&earlier};
  CHECK_OK(equinorm_rms_norm_forward(&rms, &x, NULL, NULL, NULL, NULL, &y, NULL, NULL));
  --rms.size;
  CHECK(equinorm_rms_norm_forward(&rms, &x, NULL, NULL, NULL, NULL, &y, NULL, NULL) == EQUINORM_INVALID_ARGUMENT);
  free(d);
}

static void test_simd_targets(void) {
  char names[200], name[32], message[200];
  const size_t bytes = equinorm_simd_targets(names, sizeof names);
  CHECK(bytes == strlen(names) + 1);
  CHECK(equinorm_simd_targets(NULL, 0) == bytes);
  struct Data* want = make_data();
  train(want, EQUINORM_CHANNELS_LAST, NULL);
  for (char* target = strtok(names, " "); target != NULL; target = strtok(NULL, " ")) {
    CHECK_OK(equinorm_set_simd_target(target, NULL, 0));
    equinorm_simd_target(name, sizeof name);
    CHECK(strcmp(name, target) == 0);
    struct Data* d = make_data();
    train(d, EQUINORM_CHANNELS_LAST, NULL);
    CHECK(memcmp(d, want, sizeof *d) == 0);
    free(d);
  }
  CHECK_OK(equinorm_set_simd_target("", message, sizeof message));
  expect_refusal(equinorm_set_simd_target("abacus", message, sizeof message), EQUINORM_UNSUPPORTED, message,
                 "'abacus'");
  expect_refusal(equinorm_set_simd_target(NULL, message, sizeof message), EQUINORM_INVALID_ARGUMENT, message,
                 "[set_simd_target] name is null");
  free(want);
}

int main(void) {
  test_many_threads_at_once();
  for (equinorm_layout layout = EQUINORM_CHANNELS_LAST; layout <= EQUINORM_CHANNELS_FIRST; ++layout) {
    test_batch_norm_values(layout);
    test_same_bits_however_it_runs(layout);
  }
  test_every_type();
  test_inference();
  test_statistics_that_merge();
  test_variance_kinds();
  test_padding_is_not_seen();
  test_padding_of_rows_is_not_seen();
  test_group_and_instance_norm();
  test_layer_and_rms_norm();
  test_derivatives_in_a_direction();
  test_bad_arguments_are_named();
  test_structs_may_grow();
  test_simd_targets();
  CHECK(strcmp(equinorm_version(), EQUINORM_TEST_VERSION) == 0);
  if (failures == 0) printf("all as it should be\n");
  return failures != 0;
}
