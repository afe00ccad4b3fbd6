# How every target of the tree is made: the same warnings, the same include root, tests registered one by one.

add_library(equinorm_options INTERFACE)
target_include_directories(equinorm_options INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>)
target_compile_options(equinorm_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror
  $<$<COMPILE_LANGUAGE:CXX>:-Wold-style-cast -Wnon-virtual-dtor -Woverloaded-virtual>
  # No contraction: a fused multiply-add where the source has two roundings would tie bits to the instruction set.
  -ffp-contract=off
  # GCC 12 sees overlapping copies in std::string's operator+ (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(EQUINORM_SANITIZE)
  # GCC warns of uninitialized values that are not, in <regex> for one, once sanitizers have rewritten the code; so says
  # its manual at -fsanitize.
  target_compile_options(equinorm_options INTERFACE -fsanitize=${EQUINORM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-fno-var-tracking>)  # for kernels, tracking takes minutes
  target_link_options(equinorm_options INTERFACE -fsanitize=${EQUINORM_SANITIZE}
    $<$<LINK_LANG_AND_ID:C,Clang>:-fsanitize-link-c++-runtime>)
  target_link_libraries(equinorm_options INTERFACE $<$<LINK_LANG_AND_ID:C,Clang>:stdc++>)  # which that wants
endif()

# equinorm_library(NAME SOURCES … LINK …): a static library of one folder; LINK names the folders below it.
function(equinorm_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  if(ARG_SOURCES)
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC equinorm_options ${ARG_LINK})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE equinorm_options ${ARG_LINK})
  endif()
endfunction()

# equinorm_test(NAME SOURCES … LINK …): a GoogleTest program whose cases ctest lists one by one.
function(equinorm_test name)
  if(NOT EQUINORM_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE EQUINORM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  # What is tested is in the libraries, fully optimized; of tests, to compile them less takes half the time, and they run
  # as fast.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  include(GoogleTest)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST XML_OUTPUT_DIR ${PROJECT_BINARY_DIR}/xml
    PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
