/* Equinorm for C (C11) and for whatever calls C: normalization for neural networks.
 *
 * What holds everywhere:
 * - No state: any function may be called from any number of threads at once, on tensors that do not overlap.
 *   The exception is equinorm_set_simd_target, which is for the start of a program.
 * - Nothing is thrown, printed or aborted. Every operation returns an equinorm_status; the text of a failure goes to a
 *   buffer of the caller's (equinorm_execution.message). If an argument is bad, nothing has been written.
 * - Structs that begin with `size` may grow at their end: fill them with their *_init function, which takes sizeof,
 * then set what should differ. A library older than its caller refuses fields it does not know unless they are 0. NULL
 * for such a struct stands for what *_init gives.
 * - Formulas, what may alias what, and exactness stand in the C++ header of the operation (equinorm/batch_norm.hpp …).
 */
#ifndef EQUINORM_EQUINORM_H
#define EQUINORM_EQUINORM_H

#include <stddef.h>
#include <stdint.h>

#include "equinorm/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Outcome ----------------------------------------------------------------------------------------------------- */

typedef int32_t equinorm_status;
enum {
  EQUINORM_OK = 0,
  EQUINORM_INVALID_ARGUMENT = 1, /* a null pointer, a shape that does not fit, an option out of its range */
  EQUINORM_TOO_FEW_VALUES = 2,   /* one element a channel in training: its variance says nothing */
  EQUINORM_NON_FINITE = 3,       /* NaN or infinity in a batch, under the policy that refuses them */
  EQUINORM_UNSUPPORTED = 4,      /* a type, layout, option or instruction set that this library or machine lacks */
  EQUINORM_OUT_OF_MEMORY = 5,    /* no scratch memory to be had; never if the caller brings a workspace */
  EQUINORM_INTERNAL_ERROR = 6    /* an exception from the caller's executor, or a fault of the library */
};

/* "0.1.0" */
EQUINORM_API const char* equinorm_version(void);

/* ---- Tensors ----------------------------------------------------------------------------------------------------- */

typedef int32_t equinorm_dtype;
enum {
  EQUINORM_F32 = 0,
  EQUINORM_F64 = 1,
  EQUINORM_BF16 = 2, /* the upper half of an f32 */
  EQUINORM_F16 = 3   /* IEEE 754 binary16 */
};

typedef int32_t equinorm_layout;
enum {
  EQUINORM_CHANNELS_LAST = 0, /* [N, spatial…, C]; a matrix [rows, C] is channels-last */
  EQUINORM_CHANNELS_FIRST = 1 /* [N, C, spatial…]: PyTorch's default */
};

#define EQUINORM_MAX_RANK 5

/* A view: owns nothing, copies nothing. A pointer to one may be NULL where an argument is optional. Parameters, running
 * statistics and gradients of parameters, given as void*, are arrays of float; of double if the tensors are
 * EQUINORM_F64. Statistics are double always. */
typedef struct equinorm_tensor {
  void* data; /* the library writes only to what an operation calls an output */
  equinorm_dtype dtype;
  equinorm_layout layout;
  size_t rank;                       /* 1 to 5 */
  size_t extents[EQUINORM_MAX_RANK]; /* slowest first, as they lie in memory */
  size_t row_stride;                 /* elements from one row of a matrix to the next; 0: dense */
} equinorm_tensor;

/* ---- Options of every operation ---------------------------------------------------------------------------------- */

/* Fused behind a norm. */
typedef int32_t equinorm_activation;
enum {
  EQUINORM_ACTIVATION_NONE = 0,
  EQUINORM_RELU = 1,
  EQUINORM_LEAKY_RELU = 2, /* slope 0.01 */
  EQUINORM_SILU = 3,
  EQUINORM_GELU = 4 /* exact, by erf */
};

/* A direction in which a norm is differentiated (*_jvp): the rates of change of forward's inputs. What is NULL does not
 * change; NULL in place of all: nothing does. */
typedef struct equinorm_tangents {
  const equinorm_tensor* x;
  const equinorm_tensor* residual; /* of layer and RMS norm none: x is the sum */
  const void* gamma;
  const void* beta;
} equinorm_tangents;

/* ---- How an operation runs --------------------------------------------------------------------------------------- */

typedef void (*equinorm_task)(void* context, size_t index);

/* Passed last to every operation. None of it changes a bit of a result. */
typedef struct equinorm_execution {
  size_t size;
  int32_t threads; /* 1; work is cut into at most this many tasks, one a thread */
  int32_t reserved;
  void* workspace;        /* NULL: the operation allocates. Else scratch, aligned to 64 bytes, of one call at a time */
  size_t workspace_bytes; /* at least what the operation's *_workspace_bytes says */
  /* NULL: OpenMP. Else calls task(context, i) once for each i in 0 … tasks − 1, on any threads, in any order, and
   * returns when all have returned. */
  void (*run)(void* run_data, size_t tasks, equinorm_task task, void* context);
  void* run_data;
  char* message; /* NULL, or room for the text of a failure: cut to fit and terminated; "" after success */
  size_t message_bytes;
} equinorm_execution;
EQUINORM_API void equinorm_execution_init(equinorm_execution* execution, size_t size);

/* The instruction sets that this machine can run, best first, as "AVX3 AVX2 SSE4": returns the bytes needed, the end
 * included, and writes what fits. */
EQUINORM_API size_t equinorm_simd_targets(char* names, size_t bytes);
/* The one in use, in the same manner. */
EQUINORM_API size_t equinorm_simd_target(char* name, size_t bytes);
/* Forces one of them; "" returns to the best. Not while operations run. */
EQUINORM_API equinorm_status equinorm_set_simd_target(const char* name, char* message, size_t message_bytes);

/* ---- Batch norm -------------------------------------------------------------------------------------------------- */

/* What is done with a batch whose statistics are not finite. */
typedef int32_t equinorm_non_finite;
enum {
  EQUINORM_NON_FINITE_ERROR = 0,    /* EQUINORM_NON_FINITE; running statistics stay, y may be partly written */
  EQUINORM_NON_FINITE_SKIP = 1,     /* y is computed, running statistics stay, `skipped` counts it */
  EQUINORM_NON_FINITE_PROPAGATE = 2 /* as PyTorch does: the running statistics are poisoned */
};

/* What is done in training with one element a channel. */
typedef int32_t equinorm_single_value;
enum { EQUINORM_SINGLE_VALUE_ERROR = 0, EQUINORM_SINGLE_VALUE_ALLOW = 1 };

/* Which variance the running statistics keep. */
typedef int32_t equinorm_variance_kind;
enum { EQUINORM_BIASED = 0, EQUINORM_UNBIASED = 1 };

typedef struct equinorm_batch_norm_options {
  size_t size;
  double epsilon; /* 1e-5, inside the root; at least 1e-30 */
  equinorm_activation activation;
  equinorm_non_finite non_finite;
  equinorm_single_value single_value;
  int32_t reserved;
  /* NULL, or [N]: sample n ends after lengths[n] of its positions; what lies behind is padding, which counts nowhere,
   * is not read, and is 0 in y, dx and dresidual. */
  const size_t* lengths;
} equinorm_batch_norm_options;
EQUINORM_API void equinorm_batch_norm_options_init(equinorm_batch_norm_options* options, size_t size);

/* running = (1 − w)·running + w·batch. Dialects: PyTorch is w = momentum, unbiased (what *_init gives, w = 0.1); Keras
 * and ONNX are w = 1 − momentum, biased; so is that of the note which the audit examines, with α = 0.9 for momentum: w
 * = 0.1. */
typedef struct equinorm_running_statistics {
  size_t size;
  void* mean;            /* [channels], updated */
  void* variance;        /* [channels], updated */
  uint64_t batches;      /* batches taken in: counted up */
  uint64_t skipped;      /* non-finite batches left out: counted up */
  double running_weight; /* w, the weight of the NEW value */
  int32_t cumulative;    /* not 0: w = 1/batches, the plain average of all (PyTorch's momentum = None) */
  equinorm_variance_kind variance_kind;
} equinorm_running_statistics;
EQUINORM_API void equinorm_running_statistics_init(equinorm_running_statistics* running, size_t size);

/* Scratch that forward and backward need for tensors like x, in bytes; 0 if x is not one that they take. */
EQUINORM_API size_t equinorm_batch_norm_workspace_bytes(const equinorm_batch_norm_options* options,
                                                        const equinorm_tensor* x);

/* Training forward: y = act(γ·x̂ + β + residual) with the batch's own statistics, written to mean and variance (biased),
 * [channels] each, for backward. gamma, beta, residual and running may be NULL. y may be x or residual. */
EQUINORM_API equinorm_status equinorm_batch_norm_forward(const equinorm_batch_norm_options* options,
                                                         const equinorm_tensor* x, const void* gamma, const void* beta,
                                                         const equinorm_tensor* residual, const equinorm_tensor* y,
                                                         double* mean, double* variance,
                                                         equinorm_running_statistics* running,
                                                         const equinorm_execution* execution);

/* Inference forward with the statistics given, [channels] each. gamma, beta and residual may be NULL. */
EQUINORM_API equinorm_status equinorm_batch_norm_inference(const equinorm_batch_norm_options* options,
                                                           const equinorm_tensor* x, const void* gamma,
                                                           const void* beta, const void* mean, const void* variance,
                                                           const equinorm_tensor* residual, const equinorm_tensor* y,
                                                           const equinorm_execution* execution);

/* Backward of training forward; x, mean and variance are forward's. Where an activation stands over a residual, one of
 * forward's y (relu and leaky_relu only) and residual is needed too; that both are NULL is refused if dresidual is
 * wanted, and else taken for a forward without a residual. y, residual, gamma, beta, dresidual, dgamma and dbeta may be
 * NULL. dx may be dy, x or residual; dresidual may be dy or residual if dx is not. */
EQUINORM_API equinorm_status equinorm_batch_norm_backward(const equinorm_batch_norm_options* options,
                                                          const equinorm_tensor* x, const equinorm_tensor* y,
                                                          const equinorm_tensor* residual, const equinorm_tensor* dy,
                                                          const void* gamma, const void* beta, const double* mean,
                                                          const double* variance, const equinorm_tensor* dx,
                                                          const equinorm_tensor* dresidual, void* dgamma, void* dbeta,
                                                          const equinorm_execution* execution);

/* The derivative of training forward in a direction, of which backward is the transpose. x, mean and variance are
 * forward's; residual too, needed only where an activation stands over it. y_tangent receives the rate of change of y;
 * it may be any of the tensors that are read. In double throughout: not as fast as the other passes. */
EQUINORM_API equinorm_status equinorm_batch_norm_jvp(const equinorm_batch_norm_options* options,
                                                     const equinorm_tensor* x, const equinorm_tensor* residual,
                                                     const equinorm_tangents* tangents, const void* gamma,
                                                     const void* beta, const double* mean, const double* variance,
                                                     const equinorm_tensor* y_tangent,
                                                     const equinorm_execution* execution);

/* ---- Statistics that merge --------------------------------------------------------------------------------------- */

/* Of each channel, the moments of `count` values: micro-batches, shards or a whole data set, taken in one by one in any
 * grouping, and committed to running statistics once. */
typedef struct equinorm_batch_moments {
  size_t size;
  size_t channels;
  double count; /* 0: nothing yet, mean and m2 are unread. Counted up */
  double* mean; /* [channels], updated */
  double* m2;   /* [channels], updated: Σ(x − mean)² */
} equinorm_batch_moments;
EQUINORM_API void equinorm_batch_moments_init(equinorm_batch_moments* moments, size_t size);

EQUINORM_API size_t equinorm_batch_moments_workspace_bytes(const equinorm_batch_norm_options* options,
                                                           const equinorm_tensor* x);

/* Takes x into the moments. Of the options, lengths are heeded. */
EQUINORM_API equinorm_status equinorm_batch_moments_accumulate(const equinorm_batch_norm_options* options,
                                                               const equinorm_tensor* x,
                                                               equinorm_batch_moments* moments,
                                                               const equinorm_execution* execution);

/* Takes `other` into the moments. Here and below, of the execution only the message is used. */
EQUINORM_API equinorm_status equinorm_batch_moments_merge(const equinorm_batch_moments* other,
                                                          equinorm_batch_moments* moments,
                                                          const equinorm_execution* execution);

/* Mean and biased variance, [channels] each. */
EQUINORM_API equinorm_status equinorm_batch_moments_statistics(const equinorm_batch_moments* moments, double* mean,
                                                               double* variance, const equinorm_execution* execution);

/* Takes the moments into running statistics as one batch. dtype: of the tensors, which says what `running` points to.
 */
EQUINORM_API equinorm_status equinorm_batch_moments_commit(const equinorm_batch_norm_options* options,
                                                           const equinorm_batch_moments* moments, equinorm_dtype dtype,
                                                           equinorm_running_statistics* running,
                                                           const equinorm_execution* execution);

/* The running statistics of the mixture of `count` models' inputs. weights: [count], divided by their sum; NULL: equal
 * ones. pooled may be one of the models. */
EQUINORM_API equinorm_status equinorm_pool_running_statistics(const equinorm_running_statistics* const* models,
                                                              size_t count, const double* weights, size_t channels,
                                                              equinorm_dtype dtype, equinorm_running_statistics* pooled,
                                                              const equinorm_execution* execution);

/* ---- Group norm -------------------------------------------------------------------------------------------------- */

typedef struct equinorm_group_norm_options {
  size_t size;
  size_t groups;  /* 1; divides the channels */
  double epsilon; /* 1e-5, inside the root; at least 1e-30 */
  equinorm_activation activation;
  int32_t reserved;
  const size_t* lengths; /* as batch norm's; of a sample of length 0 mean and variance are 0 */
} equinorm_group_norm_options;
EQUINORM_API void equinorm_group_norm_options_init(equinorm_group_norm_options* options, size_t size);

/* Scratch that every call needs for tensors like x, in bytes; 0 where the arguments are wrong. */
EQUINORM_API size_t equinorm_group_norm_workspace_bytes(const equinorm_group_norm_options* options,
                                                        const equinorm_tensor* x);

/* Forward, in training and inference alike: statistics per sample and group, [N, groups] each. gamma and beta:
 * [channels]. gamma, beta, residual, and, where backward will not follow, mean and variance may be NULL. y may be x or
 * residual. */
EQUINORM_API equinorm_status equinorm_group_norm_forward(const equinorm_group_norm_options* options,
                                                         const equinorm_tensor* x, const void* gamma, const void* beta,
                                                         const equinorm_tensor* residual, const equinorm_tensor* y,
                                                         double* mean, double* variance,
                                                         const equinorm_execution* execution);

/* Backward; x, mean, variance, y and residual are as for batch norm. y, residual, gamma, beta, dresidual, dgamma and
 * dbeta may be NULL. dx may be dy, x or residual; dresidual may be dy or residual if dx is not. */
EQUINORM_API equinorm_status equinorm_group_norm_backward(const equinorm_group_norm_options* options,
                                                          const equinorm_tensor* x, const equinorm_tensor* y,
                                                          const equinorm_tensor* residual, const equinorm_tensor* dy,
                                                          const void* gamma, const void* beta, const double* mean,
                                                          const double* variance, const equinorm_tensor* dx,
                                                          const equinorm_tensor* dresidual, void* dgamma, void* dbeta,
                                                          const equinorm_execution* execution);

/* The derivative in a direction, as batch norm's. */
EQUINORM_API equinorm_status equinorm_group_norm_jvp(const equinorm_group_norm_options* options,
                                                     const equinorm_tensor* x, const equinorm_tensor* residual,
                                                     const equinorm_tangents* tangents, const void* gamma,
                                                     const void* beta, const double* mean, const double* variance,
                                                     const equinorm_tensor* y_tangent,
                                                     const equinorm_execution* execution);

/* ---- Instance norm ----------------------------------------------------------------------------------------------- */

typedef struct equinorm_instance_norm_options {
  size_t size;
  double epsilon; /* 1e-5, inside the root; at least 1e-30 */
  equinorm_activation activation;
  int32_t reserved;
  const size_t* lengths; /* as batch norm's; of a sample of length 0 mean and variance are 0 */
} equinorm_instance_norm_options;
EQUINORM_API void equinorm_instance_norm_options_init(equinorm_instance_norm_options* options, size_t size);

/* Scratch that every call needs for tensors like x, in bytes; 0 where the arguments are wrong. */
EQUINORM_API size_t equinorm_instance_norm_workspace_bytes(const equinorm_instance_norm_options* options,
                                                           const equinorm_tensor* x);

/* Forward, in training and inference alike: statistics per sample and channel, [N, channels] each. gamma and beta:
 * [channels]. gamma, beta, residual, and, where backward will not follow, mean and variance may be NULL. */
EQUINORM_API equinorm_status equinorm_instance_norm_forward(const equinorm_instance_norm_options* options,
                                                            const equinorm_tensor* x, const void* gamma,
                                                            const void* beta, const equinorm_tensor* residual,
                                                            const equinorm_tensor* y, double* mean, double* variance,
                                                            const equinorm_execution* execution);

/* Backward; x, mean, variance, y and residual are as for batch norm. y, residual, gamma, beta, dresidual, dgamma and
 * dbeta may be NULL. dx may be dy, x or residual; dresidual may be dy or residual if dx is not. */
EQUINORM_API equinorm_status equinorm_instance_norm_backward(const equinorm_instance_norm_options* options,
                                                             const equinorm_tensor* x, const equinorm_tensor* y,
                                                             const equinorm_tensor* residual, const equinorm_tensor* dy,
                                                             const void* gamma, const void* beta, const double* mean,
                                                             const double* variance, const equinorm_tensor* dx,
                                                             const equinorm_tensor* dresidual, void* dgamma,
                                                             void* dbeta, const equinorm_execution* execution);

/* The derivative in a direction, as batch norm's. */
EQUINORM_API equinorm_status equinorm_instance_norm_jvp(const equinorm_instance_norm_options* options,
                                                        const equinorm_tensor* x, const equinorm_tensor* residual,
                                                        const equinorm_tangents* tangents, const void* gamma,
                                                        const void* beta, const double* mean, const double* variance,
                                                        const equinorm_tensor* y_tangent,
                                                        const equinorm_execution* execution);

/* ---- Layer norm -------------------------------------------------------------------------------------------------- */

typedef struct equinorm_layer_norm_options {
  size_t size;
  double epsilon;         /* 1e-5, inside the root; at least 1e-30 */
  size_t normalized_axes; /* 1; how many of the last axes make a row */
  equinorm_activation activation;
  int32_t reserved;
  /* NULL, or [N], N the first extent of x, which is not normalized: sample n ends after lengths[n] of its rows; those
   * behind are padding, which counts nowhere, is not read, and is 0 in y, sum and dx, and in the statistics. */
  const size_t* lengths;
} equinorm_layer_norm_options;
EQUINORM_API void equinorm_layer_norm_options_init(equinorm_layer_norm_options* options, size_t size);

/* Scratch that backward needs for tensors like x, in bytes. Forward needs none. */
EQUINORM_API size_t equinorm_layer_norm_workspace_bytes(const equinorm_layer_norm_options* options,
                                                        const equinorm_tensor* x);

/* Forward of each row by its own statistics, [rows] each. x: [rows…, features…], whose rows may lie row_stride apart;
 * gamma and beta: [features]. With a residual, x + residual is normalized, and written to sum. gamma, beta, residual,
 * sum, and, where backward will not follow, mean and variance may be NULL. y and sum may be x or residual. */
EQUINORM_API equinorm_status equinorm_layer_norm_forward(const equinorm_layer_norm_options* options,
                                                         const equinorm_tensor* x, const void* gamma, const void* beta,
                                                         const equinorm_tensor* residual, const equinorm_tensor* sum,
                                                         const equinorm_tensor* y, double* mean, double* variance,
                                                         const equinorm_execution* execution);

/* Backward; x is what was normalized: forward's x, or its sum. mean and variance are forward's. dsum, the gradient that
 * reaches the sum from elsewhere, gamma, beta, dgamma and dbeta may be NULL. dx is the gradient of x and of the
 * residual. */
EQUINORM_API equinorm_status equinorm_layer_norm_backward(const equinorm_layer_norm_options* options,
                                                          const equinorm_tensor* x, const equinorm_tensor* dy,
                                                          const void* gamma, const void* beta, const double* mean,
                                                          const double* variance, const equinorm_tensor* dsum,
                                                          const equinorm_tensor* dx, void* dgamma, void* dbeta,
                                                          const equinorm_execution* execution);

/* The derivative of forward in a direction, as batch norm's; x is what was normalized, as for backward. */
EQUINORM_API equinorm_status equinorm_layer_norm_jvp(const equinorm_layer_norm_options* options,
                                                     const equinorm_tensor* x, const equinorm_tangents* tangents,
                                                     const void* gamma, const void* beta, const double* mean,
                                                     const double* variance, const equinorm_tensor* y_tangent,
                                                     const equinorm_execution* execution);

/* ---- RMS norm ---------------------------------------------------------------------------------------------------- */

typedef struct equinorm_rms_norm_options {
  size_t size;
  double epsilon;         /* 1e-6, inside the root; at least 1e-30 */
  size_t normalized_axes; /* 1; how many of the last axes make a row */
  equinorm_activation activation;
  int32_t reserved;
  const size_t* lengths; /* as layer norm's */
} equinorm_rms_norm_options;
EQUINORM_API void equinorm_rms_norm_options_init(equinorm_rms_norm_options* options, size_t size);

/* Scratch that backward needs for tensors like x, in bytes. Forward needs none. */
EQUINORM_API size_t equinorm_rms_norm_workspace_bytes(const equinorm_rms_norm_options* options,
                                                      const equinorm_tensor* x);

/* As layer norm, but by the root of the mean square alone, which is written to mean_square, [rows], without epsilon. */
EQUINORM_API equinorm_status equinorm_rms_norm_forward(const equinorm_rms_norm_options* options,
                                                       const equinorm_tensor* x, const void* gamma, const void* beta,
                                                       const equinorm_tensor* residual, const equinorm_tensor* sum,
                                                       const equinorm_tensor* y, double* mean_square,
                                                       const equinorm_execution* execution);

/* Backward; x is what was normalized: forward's x, or its sum. mean_square is forward's. dsum, the gradient that
 * reaches the sum from elsewhere, gamma, beta, dgamma and dbeta may be NULL. dx is the gradient of x and of the
 * residual. */
EQUINORM_API equinorm_status equinorm_rms_norm_backward(const equinorm_rms_norm_options* options,
                                                        const equinorm_tensor* x, const equinorm_tensor* dy,
                                                        const void* gamma, const void* beta, const double* mean_square,
                                                        const equinorm_tensor* dsum, const equinorm_tensor* dx,
                                                        void* dgamma, void* dbeta, const equinorm_execution* execution);

/* The derivative of forward in a direction, as layer norm's. */
EQUINORM_API equinorm_status equinorm_rms_norm_jvp(const equinorm_rms_norm_options* options, const equinorm_tensor* x,
                                                   const equinorm_tangents* tangents, const void* gamma,
                                                   const void* beta, const double* mean_square,
                                                   const equinorm_tensor* y_tangent,
                                                   const equinorm_execution* execution);

#ifdef __cplusplus
}
#endif

#endif
