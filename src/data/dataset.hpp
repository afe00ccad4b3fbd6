// Labelled images, kept as the bytes they came in and normalized only when a batch is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace equinorm::data {

/// How a byte becomes what a net sees: (byte/255 − mean)/deviation, per channel. Mean and deviation (of byte/255, over
/// all pixels) are those of the training set, for the test set too: a net must not learn anything from test data. A
/// constant channel has no deviation to divide by and becomes 0.
struct Normalization {
  std::vector<double> mean, deviation;  ///< [channels]
  std::vector<float> values;            ///< [channels, 256]: what each byte becomes

  /// Of images [count, height, width, channels]; exact, since it counts bytes first.
  static Normalization of(std::span<const std::uint8_t> images, std::size_t channels);

  /// Of given mean and deviation, [channels] each: those a net was trained with.
  static Normalization with(std::vector<double> mean, std::vector<double> deviation);
};

struct Dataset {
  std::string name;                  ///< for messages: "mnist, training"
  std::vector<std::uint8_t> images;  ///< [count, height, width, channels]
  std::vector<std::uint8_t> labels;  ///< [count], each less than classes
  std::size_t count = 0, height = 0, width = 0, channels = 0;
  std::size_t classes = 0;  ///< largest label of the training set + 1
  Normalization normalization;

  std::size_t image_size() const { return height * width * channels; }
};

struct DataPair {
  Dataset train, test;
};

/// "mnist", or a directory with four IDX files, plain or gzip'd: train-images*, train-labels*, t10k- or test-images*,
/// t10k- or test-labels* (with any prefix). Images are [n, h, w] or [n, h, w, c], labels [n]. If the directory has a
/// SHA256SUMS, it must list the files and agree. "mnist" is looked for in $EQUINORM_DATA/mnist, in data/mnist of the
/// source tree, and in ../../data/mnist from the program. Throws Error naming the file, what it holds and what was
/// expected.
DataPair load(const std::string& name_or_directory);

/// The rows as a data set of their own, with the normalization of the original.
Dataset take(const Dataset& dataset, std::span<const std::uint32_t> rows);

/// Writes a batch: images [rows, height, width, channels] normalized, labels [rows], to the front of the spans, which
/// may be longer. Allocates nothing. Throws Error if a span is too short or a row does not exist.
void gather(const Dataset& dataset, std::span<const std::uint32_t> rows, std::span<float> images,
            std::span<std::uint8_t> labels);

}  // namespace equinorm::data
