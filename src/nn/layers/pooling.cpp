#include "nn/layers/pooling.hpp"

#include <algorithm>

#include "nn/vectorize.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::nn {
namespace {

// The kernels below work on one row of windows: `count` floats in a pixel (channels), pixels `count` apart, rows of the
// image `row` floats apart.

EQUINORM_VECTORIZE void max_of_window(const float* x, std::size_t row, std::size_t window, std::size_t channels,
                                      float* y, std::uint8_t* position) {
  for (std::size_t c = 0; c < channels; ++c) {
    float best = x[c];
    std::int32_t at = 0;
    for (std::size_t i = 0; i < window; ++i) {
      for (std::size_t j = 0; j < window; ++j) {
        const float value = x[i * row + j * channels + c];
        const bool better = value > best || value != value;  // a NaN wins and stays
        best = better ? value : best;
        at = better ? static_cast<std::int32_t>(i * window + j) : at;
      }
    }
    y[c] = best;
    position[c] = static_cast<std::uint8_t>(at);
  }
}

/// The window of 2×2, for which nothing but straight code is fast enough to hide behind memory.
EQUINORM_VECTORIZE void max_of_2x2(const float* x, std::size_t row, std::size_t windows, std::size_t channels, float* y,
                                   std::uint8_t* position) {
  for (std::size_t w = 0; w < windows; ++w) {
    const float* a = x + 2 * w * channels;
    const float* b = a + channels;
    const float* c = a + row;
    const float* d = c + channels;
    float* out = y + w * channels;
    std::uint8_t* at = position + w * channels;
    for (std::size_t i = 0; i < channels; ++i) {
      float best = a[i];
      std::int32_t p = 0;
      const auto challenge = [&](float value, std::int32_t position_of_value) {
        const bool better = value > best || value != value;
        best = better ? value : best;
        p = better ? position_of_value : p;
      };
      challenge(b[i], 1);
      challenge(c[i], 2);
      challenge(d[i], 3);
      out[i] = best;
      at[i] = static_cast<std::uint8_t>(p);
    }
  }
}

EQUINORM_VECTORIZE void spread_maximum(const float* dy, const std::uint8_t* position, std::size_t row,
                                       std::size_t window, std::size_t windows, std::size_t channels, float* dx) {
  for (std::size_t w = 0; w < windows; ++w) {
    for (std::size_t i = 0; i < window; ++i) {
      for (std::size_t j = 0; j < window; ++j) {
        const auto here = static_cast<std::int32_t>(i * window + j);
        float* to = dx + i * row + (w * window + j) * channels;
        for (std::size_t c = 0; c < channels; ++c) {
          to[c] = std::int32_t{position[w * channels + c]} == here ? dy[w * channels + c] : 0.0F;
        }
      }
    }
  }
}

EQUINORM_VECTORIZE void mean_of_window(const float* x, std::size_t row, std::size_t height, std::size_t width,
                                       std::size_t channels, float* y) {
  const float share = 1.0F / static_cast<float>(height * width);
  for (std::size_t c = 0; c < channels; ++c) y[c] = 0;
  for (std::size_t i = 0; i < height; ++i) {
    for (std::size_t j = 0; j < width; ++j) {
      for (std::size_t c = 0; c < channels; ++c) y[c] += x[i * row + j * channels + c];
    }
  }
  for (std::size_t c = 0; c < channels; ++c) y[c] *= share;
}

EQUINORM_VECTORIZE void spread_mean(const float* dy, std::size_t row, std::size_t height, std::size_t width,
                                    std::size_t channels, float* dx) {
  const float share = 1.0F / static_cast<float>(height * width);
  for (std::size_t i = 0; i < height; ++i) {
    for (std::size_t j = 0; j < width; ++j) {
      for (std::size_t c = 0; c < channels; ++c) dx[i * row + j * channels + c] = dy[c] * share;
    }
  }
}

/// Where the windows of an image lie.
struct Grid {
  Grid(const Shape& in, const Shape& out, std::size_t window)
      : images(in[0]),
        row(in[2] * in[3]),
        image(in[1] * row),
        rows(out[1]),
        columns(out[2]),
        channels(in[3]),
        step(window * channels),
        exact(in[1] == rows * window && in[2] == columns * window) {}
  std::size_t images, row, image, rows, columns, channels, step;
  bool exact;  // no pixel is left out

  std::size_t in_at(std::size_t n, std::size_t i, std::size_t window) const { return n * image + i * window * row; }
  std::size_t out_at(std::size_t n, std::size_t i) const { return (n * rows + i) * columns * channels; }
};

/// Calls body(n, i) for row i of windows of image n; blocks are images. Pixels outside all windows get no gradient.
template <class Body>
void for_each_row(const Grid& grid, int threads, float* dx, const Body& body) {
  parallel_for(grid.images, threads, [&](std::size_t n) {
    if (dx != nullptr && !grid.exact) std::fill_n(dx + n * grid.image, grid.image, 0.0F);
    for (std::size_t i = 0; i < grid.rows; ++i) body(n, i);
  });
}

}  // namespace

MaxPool::MaxPool(std::string name, const Shape& out, std::size_t window, bool training)
    : Layer(std::move(name), "pool"), window_(window) {
  // Positions, a byte each (window² < 256); in inference they are written all the same, to scratch.
  (training ? plan_.saved : plan_.workspace) = out.elements();
}

void MaxPool::forward(const Call& call) {
  const Grid grid(in().shape, out().shape, window_);
  auto* const positions = reinterpret_cast<std::uint8_t*>(bound_.saved != nullptr ? bound_.saved : bound_.workspace);
  for_each_row(grid, call.threads, nullptr, [&](std::size_t n, std::size_t i) {
    const float* x = in().values + grid.in_at(n, i, window_);
    float* y = out().values + grid.out_at(n, i);
    std::uint8_t* position = positions + grid.out_at(n, i);
    if (window_ == 2) {
      max_of_2x2(x, grid.row, grid.columns, grid.channels, y, position);
      return;
    }
    for (std::size_t j = 0; j < grid.columns; ++j) {
      max_of_window(x + j * grid.step, grid.row, window_, grid.channels, y + j * grid.channels,
                    position + j * grid.channels);
    }
  });
}

void MaxPool::backward(const Call& call) {
  const Grid grid(in().shape, out().shape, window_);
  const auto* const positions = reinterpret_cast<const std::uint8_t*>(bound_.saved);
  for_each_row(grid, call.threads, in().gradient, [&](std::size_t n, std::size_t i) {
    spread_maximum(out().gradient + grid.out_at(n, i), positions + grid.out_at(n, i), grid.row, window_, grid.columns,
                   grid.channels, in().gradient + grid.in_at(n, i, window_));
  });
}

AveragePool::AveragePool(std::string name, std::size_t window) : Layer(std::move(name), "pool"), window_(window) {}

void AveragePool::forward(const Call& call) {
  const Grid grid(in().shape, out().shape, window_);
  for_each_row(grid, call.threads, nullptr, [&](std::size_t n, std::size_t i) {
    for (std::size_t j = 0; j < grid.columns; ++j) {
      mean_of_window(in().values + grid.in_at(n, i, window_) + j * grid.step, grid.row, window_, window_, grid.channels,
                     out().values + grid.out_at(n, i) + j * grid.channels);
    }
  });
}

void AveragePool::backward(const Call& call) {
  const Grid grid(in().shape, out().shape, window_);
  for_each_row(grid, call.threads, in().gradient, [&](std::size_t n, std::size_t i) {
    for (std::size_t j = 0; j < grid.columns; ++j) {
      spread_mean(out().gradient + grid.out_at(n, i) + j * grid.channels, grid.row, window_, window_, grid.channels,
                  in().gradient + grid.in_at(n, i, window_) + j * grid.step);
    }
  });
}

GlobalAveragePool::GlobalAveragePool(std::string name) : Layer(std::move(name), "pool") {}

void GlobalAveragePool::forward(const Call& call) {
  const Shape& s = in().shape;
  parallel_for(s[0], call.threads, [&](std::size_t n) {
    mean_of_window(in().values + n * s[1] * s[2] * s[3], s[2] * s[3], s[1], s[2], s[3], out().values + n * s[3]);
  });
}

void GlobalAveragePool::backward(const Call& call) {
  const Shape& s = in().shape;
  parallel_for(s[0], call.threads, [&](std::size_t n) {
    spread_mean(out().gradient + n * s[3], s[2] * s[3], s[1], s[2], s[3], in().gradient + n * s[1] * s[2] * s[3]);
  });
}

}  // namespace equinorm::nn
