// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <random>

#include "message.hpp"
#include "opener/module_request.hpp"

using namespace blkferry;
using namespace blkferry::opener;
using namespace blkferry::opener::test;

namespace {

bool taken(Message m, bool fd = false) { return ModuleRequest::check(m, fd).has_value(); }
Message disk(std::uint8_t cmd) { return Message(cmd).add(BLKFERRY_A_DISK, 4, 3); }
Message attach() { return Message(BLKFERRY_CMD_ATTACH).add(BLKFERRY_A_DEV, 8, 8ULL << 32).add(BLKFERRY_A_FD, 4, 12); }

}  // namespace

BOOST_AUTO_TEST_SUITE(module_request)

BOOST_AUTO_TEST_CASE(what_the_agent_asks_is_taken) {
    BOOST_TEST(taken(Message(BLKFERRY_CMD_INFO)));
    BOOST_TEST(taken(Message(BLKFERRY_CMD_SEQ_FLOOR).add(BLKFERRY_A_SEQ, 8, 100)));
    BOOST_TEST(taken(attach(), true));
    BOOST_TEST(taken(attach().add(BLKFERRY_A_DATA_BYTES, 8).add(BLKFERRY_A_DESCS, 4).add(BLKFERRY_A_INLINE_MAX, 4), true));
    BOOST_TEST(taken(Message(BLKFERRY_CMD_DISK_GET, NLM_F_REQUEST | NLM_F_DUMP)));
    BOOST_TEST(taken(Message(BLKFERRY_CMD_DISK_GET, NLM_F_REQUEST | NLM_F_DUMP | NLM_F_ACK)));
    for (const std::uint8_t cmd : {BLKFERRY_CMD_DETACH, BLKFERRY_CMD_DISK_GET, BLKFERRY_CMD_RESYNC_BEGIN, BLKFERRY_CMD_RESYNC_END,
                                   BLKFERRY_CMD_MARK_DIRTY})
        BOOST_TEST(taken(disk(cmd)));
    BOOST_TEST(taken(disk(BLKFERRY_CMD_RESYNC_CLEAR).add(BLKFERRY_A_RANGES, 16 * BLKFERRY_RANGES_MAX).add(BLKFERRY_A_SEQ, 8)));
    BOOST_TEST(taken(disk(BLKFERRY_CMD_MARK_DIRTY).add(BLKFERRY_A_RANGES, 16)));
    BOOST_TEST(taken(Message(BLKFERRY_CMD_CUT)));
    BOOST_TEST(taken(Message(BLKFERRY_CMD_CUT).add(BLKFERRY_A_FREEZE_DEVS, 8 * BLKFERRY_FREEZE_MAX).add(BLKFERRY_A_FREEZE_MS, 4, 500)));
}

BOOST_AUTO_TEST_CASE(what_it_never_asks_is_not) {
    for (int cmd = 0; cmd < 256; ++cmd)
        if (cmd == BLKFERRY_CMD_UNSPEC || cmd >= BLKFERRY_CMD_EVENT)
            BOOST_TEST(!taken(Message(static_cast<std::uint8_t>(cmd))));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_INFO, NLM_F_REQUEST)));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_INFO, NLM_F_REQUEST | NLM_F_DUMP)));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_INFO, NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO)));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_INFO, NLM_F_REQUEST | NLM_F_ACK, 2)));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_DISK_GET)));                                       // of which disk?
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_DISK_GET, NLM_F_REQUEST | NLM_F_DUMP).add(BLKFERRY_A_DISK, 4)));
    BOOST_TEST(!taken(disk(BLKFERRY_CMD_DETACH).add(BLKFERRY_A_DISK, 4)));                     // twice
    BOOST_TEST(!taken(disk(BLKFERRY_CMD_DETACH).add(BLKFERRY_A_SEQ, 8)));                      // not of this command
    BOOST_TEST(!taken(disk(BLKFERRY_CMD_DETACH).add(BLKFERRY_A_UNSPEC, 0)));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_DETACH).add(BLKFERRY_A_DISK | NLA_F_NESTED, 4)));
    for (const std::size_t size : {0U, 3U, 5U, 8U})
        BOOST_TEST(!taken(Message(BLKFERRY_CMD_DETACH).add(BLKFERRY_A_DISK, size)));
    BOOST_TEST(!taken(disk(BLKFERRY_CMD_RESYNC_CLEAR)));                                       // no ranges
    for (const std::size_t size : {0U, 15U, 17U, 16U * (BLKFERRY_RANGES_MAX + 1)})
        BOOST_TEST(!taken(disk(BLKFERRY_CMD_RESYNC_CLEAR).add(BLKFERRY_A_RANGES, size)));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_CUT).add(BLKFERRY_A_FREEZE_DEVS, 8 * (BLKFERRY_FREEZE_MAX + 1))));
    // The descriptor goes with ATTACH and with nothing else.
    BOOST_TEST(!taken(attach()));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_INFO), true));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_ATTACH).add(BLKFERRY_A_DEV, 8), true));
    BOOST_TEST(!taken(Message(BLKFERRY_CMD_ATTACH).add(BLKFERRY_A_FD, 4), true));
}

BOOST_AUTO_TEST_CASE(lengths_that_lie) {
    Message whole = disk(BLKFERRY_CMD_RESYNC_CLEAR).add(BLKFERRY_A_RANGES, 32).add(BLKFERRY_A_SEQ, 8);
    for (std::size_t n = 0; n < whole.bytes.size(); ++n) {
        Message cut = whole;
        cut.bytes.resize(n);
        BOOST_TEST(!taken(cut));  // its length is another
        if (n >= sizeof(std::uint32_t)) {
            cut.length();
            if (n != whole.bytes.size() - padded(value_at + 8))  // there it ends well, without the number
                BOOST_TEST(!taken(cut));
        }
    }
    for (const int wrong : {0, 1, 3, 9, 0x7fff, 0xffff}) {
        const auto length = static_cast<std::uint16_t>(wrong);
        Message m = disk(BLKFERRY_CMD_DETACH);
        std::memcpy(m.bytes.data() + attrs_at, &length, sizeof(length));
        BOOST_TEST(!taken(m));
    }
    Message longer = disk(BLKFERRY_CMD_DETACH);
    longer.bytes.resize(longer.bytes.size() + 2);
    longer.length();
    BOOST_TEST(!taken(longer));
}

BOOST_AUTO_TEST_CASE(noise_and_flipped_bits) {
    std::mt19937 random(7);
    const Message good = attach().add(BLKFERRY_A_DATA_BYTES, 8);
    for (int i = 0; i < 200'000; ++i) {
        Message m = good;
        const unsigned flips = 1 + random() % 4;
        for (unsigned f = 0; f < flips; ++f)
            m.bytes[random() % m.bytes.size()] ^= static_cast<std::byte>(1U << (random() % 8));
        if (i % 3 == 0)
            m.bytes.resize(random() % (m.bytes.size() + 1));
        auto r = ModuleRequest::check(m, i % 2 == 0);
        if (r) {  // whatever is taken has its places within the message
            BOOST_REQUIRE(r->fd_at == 0 || r->fd_at + 4 <= m.bytes.size());
            r->address(30, 9);
        }
    }
}

BOOST_AUTO_TEST_CASE(the_sender_fills_in_family_and_descriptor) {
    Message m = attach();
    auto r = ModuleRequest::check(m, true);
    BOOST_REQUIRE(r);
    BOOST_TEST(r->sequence == 5U);
    BOOST_TEST(r->dev == 8ULL << 32);
    r->address(31, 9);
    nlmsghdr head{};
    std::memcpy(&head, m.bytes.data(), sizeof(head));
    BOOST_TEST(head.nlmsg_type == 31);
    BOOST_TEST(head.nlmsg_pid == 0U);
    std::uint32_t fd = 0;
    std::memcpy(&fd, m.bytes.data() + r->fd_at, sizeof(fd));
    BOOST_TEST(fd == 9U);
    BOOST_TEST(taken(m, true));
}

BOOST_AUTO_TEST_SUITE_END()
