// EQUINORM_VECTORIZE before a function: the compiler makes a version for each vector width and the loader picks. Only
// for elementwise loops, whose bits do not depend on the width (contraction is off throughout).
#pragma once

// Sanitizers are not yet running when the loader picks.
#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !(defined(__clang__) && __clang_major__ < 14)
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define EQUINORM_VECTORIZE
#endif
#endif
#ifndef EQUINORM_VECTORIZE
#define EQUINORM_VECTORIZE __attribute__((target_clones("default", "avx2", "avx512f")))
#endif
#else
#define EQUINORM_VECTORIZE
#endif
