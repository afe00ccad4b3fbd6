// Batch norm over [samples, channels, inner]: group of channels by group, each normalized while it is still in the
// caches; inference in the order of memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <numeric>

#include "ops/batch_norm/channels.hpp"
#include "ops/batch_norm/flat.hpp"
#include "ops/batch_norm/plan.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::batch_norm {

template <class T>
class Segments {
 public:
  Segments(const Geometry& g, const Scratch<T>& scratch, Workers workers)
      : g_(g), p_(g), s_(scratch), workers_(workers) {}

  /// Statistics, then y.
  void forward(kernels::Forward<T> t, const Statistics& out, const ForwardChannels<T>& channels) const {
    t.stream = streams({t.y});
    t.ahead = t.stream ? next_group(1) : 0;
    run([&](const Part& part) { moments(part, t.x); },
        [&](std::size_t begin, std::size_t end) {
          finish_statistics(begin, end, out);
          return channels.prepare(begin, end);
        },
        [&](const Part& part, bool careful) { normalize_part(part, t, channels, careful); });
  }

  void statistics(const T* x, const Statistics& out) const {
    for_each_part([&](const Part& part) { moments(part, x); });
    finish_statistics(0, g_.channels, out);
  }

  void normalize(kernels::Forward<T> t, const ForwardChannels<T>& channels) const {
    t.stream = streams({t.y});
    const bool careful = channels.prepare_all();
    if (careful || p_.flat) {
      t.ahead = g_.channels * g_.inner;  // the sample behind
      for_each_part([&](const Part& part) { normalize_part(part, t, channels, careful); });
      return;
    }
    // No statistics keep a channel together: in the order of memory.
    if (!t.stream) t.ahead = 0;
    const std::size_t cuts = p_.pieces_of_a_plane;
    parallel_ranges(g_.samples * g_.channels * cuts, workers_, [&](std::size_t i, std::size_t end) {
      while (i < end) {
        const std::size_t plane = i / cuts, begin = i % cuts * p_.length, c = plane % g_.channels;
        const std::size_t count = cuts > 1 ? 1 : std::min(end - i, g_.channels - c);
        run_.normalize_planes(t.at(plane * g_.inner + begin),
                              {1, 0, count, g_.inner, std::min(p_.length, g_.inner - begin)}, coefficients().at(c));
        i += count;
      }
    });
  }

  void differentiate(kernels::Backward<T> t, const BackwardChannels<T>& channels) const {
    t.stream = streams({t.dx, t.dresidual}, kernels::kStreamBytesOfPlaneGradients);
    t.ahead = next_group(t.y == nullptr && t.residual == nullptr ? 2 : 3);
    if (!channels.forward().prepare_all()) t.gate_first(!t.stream);
    const kernels::Backward<T> rest = t.after_sums(true);
    run([&](const Part& part) { dots(part, t); },
        [&](std::size_t begin, std::size_t end) { return finish_gradients(begin, end, rest, channels); },
        [&](const Part& part, bool careful) { differentiate_part(part, rest, channels, careful); });
  }

 private:
  static constexpr std::size_t kGroupsOfThread = 4;  ///< so many are dealt fairly enough
  static constexpr std::size_t kMostFetched = 512 << 10;

  /// How far from a group of channels the next one lies, to be fetched while this one is written; or 0: if its inputs
  /// are more than kMostFetched bytes the second cache cannot hold both, and what is still to be read would go
  /// (measured with one of 2 MB: groups of 1 MB and more took 7 to 30 % longer).
  std::size_t next_group(std::size_t inputs) const {
    const std::size_t distance = p_.group * g_.inner;
    return inputs * g_.samples * distance * sizeof(T) <= kMostFetched ? distance : 0;
  }

  /// Some pieces of a group of channels.
  struct Part {
    std::size_t index;                   ///< which of the group's parts
    std::size_t begin, end;              ///< channels
    std::size_t first_piece, end_piece;  ///< pieces
  };

  Part part(std::size_t group, std::size_t index) const {
    const std::size_t begin = group * p_.group;
    return {index, begin, std::min(begin + p_.group, g_.channels), p_.first_piece(index), p_.first_piece(index + 1)};
  }
  template <class Body>
  void for_each_part(const Body& body) const {
    parallel_for(p_.groups * p_.parts, workers_,
                 [&](std::size_t unit) { body(part(unit / p_.parts, unit % p_.parts)); });
  }

  /// For each group of channels: reduce(part) for its parts, finish(begin, end) of its channels once, which says
  /// whether one needs care, then apply(part, that) from the last on, which is in the caches. Where groups do not go
  /// round the threads, their parts are dealt instead.
  template <class Reduce, class Finish, class Apply>
  void run(const Reduce& reduce, const Finish& finish, const Apply& apply) const {
    const auto threads = static_cast<std::size_t>(std::max(workers_.threads, 1));
    if (p_.parts == 1 || p_.groups % threads == 0 || p_.groups >= kGroupsOfThread * threads) {
      parallel_for(p_.groups, workers_, [&](std::size_t group) {
        for (std::size_t index = 0; index < p_.parts; ++index) reduce(part(group, index));
        const bool careful = finish(part(group, 0).begin, part(group, 0).end);
        for (std::size_t index = p_.parts; index-- > 0;) apply(part(group, index), careful);
      });
      return;
    }
    for_each_part(reduce);
    const bool careful = finish(0, g_.channels);
    for_each_part([&](const Part& part) { apply(part, careful); });
  }

  /// Calls body with the kernels for these planes.
  template <class Body>
  void with_kernels(const Body& body) const {
    if (p_.flat) return body(flat_);
    body(run_);
  }

  /// Whether outputs are written around the caches: what begins a vector must begin a line.
  bool streams(std::initializer_list<const T*> outs, std::size_t least = kernels::kStreamBytes) const {
    return kernels::streams(g_.elements, outs, p_.flat ? std::gcd(p_.group, g_.channels) * g_.inner : g_.inner, least);
  }
  bool whole_lines(std::size_t begin, std::size_t end) const { return !p_.flat || end - begin == p_.group; }

  kernels::Coefficients<T> coefficients() const { return s_.coefficients; }
  std::size_t at(std::size_t c, std::size_t part) const { return part * g_.channels + c; }

  std::size_t values_of_part(std::size_t part) const {
    std::size_t values = 0;
    for (std::size_t i = p_.first_piece(part); i < p_.first_piece(part + 1); ++i) {
      const PlaneBlock block = p_.block(0, 1, i);
      values += block.samples * block.length;
    }
    return values;
  }

  void moments(const Part& part, const T* x) const {
    std::size_t count = 0;
    for (std::size_t i = part.first_piece; i < part.end_piece; ++i) {
      PlaneBlock block = p_.block(part.begin, part.end, i);
      block.cached = kernels::is_cached<T>(g_.elements);
      with_kernels([&](const auto& run) {
        run.plane_moments(x + p_.offset(part.begin, i), block, count, s_.first + at(part.begin, part.index),
                          s_.second + at(part.begin, part.index));
      });
      count += block.samples * block.length;
    }
  }

  void dots(const Part& part, const kernels::Backward<T>& t) const {
    double *sum = s_.first + at(part.begin, part.index), *dot = s_.second + at(part.begin, part.index);
    for (double* array : {sum, dot}) std::fill_n(array, part.end - part.begin, 0.0);
    for (std::size_t i = part.first_piece; i < part.end_piece; ++i) {
      with_kernels([&](const auto& run) {
        auto moved = t.at(p_.offset(part.begin, i));
        moved.stream = false;  // g will be read soon
        run.plane_dots(moved, p_.block(part.begin, part.end, i), coefficients().at(part.begin), sum, dot);
      });
    }
  }

  void finish_statistics(std::size_t begin, std::size_t end, const Statistics& out) const {
    for (std::size_t c = begin; c < end; ++c) {
      Moments total;
      for (std::size_t part = 0; part < p_.parts; ++part) {
        const auto count = static_cast<double>(p_.parts == 1 ? g_.values : values_of_part(part));
        total.merge({count, s_.first[at(c, part)], s_.second[at(c, part)]});
      }
      out.mean[c] = total.mean;
      out.variance[c] = total.variance();
    }
  }

  bool finish_gradients(std::size_t begin, std::size_t end, const kernels::Backward<T>& t,
                        const BackwardChannels<T>& channels) const {
    for (std::size_t c = begin; c < end; ++c) {
      s_.sum[c] = s_.dot[c] = 0;
      for (std::size_t part = 0; part < p_.parts; ++part) {
        s_.sum[c] += s_.first[at(c, part)];
        s_.dot[c] += s_.second[at(c, part)];
      }
    }
    return channels.finish(begin, end, t);
  }

  /// Calls ordinary(begin, end) for the channels of a part, all at once, or if one may need care (`any`) one by one, as
  /// careful(c) must take those that do.
  template <class NeedsCare, class Ordinary, class Careful>
  void with_care(const Part& part, bool any, const NeedsCare& needs_care, const Ordinary& ordinary,
                 const Careful& careful) const {
    if (!any) return ordinary(part.begin, part.end);
    for (std::size_t c = part.begin; c < part.end; ++c) {
      if (!needs_care(c)) {
        ordinary(c, c + 1);
      } else if (part.index == 0) {
        careful(c);
      }
    }
  }

  void normalize_part(const Part& part, const kernels::Forward<T>& t, const ForwardChannels<T>& channels,
                      bool careful) const {
    with_care(
        part, careful, [&](std::size_t c) { return channels.needs_care(c); },
        [&](std::size_t begin, std::size_t end) {
          for (std::size_t i = part.end_piece; i-- > part.first_piece;) {
            with_kernels([&](const auto& run) {
              auto moved = t.at(p_.offset(begin, i));
              moved.stream = t.stream && whole_lines(begin, end);
              run.normalize_planes(moved, p_.block(begin, end, i), coefficients().at(begin));
            });
          }
        },
        [&](std::size_t c) { channels.normalize_carefully(c, t); });
  }

  void differentiate_part(const Part& part, const kernels::Backward<T>& t, const BackwardChannels<T>& channels,
                          bool careful) const {
    with_care(
        part, careful, [&](std::size_t c) { return channels.needs_care(c); },
        [&](std::size_t begin, std::size_t end) {
          for (std::size_t i = part.end_piece; i-- > part.first_piece;) {
            with_kernels([&](const auto& run) {
              auto moved = t.at(p_.offset(begin, i));
              moved.stream = t.stream && whole_lines(begin, end);
              run.gradient_planes(moved, p_.block(begin, end, i), coefficients().at(begin));
            });
          }
        },
        [&](std::size_t c) { channels.differentiate_carefully(c, t); });
  }

  const Geometry& g_;
  SegmentPlan p_;
  const Scratch<T>& s_;
  Workers workers_;
  const kernels::Kernels<T>& run_ = kernels::get<T>();
  FlatPlanes<T> flat_;
};

}  // namespace equinorm::batch_norm
