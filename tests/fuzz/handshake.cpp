// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <vector>

#include "proto/batch.hpp"
#include "proto/enrolment.hpp"
#include "proto/handshake.hpp"

/// The JSON bodies. What is accepted must survive a round trip.
using namespace blkferry;
using namespace blkferry::proto;

namespace {

template <class M, class D>
void check(std::span<const std::byte> body, D decode) {
    const auto m = decode(body);
    if (!m)
        return;
    std::vector<std::byte> out;
    encode(*m, out);
    const auto again = decode(out);
    BLKFERRY_ASSERT(again.has_value());
    BLKFERRY_ASSERT(*again == *m);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::span body(reinterpret_cast<const std::byte*>(data), size);
    if (const auto hello = decode_hello(body)) {
        BLKFERRY_ASSERT(valid_name(hello->source));
        BLKFERRY_ASSERT(!hello->disks.empty() && hello->disks.size() <= disks_max);
        for (const DiskInfo& d : hello->disks)
            BLKFERRY_ASSERT(d.sectors > 0 && d.sectors <= disk_sectors_max && d.slot < disks_max);
        // A valid HELLO of many short members may grow over the limit when written again with its defaults: none has any.
        std::vector<std::byte> out;
        encode(*hello, out);
        if (out.size() <= json_body_bytes_max)
            BLKFERRY_ASSERT(decode_hello(out).value() == *hello);
    }
    check<Welcome>(body, decode_welcome);
    check<Heartbeat>(body, decode_heartbeat);
    check<CertRequest>(body, decode_cert_request);
    check<CertReply>(body, decode_cert_reply);
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto token = Token::parse(text))
        BLKFERRY_ASSERT(Token::parse(token->str()).value() == *token && text.find(token->str()) != std::string_view::npos);
    if (const auto e = decode_peer_error(body)) {
        std::vector<std::byte> out;
        encode(*e, out);
        BLKFERRY_ASSERT(out.size() <= json_body_bytes_max);
    }
    return 0;
}
