// Batch norm over [samples, channels, inner]: channel by channel, each normalized while it is still in the caches.
#pragma once

#include <hwy/cache_control.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>

#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/kernels.hpp"
#include "ops/batch_norm/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::batch_norm {

class Segments {
 public:
  Segments(const Geometry& g, const Scratch& scratch, int threads) : g_(g), p_(g), s_(scratch), threads_(threads) {}

  /// Statistics, then y. A channel that is not cut is normalized at once, from the caches.
  void forward(ForwardTensors t, const BatchNormStatistics& out, const ForwardChannels& channels) const {
    t.stream = streams(g_, t.y, g_.inner);
    for_each_part({t.x, t.residual, t.y}, [&](std::size_t c, std::size_t part, std::size_t begin, std::size_t end) {
      Moments moments;
      for (std::size_t i = begin; i < end; ++i) {
        const auto piece = p_.piece(c, i);
        moments.merge(segment_moments(t.x + piece.offset, block(piece)));
      }
      s_.first[c * p_.parts + part] = moments.mean;
      s_.second[c * p_.parts + part] = moments.m2;
      if (p_.parts == 1) finish_and_normalize(c, t, out, channels);
    });
    if (p_.parts == 1) return;
    for (std::size_t c = 0; c < g_.channels; ++c) finish_statistics(c, out);
    normalize(t, channels);
  }

  void normalize(ForwardTensors t, const ForwardChannels& channels) const {
    t.stream = streams(g_, t.y, g_.inner);
    for (std::size_t c = 0; c < g_.channels; ++c) channels.write(c, s_, c);
    for_each_part({t.x, t.residual, t.y}, [&](std::size_t c, std::size_t, std::size_t begin, std::size_t end) {
      normalize_pieces(c, begin, end, t, channels);
    });
  }

  void differentiate(BackwardTensors t, const BackwardChannels& channels) const {
    t.stream = streams(g_, t.dx, g_.inner);
    for (std::size_t c = 0; c < g_.channels; ++c) channels.forward().write(c, s_, c);
    const auto tensors = {t.x, t.y, t.dy, static_cast<const float*>(t.dx), static_cast<const float*>(t.dresidual)};
    for_each_part(tensors, [&](std::size_t c, std::size_t part, std::size_t begin, std::size_t end) {
      double sum = 0, dot = 0;
      if (channels.forward().needs_care(c)) {
        if (part == 0) careful_dots(g_, c, t, channels.forward().channel(c), &sum, &dot);
      } else {
        for (std::size_t i = begin; i < end; ++i) {
          const auto piece = p_.piece(c, i);
          segment_dots(t.at(piece.offset), block(piece), s_.coefficients().at(c), &sum, &dot);
        }
        dot -= sum * static_cast<double>(s_.mean_lo[c]);
      }
      s_.first[c * p_.parts + part] = sum;
      s_.second[c * p_.parts + part] = dot;
      if (p_.parts == 1) {
        finish_gradients(c, channels);
        differentiate_pieces(c, begin, end, t, channels);
      }
    });
    if (p_.parts == 1) return;
    for (std::size_t c = 0; c < g_.channels; ++c) finish_gradients(c, channels);
    for_each_part(tensors, [&](std::size_t c, std::size_t, std::size_t begin, std::size_t end) {
      differentiate_pieces(c, begin, end, t, channels);
    });
  }

 private:
  /// Calls body(channel, part, first piece, one past the last). `tensors` are those that body is about to touch.
  template <class Body>
  void for_each_part(std::initializer_list<const float*> tensors, const Body& body) const {
    parallel_for(p_.groups * p_.parts, threads_, [&](std::size_t unit) {
      const std::size_t part = unit % p_.parts, begin = unit / p_.parts * p_.group;
      const std::size_t end = std::min(begin + p_.group, g_.channels);
      if (p_.group > 1) fetch(tensors, begin, end);
      for (std::size_t c = begin; c < end; ++c) {
        body(c, part, part * p_.pieces / p_.parts, (part + 1) * p_.pieces / p_.parts);
      }
    });
  }

  /// Small planes of one channel lie far apart: fetched one by one they would cost a miss each.
  void fetch(std::initializer_list<const float*> tensors, std::size_t begin, std::size_t end) const {
    constexpr std::size_t kLine = 64 / sizeof(float);
    for (const float* tensor : tensors) {
      if (tensor == nullptr) continue;
      for (std::size_t sample = 0; sample < g_.samples; ++sample) {
        const float* plane = tensor + (sample * g_.channels + begin) * g_.inner;
        for (std::size_t i = 0; i < (end - begin) * g_.inner; i += kLine) hwy::Prefetch(plane + i);
      }
    }
  }

  Block block(const SegmentPlan::Piece& piece) const { return {piece.segments, p_.stride(), piece.length}; }

  std::size_t values_of_part(std::size_t c, std::size_t part) const {
    std::size_t values = 0;
    for (std::size_t i = part * p_.pieces / p_.parts; i < (part + 1) * p_.pieces / p_.parts; ++i) {
      const auto piece = p_.piece(c, i);
      values += piece.segments * piece.length;
    }
    return values;
  }

  void finish_statistics(std::size_t c, const BatchNormStatistics& out) const {
    Moments moments;
    for (std::size_t part = 0; part < p_.parts; ++part) {
      const std::size_t count = p_.parts == 1 ? g_.values : values_of_part(c, part);
      moments.merge({static_cast<double>(count), s_.first[c * p_.parts + part], s_.second[c * p_.parts + part]});
    }
    out.mean[c] = moments.mean;
    out.variance[c] = moments.variance();
  }

  void finish_and_normalize(std::size_t c, const ForwardTensors& t, const BatchNormStatistics& out,
                            const ForwardChannels& channels) const {
    finish_statistics(c, out);
    channels.write(c, s_, c);
    normalize_pieces(c, 0, p_.pieces, t, channels);
  }

  void finish_gradients(std::size_t c, const BackwardChannels& channels) const {
    double sum = 0, dot = 0;
    for (std::size_t part = 0; part < p_.parts; ++part) {
      sum += s_.first[c * p_.parts + part];
      dot += s_.second[c * p_.parts + part];
    }
    channels.write_parameters(c, sum, dot);
    channels.write(c, sum, dot, s_, c);
    s_.first[c * p_.parts] = sum;
    s_.second[c * p_.parts] = dot;
  }

  void normalize_pieces(std::size_t c, std::size_t begin, std::size_t end, const ForwardTensors& t,
                        const ForwardChannels& channels) const {
    if (channels.needs_care(c)) {
      if (begin == 0) careful_normalize(g_, c, t, channels.channel(c));
      return;
    }
    for (std::size_t i = end; i-- > begin;) {
      const auto piece = p_.piece(c, i);
      normalize_segments(t.at(piece.offset), block(piece), s_.coefficients().at(c));
    }
  }

  void differentiate_pieces(std::size_t c, std::size_t begin, std::size_t end, const BackwardTensors& t,
                            const BackwardChannels& channels) const {
    if (channels.forward().needs_care(c)) {
      const CarefulChannel k = channels.channel(c, s_.first[c * p_.parts], s_.second[c * p_.parts]);
      if (begin == 0) careful_differentiate(g_, c, t, k);
      return;
    }
    for (std::size_t i = end; i-- > begin;) {
      const auto piece = p_.piece(c, i);
      gradient_segments(t.at(piece.offset), block(piece), s_.coefficients().at(c));
    }
  }

  const Geometry& g_;
  SegmentPlan p_;
  const Scratch& s_;
  int threads_;
};

}  // namespace equinorm::batch_norm
