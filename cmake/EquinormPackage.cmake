# libequinorm as others get it: an archive and a shared object of the same objects, headers, CMake and pkg-config files.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# Every folder up to the C interface that has objects which operations need (those of core are for files).
set(EQUINORM_PARTS equinorm_simd equinorm_parallel equinorm_kernels equinorm equinorm_capi)
set(objects ${EQUINORM_PARTS})
list(TRANSFORM objects REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>")
if(EQUINORM_OPENMP)
  set(threads OpenMP)
  set(threads_target OpenMP::OpenMP_CXX)
  set(threads_libraries ${OpenMP_CXX_LIB_NAMES})
  list(TRANSFORM threads_libraries PREPEND "-l")
  if(OpenMP_omp_LIBRARY)  # clang's lies where its linker does not look by itself
    list(TRANSFORM threads_libraries REPLACE "^-lomp$" "${OpenMP_omp_LIBRARY}")
  endif()
else()
  set(threads Threads)
  set(threads_target Threads::Threads)
  set(threads_libraries -lpthread)
endif()

foreach(kind IN ITEMS static shared)
  string(TOUPPER ${kind} type)
  set(target equinorm_${kind})
  add_library(${target} ${type} ${objects})
  add_library(Equinorm::${target} ALIAS ${target})
  target_link_libraries(${target} PRIVATE hwy::hwy ${threads_target})
  target_include_directories(${target} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME equinorm LINKER_LANGUAGE CXX
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
  install(TARGETS ${target} EXPORT ${target})
  install(EXPORT ${target} NAMESPACE Equinorm:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Equinorm)
endforeach()

# What the standard library instantiated in our objects is nobody's API either.
set(exports ${CMAKE_CURRENT_LIST_DIR}/equinorm.map)
target_link_options(equinorm_shared PRIVATE
  LINKER:--version-script=${exports} LINKER:--gc-sections)
set_target_properties(equinorm_shared PROPERTIES LINK_DEPENDS ${exports})
if(EQUINORM_SANITIZE)  # whose symbols clang leaves to the program
  target_link_options(equinorm_shared PRIVATE -fsanitize=${EQUINORM_SANITIZE})
else()
  target_link_options(equinorm_shared PRIVATE LINKER:--no-undefined)
endif()

if(EQUINORM_TESTS)
  add_test(NAME package.symbols COMMAND ${EQUINORM_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/check_symbols.py
    $<TARGET_FILE:equinorm_shared> $<TARGET_FILE:equinorm_static> ${PROJECT_SOURCE_DIR}/include)
  if(NOT EQUINORM_SANITIZE)  # else those who link it would have to be built so too
    add_test(NAME package.examples COMMAND ${EQUINORM_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/check_package.py
      ${PROJECT_BINARY_DIR} ${PROJECT_SOURCE_DIR} ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER})
    set_tests_properties(package.examples PROPERTIES TIMEOUT 120)
  endif()
endif()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

configure_package_config_file(cmake/EquinormConfig.cmake.in ${PROJECT_BINARY_DIR}/EquinormConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Equinorm NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change what is declared.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/EquinormConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/EquinormConfig.cmake ${PROJECT_BINARY_DIR}/EquinormConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Equinorm)

list(JOIN threads_libraries " " threads_libraries)
file(RELATIVE_PATH prefix_from_pkgconfig /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/equinorm.pc.in equinorm.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/equinorm.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
