# SPDX-License-Identifier: Apache-2.0
# Compiler flags, the libraries used, and the three verbs by which folders declare what they are.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(BLKID REQUIRED IMPORTED_TARGET blkid)
pkg_check_modules(NL REQUIRED IMPORTED_TARGET libnl-3.0 libnl-genl-3.0)
pkg_check_modules(BPF REQUIRED IMPORTED_TARGET libbpf>=1.0)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(LZ4 REQUIRED IMPORTED_TARGET liblz4)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(ISAL REQUIRED IMPORTED_TARGET libisal)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(Boost 1.74 REQUIRED COMPONENTS unit_test_framework)

add_library(blkferry_flags INTERFACE)
target_compile_options(blkferry_flags INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wconversion -Wsign-conversion -Wcast-align -Wundef -Wvla
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor -Woverloaded-virtual -Wold-style-cast -Wswitch-enum>
  -fno-omit-frame-pointer -fstack-protector-strong)
target_link_options(blkferry_flags INTERFACE -Wl,-z,relro,-z,now)
target_include_directories(blkferry_flags INTERFACE ${CMAKE_SOURCE_DIR}/daemon)
target_include_directories(blkferry_flags SYSTEM INTERFACE ${CMAKE_SOURCE_DIR}/kmod/uapi)
target_compile_definitions(blkferry_flags INTERFACE _FILE_OFFSET_BITS=64 BLKFERRY_VERSION="${PROJECT_VERSION}")
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 16)
  message(FATAL_ERROR "clang ${CMAKE_CXX_COMPILER_VERSION} cannot compile libstdc++'s std::expected; use clang 16 or newer")
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 19)
  # libstdc++ offers std::expected to compilers that claim P0848; these clangs have it but do not claim it.
  target_compile_options(blkferry_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-Wno-builtin-macro-redefined -U__cpp_concepts -D__cpp_concepts=202002L>")
endif()
if(BLKFERRY_SANITIZE)
  target_compile_options(blkferry_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all)
  target_link_options(blkferry_flags INTERFACE -fsanitize=address,undefined)
elseif(NOT BLKFERRY_FUZZ)
  target_compile_definitions(blkferry_flags INTERFACE $<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
endif()
if(BLKFERRY_FUZZ)
  target_compile_options(blkferry_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  target_link_options(blkferry_flags INTERFACE -fsanitize=address,undefined)
endif()

# blkferry_library(name SOURCES... [DEPS libs...]): the library of the current folder, blkferry_<name>.
# An include of another folder works only from the root ("base/fd.hpp"), and DEPS is the graph.
function(blkferry_library name)
  cmake_parse_arguments(A "" "" "DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(blkferry_${name} STATIC ${A_UNPARSED_ARGUMENTS})
  target_link_libraries(blkferry_${name} PUBLIC blkferry_flags ${A_DEPS} PRIVATE ${A_PRIVATE_DEPS})
endfunction()

# blkferry_test(name SOURCES... [DEPS libs...]): one Boost.Test program, registered as unit test <name>.
function(blkferry_test name)
  cmake_parse_arguments(A "" "" "DEPS" ${ARGN})
  add_executable(test_${name} ${A_UNPARSED_ARGUMENTS})
  target_compile_definitions(test_${name} PRIVATE BOOST_TEST_DYN_LINK BOOST_TEST_MODULE=${name})
  target_link_libraries(test_${name} PRIVATE blkferry_flags ${A_DEPS} Boost::unit_test_framework)
  set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND test_${name})
  set_tests_properties(${name} PROPERTIES LABELS unit SKIP_RETURN_CODE 77 TIMEOUT 1200)
endfunction()

# blkferry_fuzzer(name SOURCES... [DEPS libs...]): a libFuzzer program in build-fuzz; in every other build the same file
# runs as a unit test over its corpus tests/fuzz/corpus/<name>/ (linked with tests/fuzz/replay.cpp).
function(blkferry_fuzzer name)
  cmake_parse_arguments(A "" "" "DEPS" ${ARGN})
  if(BLKFERRY_FUZZ)
    add_executable(fuzz_${name} ${A_UNPARSED_ARGUMENTS})
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(fuzz_${name} ${A_UNPARSED_ARGUMENTS} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.cpp)
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
    set_tests_properties(fuzz_${name} PROPERTIES LABELS unit TIMEOUT 120)
  endif()
  target_link_libraries(fuzz_${name} PRIVATE blkferry_flags ${A_DEPS})
  set_target_properties(fuzz_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endfunction()
