# Fuzz targets. Each is built twice: with the compiler at hand and a small driver of deterministic mutations, for
# every test run and sanitizer; and with clang and libFuzzer in a build of its own below this one, for a few seconds
# of search. EQUINORM_FUZZ=ON makes this build the libFuzzer build.

set(EQUINORM_FUZZ_SECONDS 3 CACHE STRING "How long ctest lets each libFuzzer target search")

if(EQUINORM_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang)
    message(FATAL_ERROR "EQUINORM_FUZZ needs clang for libFuzzer; the compiler is ${CMAKE_CXX_COMPILER_ID}")
  endif()
  target_compile_options(equinorm_options INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  target_link_options(equinorm_options INTERFACE -fsanitize=address,undefined)
  add_custom_target(equinorm_fuzzers)
elseif(EQUINORM_TESTS)
  find_program(EQUINORM_CLANG clang++)
  set(EQUINORM_FUZZ_BUILD ${PROJECT_BINARY_DIR}/fuzz)
  if(EQUINORM_CLANG)
    add_test(NAME fuzz_build COMMAND ${CMAKE_CTEST_COMMAND}
      --build-and-test ${PROJECT_SOURCE_DIR} ${EQUINORM_FUZZ_BUILD} --build-generator ${CMAKE_GENERATOR}
      --build-target equinorm_fuzzers --build-noclean --build-options -DCMAKE_BUILD_TYPE=RelWithDebInfo
      -DCMAKE_CXX_COMPILER=${EQUINORM_CLANG} -DCMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER}
      -DEQUINORM_FUZZ=ON -DEQUINORM_TESTS=OFF -DEQUINORM_OPENMP=OFF)
    set_tests_properties(fuzz_build PROPERTIES FIXTURES_SETUP fuzzers TIMEOUT 300)
  endif()
endif()

# equinorm_fuzz(NAME SOURCES … LINK … SEEDS DIR RUNS N): a target with LLVMFuzzerTestOneInput, a directory of seeds, and
# how many mutations the driver makes of them.
function(equinorm_fuzz name)
  cmake_parse_arguments(ARG "" "SEEDS;RUNS" "SOURCES;LINK" ${ARGN})
  set(seeds ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SEEDS})
  if(EQUINORM_FUZZ)
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE ${ARG_LINK})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(equinorm_fuzzers ${name})
  elseif(EQUINORM_TESTS)
    add_executable(${name} ${ARG_SOURCES} ${PROJECT_SOURCE_DIR}/cmake/fuzz_driver.cpp)
    target_link_libraries(${name} PRIVATE ${ARG_LINK} equinorm_core)
    add_test(NAME ${name}.mutations COMMAND ${name} ${seeds} ${ARG_RUNS})
    set_tests_properties(${name}.mutations PROPERTIES TIMEOUT 120)
    if(EQUINORM_CLANG)
      # What libFuzzer finds goes to the first directory; the seeds are only read.
      set(found ${EQUINORM_FUZZ_BUILD}/found/${name})
      file(MAKE_DIRECTORY ${found})
      add_test(NAME ${name}.libfuzzer COMMAND ${EQUINORM_FUZZ_BUILD}/bin/${name} -max_total_time=${EQUINORM_FUZZ_SECONDS}
        -max_len=4096 -rss_limit_mb=2048 -timeout=10 -artifact_prefix=${EQUINORM_FUZZ_BUILD}/ -verbosity=0
        -print_final_stats=1 ${found} ${seeds})
      set_tests_properties(${name}.libfuzzer PROPERTIES FIXTURES_REQUIRED fuzzers TIMEOUT 120)
    else()
      add_test(NAME ${name}.libfuzzer COMMAND ${CMAKE_COMMAND} -E echo "skipped: clang++ is not installed")
      set_tests_properties(${name}.libfuzzer PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped")
    endif()
  endif()
endfunction()
