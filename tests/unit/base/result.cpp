// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <cerrno>
#include <memory>
#include <set>

#include "base/result.hpp"

using namespace blkferry;

namespace {
Result<std::unique_ptr<int>> make(bool ok) {
    if (!ok)
        return fail(Errc::busy, "object x is busy");
    return std::make_unique<int>(7);
}
Result<int> use(bool ok) {
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<int> p, make(ok));
    return *p;
}
Result<void> pass(bool ok) {
    BLKFERRY_TRY(make(ok));
    return {};
}
}  // namespace

BOOST_AUTO_TEST_SUITE(result)

BOOST_AUTO_TEST_CASE(try_macros_pass_value_and_error) {
    BOOST_TEST(use(true).value() == 7);
    BOOST_TEST((use(false).error().code == Errc::busy));
    BOOST_TEST(pass(true).has_value());
    BOOST_TEST(pass(false).error().text == "object x is busy");
}

BOOST_AUTO_TEST_CASE(context_goes_in_front) {
    Error e{Errc::io, EIO, "disk broke"};
    BOOST_TEST(std::move(e).with("source=a").text == "source=a: disk broke");
}

BOOST_AUTO_TEST_CASE(errno_keeps_number_and_picks_kind) {
    const auto e = fail_errno(ENOSPC, "cannot write x").error();
    BOOST_TEST((e.code == Errc::no_space));
    BOOST_TEST(e.sys_errno == ENOSPC);
    BOOST_TEST(e.text == "cannot write x: No space left on device");
    BOOST_TEST((fail_errno(EPERM, "x").error().code == Errc::denied));
    BOOST_TEST((fail_errno(EPIPE, "x").error().code == Errc::closed));
    BOOST_TEST((fail_errno(EIO, "x").error().code == Errc::io));
}

BOOST_AUTO_TEST_CASE(every_code_has_its_own_name) {
    std::set<std::string_view> names;
    for (unsigned i = 0; i <= static_cast<unsigned>(Errc::conflict); ++i)
        names.insert(to_string(static_cast<Errc>(i)));
    BOOST_TEST(names.size() == static_cast<std::size_t>(Errc::conflict) + 1);
    BOOST_TEST(!names.contains("unknown"));
}

BOOST_AUTO_TEST_SUITE_END()
