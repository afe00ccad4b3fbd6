// Group norm over [samples, channels, positions], where a group lies in one piece: a few groups, or one, after another,
// each normalized while it is still in the first caches.
//
// What is done between one unit and the next is short: memory waits for it. (Measured: by one walk for planes and
// columns, with all that either needs, instance norm took 4 to 11 % longer in training, 4 to 8 % in backward.)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/pages.hpp"
#include "ops/group_norm/groups.hpp"
#include "reduce/moments.hpp"

namespace equinorm::group_norm {

template <class T>
struct PlaneScratch : GradientSums {
  PlaneScratch(const Plan& p, Workspace& workspace, const T* /*out*/ = nullptr) : GradientSums(p.g, workspace) {
    auto* next = workspace.take<double>(6 * p.together);
    for (double** array : {&first, &second, &mean, &inverse, &offset, &slope}) {
      *array = next;
      if (next != nullptr) next += p.together;
    }
    const std::size_t channels = std::min(p.g.channels, Plan::kRunChannels);
    sums = workspace.take<double>(2 * channels);
    coefficients = workspace.take<Parameter<T>>(6 * channels);
  }

  // [groups of a unit]:
  double *first = nullptr, *second = nullptr;  ///< means and M2, or Σγg and Σ γg·(x − mean)
  double *mean = nullptr, *inverse = nullptr;  ///< and 1/√(variance + ε)
  double *offset = nullptr, *slope = nullptr;  ///< of dx

  // Of the channels of a run, array behind array:
  double* sums;                ///< Σg and Σ g·(x − mean)
  Parameter<T>* coefficients;  ///< kernels::Coefficients
};

template <class T>
class Planes : Groups<T, PlaneScratch<T>> {
  using Base = Groups<T, PlaneScratch<T>>;
  using typename Base::P;

 public:
  using Scratch = PlaneScratch<T>;

  using Base::Base;

  void forward(kernels::Forward<T> t, const Statistics& out) const {
    t.stream = this->streams(g_.positions, {t.y});
    this->begin_statistics(out);
    if (p_.split) {
      for (std::size_t i = 0; i < p_.units; ++i) forward_in_parts(t, out, i);
    } else {
      parallel_ranges(p_.tasks, this->workers_, [&](std::size_t first, std::size_t last) {
        forward_units(t, out, of_tasks(first, last), s_[first]);
      });
    }
    this->clear(t.y);
  }

  void backward(kernels::Backward<T> t, const Statistics& statistics, const AffineGradients<T>& gradients) const {
    t.stream = this->streams(g_.positions, {t.dx, t.dresidual}, kernels::kStreamBytesOfPlaneGradients);
    t.gate_first(!t.stream);
    this->begin_gradients();
    if (p_.split) {
      for (std::size_t i = 0; i < p_.units; ++i) backward_in_parts(t, statistics, i);
    } else {
      parallel_ranges(p_.tasks, this->workers_, [&](std::size_t first, std::size_t last) {
        for (std::size_t task = first; task < last; ++task) {
          backward_units(t, statistics, of_tasks(task, task + 1), s_[first], s_[task]);
        }
      });
    }
    this->clear(t.dx);
    this->clear(t.dresidual);
    this->end_gradients(gradients);
  }

 private:
  // --- Units. ---

  struct Range {
    std::size_t begin, end;
  };
  Range of_tasks(std::size_t first, std::size_t last) const {
    return {first * p_.units / p_.tasks, last * p_.units / p_.tasks};
  }

  /// Some groups of a sample, side by side, or a part of one.
  struct Unit {
    std::size_t sample, first, groups;
    std::size_t begin, end;  ///< channels of each group that are meant
    std::size_t positions;   ///< that are not padding
  };

  Unit unit(std::size_t sample, std::size_t first) const {
    return {sample,
            first,
            std::min(p_.together, g_.groups - first),
            0,
            g_.group_channels,
            g_.lengths == nullptr ? g_.positions : g_.lengths[sample]};
  }

  template <class Body>
  void for_each_unit(const Range& units, const Body& body) const {
    std::size_t sample = units.begin / p_.units_of_sample, first = units.begin % p_.units_of_sample * p_.together;
    for (std::size_t i = units.begin; i < units.end; ++i) {
      const Unit u = unit(sample, first);
      if (u.positions > 0) body(u);
      first += u.groups;
      if (first < g_.groups) continue;
      first = 0;
      ++sample;
    }
  }

  Unit part_of(Unit u, std::size_t part) const {
    u.begin = g_.group_channels * part / p_.parts;
    u.end = g_.group_channels * (part + 1) / p_.parts;
    return u;
  }

  /// Calls body(part, its index) for the parts of a unit, each worker for the last of its own first, which is in the
  /// caches, or in_order.
  template <class Body>
  void for_each_part(const Unit& u, bool in_order, const Body& body) const {
    parallel_ranges(p_.parts, this->workers_, [&](std::size_t first, std::size_t last) {
      for (std::size_t i = first; i < last; ++i) {
        const std::size_t part = in_order ? i : last - 1 - (i - first);
        body(part_of(u, part), part);
      }
    });
  }

  std::size_t first_group(const Unit& u) const { return u.sample * g_.groups + u.first; }
  std::size_t first_channel(const Unit& u) const { return u.first * g_.group_channels + u.begin; }
  std::size_t channels(const Unit& u) const { return u.groups * (u.end - u.begin); }
  std::size_t elements(const Unit& u) const { return channels(u) * g_.positions; }
  /// The element where it begins.
  std::size_t origin(const Unit& u) const { return first_group(u) * g_.group_elements() + u.begin * g_.positions; }
  double values_of_group(const Unit& u) const { return static_cast<double>(g_.group_channels * u.positions); }

  /// Calls body(first, count) for runs of channels, counted from the unit's first: whole groups, or some of one. The
  /// last first, which are in the caches, or in_order.
  template <class Body>
  void for_each_run(const Unit& u, bool in_order, const Body& body) const {
    const std::size_t all = channels(u), runs = (all + Plan::kRunChannels - 1) / Plan::kRunChannels;
    for (std::size_t i = 0; i < runs; ++i) {
      const std::size_t first = (in_order ? i : runs - 1 - i) * Plan::kRunChannels;
      body(first, std::min(Plan::kRunChannels, all - first));
    }
  }

  /// Calls body(k, i, c) for the channels of a run: of group k, the i-th of the run, channel c of the sample.
  template <class Body>
  void for_each_channel(const Unit& u, std::size_t first, std::size_t count, const Body& body) const {
    const std::size_t c = first_channel(u) + first;
    for (std::size_t k = 0, i = 0; i < count; ++k) {
      for (const std::size_t end = std::min(i + g_.group_channels, count); i < end; ++i) body(k, i, c + i);
    }
  }

  PlaneBlock planes(const Unit& u, std::size_t channels) const { return {1, 0, channels, g_.positions, u.positions}; }
  kernels::Run elements_of(const Unit& u, std::size_t c) const {
    return {u.sample * g_.sample_elements() + c * g_.positions, 1, u.positions};
  }

  // --- Groups and their channels. ---

  /// Says whether the group needs care.
  bool set_statistics(const Scratch& s, std::size_t k, double mean, double variance) const {
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDelete): as large as the same walk counted, never empty
    s.mean[k] = mean;
    s.inverse[k] = this->inverse_deviation(variance);
    return kernels::needs_care<T>(mean, variance);
  }

  kernels::Channel channel(const Scratch& s, std::size_t k, std::size_t c) const {
    return {s.mean[k], this->gamma(c) * s.inverse[k], this->beta(c)};
  }
  kernels::Channel channel_with_slope(const Scratch& s, std::size_t k, std::size_t c) const {
    return {s.mean[k], this->gamma(c) * s.inverse[k], this->beta(c), s.offset[k], s.slope[k]};
  }

  // --- Forward. ---

  void forward_units(const kernels::Forward<T>& t, const Statistics& out, const Range& units, const Scratch& s) const {
    const bool in_order = reads_in_order(t);
    for_each_unit(units, [&](const Unit& u) {
      fetch_pages(t.y, t.stream, u);
      if (p_.parts == 1) {
        moments(t.x, u, s);
      } else {
        moments_by_parts(t.x, u, s);
      }
      const bool careful = finish_statistics(u, s, out);
      normalize(t, u, careful, in_order, s, s);
    });
  }

  void forward_in_parts(const kernels::Forward<T>& t, const Statistics& out, std::size_t group) const {
    const Unit whole = unit(group / g_.groups, group % g_.groups);
    for_each_part(whole, true, [&](const Unit& u, std::size_t part) { moments(t.x, u, s_[part]); });
    Moments found;
    for (std::size_t part = 0; part < p_.parts; ++part) merge(found, part_of(whole, part), s_[part]);
    set(found, *s_);
    const bool careful = finish_statistics(whole, *s_, out), in_order = reads_in_order(t);
    for_each_part(whole, in_order,
                  [&](const Unit& u, std::size_t part) { normalize(t, u, careful, in_order, *s_, s_[part]); });
  }

  void moments_by_parts(const T* x, const Unit& u, const Scratch& s) const {
    Moments found;
    for (std::size_t part = 0; part < p_.parts; ++part) {
      moments(x, part_of(u, part), s);
      merge(found, part_of(u, part), s);
    }
    set(found, s);
  }

  /// Takes in those of a part of one group.
  void merge(Moments& found, const Unit& u, const Scratch& s) const {
    found.merge({static_cast<double>(elements(u)), *s.first, *s.second});
  }
  static void set(const Moments& found, const Scratch& s) {
    *s.first = found.mean;
    *s.second = found.m2;
  }

  /// Where an output stays in the caches too, and two inputs are read, that is foreseen by the hardware, and worth more
  /// than to begin with what is in the caches (measured: up to 12 % less).
  static bool reads_in_order(const kernels::Forward<T>& t) { return !t.stream && t.residual != nullptr; }

  /// Fetches the first line of each page of an output that is written behind the statistics: where in memory they are
  /// is found out meanwhile (measured: 1 to 6 % less).
  void fetch_pages(const T* out, bool stream, const Unit& u) const {
    if (stream || elements(u) > Plan::kPartElements) return;
    const T* const begin = out + origin(u);
    for (std::size_t i = 0; i < elements(u); i += kPageBytes / sizeof(T)) __builtin_prefetch(begin + i, 1);
  }

  void moments(const T* x, const Unit& u, const Scratch& s) const {
    if (g_.lengths != nullptr) return ragged_moments(x, u, s);
    const T* const first = x + origin(u);
    const std::size_t length = (u.end - u.begin) * g_.positions;
    for (std::size_t i = 0; i < length; i += Plan::kPieceElements) {
      const std::size_t of_piece = std::min(Plan::kPieceElements, length - i);
      kernel_.plane_moments(first + i, {1, 0, u.groups, g_.group_elements(), of_piece, cached_}, i, s.first, s.second);
    }
  }

  /// Between channels there is padding: each has moments of its own.
  void ragged_moments(const T* x, const Unit& u, const Scratch& s) const {
    Moments of_group;
    for_each_run(u, true, [&](std::size_t first, std::size_t count) {
      double *const mean = s.sums, *const m2 = s.sums + count;
      for (std::size_t c = 0; c < count; c += kMaxPlaneChannels) {
        const std::size_t together = std::min(kMaxPlaneChannels, count - c);
        for (std::size_t i = 0; i < u.positions; i += Plan::kPieceElements) {
          const std::size_t of_piece = std::min(Plan::kPieceElements, u.positions - i);
          kernel_.plane_moments(x + origin(u) + (first + c) * g_.positions + i,
                                {1, 0, together, g_.positions, of_piece, cached_}, i, mean + c, m2 + c);
        }
      }
      for_each_channel(u, first, count, [&](std::size_t k, std::size_t i, std::size_t c) {
        if (c % g_.group_channels == 0) of_group = {};
        of_group.merge({static_cast<double>(u.positions), mean[i], m2[i]});
        s.first[k] = of_group.mean;
        s.second[k] = of_group.m2;
      });
    });
  }

  /// Says whether a group needs care, and so the unit.
  bool finish_statistics(const Unit& u, const Scratch& s, const Statistics& out) const {
    const double inverse_count = 1 / values_of_group(u);
    bool careful = false;
    for (std::size_t k = 0; k < u.groups; ++k) {
      const double mean = s.first[k], variance = s.second[k] * inverse_count;
      careful |= set_statistics(s, k, mean, variance);
      this->tell(out, first_group(u) + k, mean, variance);
    }
    return careful;
  }

  /// s: of the unit; its coefficients are written to `own`.
  void normalize(const kernels::Forward<T>& t, const Unit& u, bool careful, bool in_order, const Scratch& s,
                 const Scratch& own) const {
    for_each_run(u, in_order, [&](std::size_t first, std::size_t count) {
      if (careful) {
        for_each_channel(u, first, count, [&](std::size_t k, std::size_t, std::size_t c) {
          kernels::careful_normalize(elements_of(u, c), t, channel(s, k, c));
        });
        return;
      }
      const kernels::CoefficientArrays<T> coefficients(own.coefficients, count);
      for_each_channel(u, first, count, [&](std::size_t k, std::size_t i, std::size_t c) {
        coefficients.write_forward(i, channel(s, k, c));
      });
      kernels::Forward<T> moved = t.at(origin(u) + first * g_.positions);
      moved.ahead = t.stream ? elements(u) : 0;
      kernel_.normalize_planes(moved, planes(u, count), coefficients);
    });
  }

  // --- Backward. ---

  void backward_units(const kernels::Backward<T>& t, const Statistics& statistics, const Range& units, const Scratch& s,
                      const GradientSums& gradients) const {
    const kernels::Backward<T> rest = t.after_sums(true);
    for_each_unit(units, [&](const Unit& u) {
      fetch_pages(t.dx, t.stream, u);
      bool careful = read_statistics(u, statistics, s);
      const kernels::Backward<T>& behind = careful ? t : rest;
      if (p_.parts == 1) {
        dots(t, behind, u, careful, s, gradients);
      } else {
        double first = 0, second = 0;
        for (std::size_t part = 0; part < p_.parts; ++part) {
          dots(t, behind, part_of(u, part), careful, s, gradients);
          first += *s.first;
          second += *s.second;
        }
        *s.first = first;
        *s.second = second;
      }
      careful |= finish_gradients(u, s);
      differentiate(behind, u, careful, !t.stream, s, s);
    });
  }

  void backward_in_parts(const kernels::Backward<T>& t, const Statistics& statistics, std::size_t group) const {
    const Unit whole = unit(group / g_.groups, group % g_.groups);
    bool careful = read_statistics(whole, statistics, *s_);
    const kernels::Backward<T> behind = careful ? t : t.after_sums(true);
    for_each_part(whole, true, [&](const Unit& u, std::size_t part) {
      read_statistics(u, statistics, s_[part]);
      dots(t, behind, u, careful, s_[part], s_[part]);
    });
    double first = 0, second = 0;
    for (std::size_t part = 0; part < p_.parts; ++part) {
      first += *s_[part].first;
      second += *s_[part].second;
    }
    *s_->first = first;
    *s_->second = second;
    careful |= finish_gradients(whole, *s_);
    for_each_part(whole, !t.stream, [&](const Unit& u, std::size_t part) {
      differentiate(behind, u, careful, !t.stream, *s_, s_[part]);
    });
  }

  /// Says whether a group needs care, and so the unit.
  bool read_statistics(const Unit& u, const Statistics& statistics, const Scratch& s) const {
    bool careful = false;
    for (std::size_t k = 0, at = first_group(u); k < u.groups; ++k, ++at) {
      careful |= set_statistics(s, k, statistics.mean[at], statistics.variance[at]);
    }
    return careful;
  }

  /// Σg and Σ g·(x − mean) of every channel, which are added to the parameters' gradients, and with γ make the groups'.
  /// behind: t when the sums are taken.
  void dots(const kernels::Backward<T>& t, const kernels::Backward<T>& behind, const Unit& u, bool careful,
            const Scratch& s, const GradientSums& gradients) const {
    std::fill_n(s.first, u.groups, 0.0);
    std::fill_n(s.second, u.groups, 0.0);
    for_each_run(u, true, [&](std::size_t first, std::size_t count) {
      double *const sum = s.sums, *const dot = s.sums + count;
      std::fill_n(s.sums, 2 * count, 0.0);
      if (!careful) {
        const kernels::CoefficientArrays<T> coefficients(s.coefficients, count);
        for_each_channel(u, first, count, [&](std::size_t k, std::size_t i, std::size_t c) {
          coefficients.write_forward(i, channel(s, k, c));
          coefficients.write_unit(i, channel(s, k, c), s.inverse[k]);
        });
        for (std::size_t c = 0; c < count; c += kMaxPlaneChannels) {
          kernel_.plane_dots(t.at(origin(u) + (first + c) * g_.positions),
                             planes(u, std::min(kMaxPlaneChannels, count - c)),
                             static_cast<kernels::Coefficients<T>>(coefficients).at(c), sum + c, dot + c);
        }
      }
      for_each_channel(u, first, count, [&](std::size_t k, std::size_t i, std::size_t c) {
        dot[i] -= sum[i] * kernels::mean_rest<P>(s.mean[k]);
        if (careful || !std::isfinite(sum[i]) || !std::isfinite(dot[i])) {  // or overflowed as floats
          sum[i] = dot[i] = 0;
          kernels::careful_dots(elements_of(u, c), behind, channel(s, k, c), sum + i, dot + i);
        }
        s.first[k] += this->gamma(c) * sum[i];
        s.second[k] += this->gamma(c) * dot[i];
        gradients.dbeta[c] += sum[i];
        gradients.dgamma[c] += dot[i] * s.inverse[k];
      });
    });
  }

  /// Says whether a group needs care because of its slope.
  bool finish_gradients(const Unit& u, const Scratch& s) const {
    const double inverse_count = 1 / values_of_group(u);
    bool careful = false;
    for (std::size_t k = 0; k < u.groups; ++k) {
      const double inverse = s.inverse[k];
      s.offset[k] = s.first[k] * inverse_count * inverse;
      s.slope[k] = s.second[k] * inverse_count * inverse * inverse * inverse;
      careful |= kernels::needs_care<T>(s.slope[k]);
    }
    return careful;
  }

  /// s: of the unit; its coefficients are written to `own`, where those of forward stand if the sums left none but
  /// these.
  void differentiate(const kernels::Backward<T>& t, const Unit& u, bool careful, bool in_order, const Scratch& s,
                     const Scratch& own) const {
    for_each_run(u, in_order, [&](std::size_t first, std::size_t count) {
      if (careful) {
        for_each_channel(u, first, count, [&](std::size_t k, std::size_t, std::size_t c) {
          kernels::careful_differentiate(elements_of(u, c), t, channel_with_slope(s, k, c));
        });
        return;
      }
      const kernels::CoefficientArrays<T> coefficients(own.coefficients, count);
      const bool stand = count == channels(u) && (p_.parts == 1 || p_.split);
      for_each_channel(u, first, count, [&](std::size_t k, std::size_t i, std::size_t c) {
        if (!stand) coefficients.write_forward(i, channel(s, k, c));
        coefficients.write_backward(i, channel_with_slope(s, k, c));
      });
      kernels::Backward<T> moved = t.at(origin(u) + first * g_.positions);
      moved.ahead = elements(u);
      kernel_.gradient_planes(moved, planes(u, count), coefficients);
    });
  }

  using Base::cached_;
  using Base::g_;
  using Base::kernel_;
  using Base::p_;
  using Base::s_;
};

}  // namespace equinorm::group_norm
