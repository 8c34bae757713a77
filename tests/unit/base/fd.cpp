// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <array>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "../temp_dir.hpp"
#include "base/fd.hpp"

using namespace blkferry;
namespace fs = std::filesystem;

namespace {
using blkferry::test::TempDir;

bool is_open(int fd) {
    return ::fcntl(fd, F_GETFD) >= 0;
}
std::span<const std::byte> raw(std::string_view s) {
    return std::as_bytes(std::span(s));
}
}  // namespace

BOOST_FIXTURE_TEST_SUITE(fd, TempDir)

BOOST_AUTO_TEST_CASE(owner_closes_once) {
    auto opened = open_file(path / "a", O_RDWR | O_CREAT);
    BOOST_REQUIRE(opened);
    const int number = opened->get();
    BOOST_TEST((::fcntl(number, F_GETFD) & FD_CLOEXEC) != 0);
    Fd first = std::move(*opened);
    Fd second;
    BOOST_TEST(!second);
    second = std::move(first);
    BOOST_TEST(!first);
    BOOST_TEST(second.get() == number);
    Fd& same = second;
    second = std::move(same);
    BOOST_TEST(is_open(number));
    second.reset();
    BOOST_TEST(!is_open(number));
    second.reset();
    BOOST_TEST(second.release() == -1);
}

BOOST_AUTO_TEST_CASE(open_error_names_the_path) {
    const auto r = open_file(path / "no" / "such", O_RDONLY);
    BOOST_REQUIRE(!r);
    BOOST_TEST((r.error().code == Errc::not_found));
    BOOST_TEST(r.error().sys_errno == ENOENT);
    BOOST_TEST(r.error().text.find((path / "no" / "such").string()) != std::string::npos);
}

BOOST_AUTO_TEST_CASE(positioned_io) {
    auto file = open_file(path / "a", O_RDWR | O_CREAT);
    BOOST_REQUIRE(file);
    BOOST_REQUIRE(write_full_at(file->get(), raw("hello"), 7, "a"));
    std::array<std::byte, 5> got{};
    BOOST_REQUIRE(read_full_at(file->get(), got, 7, "a"));
    BOOST_TEST(std::string(reinterpret_cast<const char*>(got.data()), 5) == "hello");
    const auto r = read_full_at(file->get(), got, 8, "a");
    BOOST_REQUIRE(!r);
    BOOST_TEST((r.error().code == Errc::corrupt));
    BOOST_TEST(r.error().text.find("a ends at byte 12") != std::string::npos);
    const auto full = open_file("/dev/full", O_WRONLY);
    BOOST_REQUIRE(full);
    const auto w = write_full_at(full->get(), raw("x"), 0, "full");
    BOOST_REQUIRE(!w);
    BOOST_TEST((w.error().code == Errc::no_space));
}

BOOST_AUTO_TEST_CASE(durable_replace_leaves_no_temporary) {
    BOOST_REQUIRE(write_file_durable(path / "t", "one"));
    BOOST_REQUIRE(write_file_durable(path / "t", "two"));
    BOOST_TEST(read_text_file(path / "t", 3).value() == "two");
    const auto too_large = read_text_file(path / "t", 2);
    BOOST_REQUIRE(!too_large);
    BOOST_TEST((too_large.error().code == Errc::invalid));
    std::size_t names = 0;
    for ([[maybe_unused]] const auto& e : fs::directory_iterator(path))
        ++names;
    BOOST_TEST(names == 1U);
    struct stat st{};
    BOOST_REQUIRE(::stat((path / "t").c_str(), &st) == 0);
    BOOST_TEST((st.st_mode & 0777) == 0600U);
    BOOST_TEST(!write_file_durable(path / "missing" / "t", "x"));
    BOOST_TEST(!sync_dir(path / "missing"));
}

BOOST_AUTO_TEST_CASE(mapping_is_shared_and_moves) {
    auto file = open_file(path / "m", O_RDWR | O_CREAT);
    BOOST_REQUIRE(file);
    BOOST_REQUIRE(::ftruncate(file->get(), 8192) == 0);
    auto m = Mapping::map(file->get(), 4096, PROT_READ | PROT_WRITE, 4096, "m");
    BOOST_REQUIRE(m);
    m->data()[1] = std::byte{42};
    std::array<std::byte, 1> got{};
    BOOST_REQUIRE(read_full_at(file->get(), got, 4097, "m"));
    BOOST_TEST(std::to_integer<int>(got[0]) == 42);
    Mapping other;
    other = std::move(*m);
    BOOST_TEST(m->data() == nullptr);
    BOOST_TEST(other.size() == 4096U);
    other.reset();
    BOOST_TEST(other.data() == nullptr);
    BOOST_TEST(!Mapping::map(-1, 4096, PROT_READ, 0, "none"));
}

BOOST_AUTO_TEST_SUITE_END()
