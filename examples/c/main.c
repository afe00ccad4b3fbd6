/* Batch norm from C: a step of training, then inference with the running statistics.
 *
 *   cc main.c $(pkg-config --cflags --libs equinorm)
 */
#include <equinorm/equinorm.h>
#include <stdio.h>
#include <stdlib.h>

enum { kRows = 6, kChannels = 3 };

static void check(equinorm_status status, const char* message) {
  if (status == EQUINORM_OK) return;
  fprintf(stderr, "%s\n", message);
  exit(1);
}

int main(void) {
  float x[kRows * kChannels], y[kRows * kChannels];
  for (int i = 0; i < kRows * kChannels; ++i) x[i] = (float)(i % kChannels * 100 + i);
  const equinorm_tensor in = {x, EQUINORM_F32, EQUINORM_CHANNELS_LAST, 2, {kRows, kChannels}, 0};
  equinorm_tensor out = in;
  out.data = y;

  char message[256];
  equinorm_execution execution;
  equinorm_execution_init(&execution, sizeof execution);
  execution.threads = 2;
  execution.message = message;
  execution.message_bytes = sizeof message;

  float running_mean[kChannels] = {0}, running_variance[kChannels] = {1, 1, 1};
  equinorm_running_statistics running;
  equinorm_running_statistics_init(&running, sizeof running); /* PyTorch's dialect */
  running.mean = running_mean;
  running.variance = running_variance;

  const float gamma[kChannels] = {1, 2, 3};
  double mean[kChannels], variance[kChannels];
  check(equinorm_batch_norm_forward(NULL, &in, gamma, NULL, NULL, &out, mean, variance, &running, &execution), message);
  printf("training:  channel 0 has mean %g, variance %g; its first output is %.4f\n", mean[0], variance[0],
         (double)y[0]);
  check(equinorm_batch_norm_inference(NULL, &in, gamma, NULL, running_mean, running_variance, NULL, &out, &execution),
        message);
  printf("inference: with running mean %g, variance %g it is %.4f\n", (double)running_mean[0],
         (double)running_variance[0], (double)y[0]);

  out.extents[0] = kRows - 1; /* a mistake */
  if (equinorm_batch_norm_forward(NULL, &in, gamma, NULL, NULL, &out, mean, variance, &running, &execution) ==
      EQUINORM_OK) {
    return 1;
  }
  printf("a mistake: %s\n", message);
  return 0;
}
